// two_layer, two_layer_value_and_grad and two_layer_parameter_grad against naive.h.
#include "engine.h"
#include "problem.h"

namespace bk::test {
namespace {

template <class A> struct Results {
  std::vector<A> f_alone, f, gx, gw, ga, gb;
  bool operator==(const Results& other) const {
    return same_bits(f_alone, other.f_alone) && same_bits(f, other.f) && same_bits(gx, other.gx) &&
           same_bits(gw, other.gw) && same_bits(ga, other.ga) && same_bits(gb, other.gb);
  }
};

template <class T> Results<Compute<T>> run_engine(const Problem<T>& problem) {
  using A = Compute<T>;
  const Shape& s = problem.shape;
  const Network<T> net = problem.network();
  const Samples<A> samples = problem.samples();
  Results<A> out{unwritten<A>(s.rows() * s.heads),
                 unwritten<A>(s.rows() * s.heads),
                 unwritten<A>(s.rows() * s.row_size()),
                 unwritten<A>(s.networks * s.neurons * s.dim),
                 unwritten<A>(s.networks * s.heads * s.neurons),
                 unwritten<A>(s.networks * s.neurons)};

  engine::two_layer(net, samples, out.f_alone.data());
  engine::two_layer_value_and_grad(net, samples, problem.cotangent.data(), out.f.data(), out.gx.data());
  engine::two_layer_parameter_grad(net, samples, problem.cotangent.data(), out.gw.data(), out.ga.data(), out.gb.data());
  return out;
}

template <class T> void check(const Shape& s, ActivationKind kind) {
  using A = Compute<T>;
  const Problem<T> problem(s, kind);
  const std::string name =
      std::string(type_name<T>()) + " " + kActivationNames[static_cast<int>(kind)] + " " + s.text();
  const Results<A> got = under_all_orders(
      name, [&] { return run_engine(problem); }, [](const auto& one, const auto& other) { return one == other; });

  const NaiveNetwork net = problem.naive();
  const Vector x = widened(problem.x), cotangent = widened(problem.cotangent);
  Vector f, gx, gw(got.gw.size()), ga(got.ga.size()), gb(got.gb.size());
  for (std::int64_t network = 0; network < s.networks; ++network) {
    for (std::int64_t sample = 0; sample < s.samples; ++sample) {
      const double* point = x.data() + problem.x_offset(network, sample);
      const double* r = cotangent.data() + (network * s.samples + sample) * s.heads;
      const Vector value = naive_value(net, network, point);
      const Vector grad = naive_input_grad(net, network, naive_gated(net, network, point, r));
      f.insert(f.end(), value.begin(), value.end());
      gx.insert(gx.end(), grad.begin(), grad.end());
      naive_parameter_grad(net, network, point, r, gw.data() + network * s.neurons * s.dim,
                           ga.data() + network * s.heads * s.neurons, gb.data() + network * s.neurons);
    }
  }
  const double tolerance = rounding<A>();
  expect_close(name + " f", got.f, f, tolerance);
  expect_close(name + " gx", got.gx, gx, tolerance);
  expect_close(name + " gw", got.gw, gw, tolerance);
  expect_close(name + " ga", got.ga, ga, tolerance);
  expect_close(name + " gb", got.gb, gb, tolerance);
  expect(same_bits(got.f_alone, got.f), name + ": f differs between the two ops");
}

// A null cotangent is all ones; unwanted results may be null.
void check_optional_arguments() {
  Problem<double> problem({2, 5, 7, 11, 2, 3}, ActivationKind::gelu);
  std::fill(problem.cotangent.begin(), problem.cotangent.end(), 1.0);
  const Results<double> full = run_engine(problem);
  const Network<double> net = problem.network();
  const Samples<double> samples = problem.samples();

  const auto run_alone = [&](const std::vector<double>& expected, const char* name, auto call) {
    auto result = unwritten<double>(static_cast<std::int64_t>(expected.size()));
    call(result.data());
    expect(same_bits(result, expected), std::string(name) + " alone");
  };
  const double *ones = nullptr, *r = problem.cotangent.data();
  double* none = nullptr;
  run_alone(full.gx, "gx", [&](double* gx) { engine::two_layer_value_and_grad(net, samples, ones, none, gx); });
  run_alone(full.gw, "gw", [&](double* gw) { engine::two_layer_parameter_grad(net, samples, r, gw, none, none); });
  run_alone(full.ga, "ga", [&](double* ga) { engine::two_layer_parameter_grad(net, samples, r, none, ga, none); });
  run_alone(full.gb, "gb", [&](double* gb) { engine::two_layer_parameter_grad(net, samples, r, none, none, gb); });
}

// Rows that are not finite, or overflow, stay alone.
template <class T> void check_rows_are_independent(const Shape& shape, ActivationKind kind) {
  using A = Compute<T>;
  Problem<T> problem(shape, kind);
  const std::int64_t size = shape.row_size(), huge = 0, nan = 3, infinite = shape.rows() - 3;
  const auto bad = [=](std::int64_t row) { return row == huge || row == nan || row == infinite; };
  const Results<A> before = run_engine(problem);
  problem.x[huge * size] = A(1e30);
  problem.x[nan * size + 2] = std::numeric_limits<A>::quiet_NaN();
  problem.x[infinite * size] = std::numeric_limits<A>::infinity();
  const Results<A> after = run_engine(problem);
  for (std::int64_t i = 0; i < shape.rows() * shape.heads; ++i) {
    if (i / shape.heads == nan) expect(std::isnan(after.f[i]), "a NaN in x gives a NaN in f");
    expect(bad(i / shape.heads) || before.f[i] == after.f[i], "a row that is not finite changed another row");
  }
  for (std::int64_t i = 0; i < shape.rows() * size; ++i) {
    expect(bad(i / size) || before.gx[i] == after.gx[i], "a row that is not finite changed another gradient");
  }
}

void run() {
  constexpr int kActivations = static_cast<int>(ActivationKind::sigmoid) + 1;
  for (int kind = 0; kind < kActivations; ++kind) {
    const auto activation = static_cast<ActivationKind>(kind);
    check<float>({2, 3, 5, 70, 2, 2}, activation);
    check<double>({2, 3, 5, 70, 2, 2}, activation);
    check<BFloat16>({1, 5, 3, 7}, activation);
    check_rows_are_independent<float>({1, 70, 5, 9}, activation);
    check_rows_are_independent<double>({2, 8, 17, 15, 2, 3}, activation);
    check_rows_are_independent<BFloat16>({1, 7, 40, 9, 1, 2}, activation);
  }
  std::vector<Shape> shapes = {
      {1, 1, 1, 1},
      {1, 65, 17, 67},
      {3, 7, 13, 31, 1, 1, false, false},
      {2, 5, 33, 19, 3, 4, true, true, true},
      {1, 130, 2, 3, 1, 1, true, false},
      {5, 1, 67, 1, 1, 2},
      {0, 3, 4, 5},
      {2, 0, 4, 5},
      {2, 3, 0, 5},
      {2, 3, 4, 0},
      {1, 0, 0, 0},
      {2, 3, 4, 5, 1, 0},
  };
  const std::vector<Shape> own = engine::two_layer_shapes();
  shapes.insert(shapes.end(), own.begin(), own.end());
  for (const Shape& shape : shapes) {
    check<float>(shape, ActivationKind::relu);
    check<double>(shape, ActivationKind::softplus);
    check<BFloat16>(shape, ActivationKind::leaky_relu);
  }
  check_optional_arguments();
}

}  // namespace
}  // namespace bk::test

int main() {
  bk::test::engine::each_level(bk::test::run, false);
  return bk::test::finish("two_layer");
}
