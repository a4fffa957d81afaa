// two_layer, two_layer_value_and_grad and two_layer_parameter_grad against naive.h.
#include "../cuda/engine.h"
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

  auto memory = workspace_of(cuda::two_layer_workspace(net, samples));
  int error = cuda::two_layer(net, samples, out.f_alone.data(), {nullptr, memory.data()});
  memory = workspace_of(cuda::two_layer_value_and_grad_workspace(net, samples));
  error |= cuda::two_layer_value_and_grad(net, samples, problem.cotangent.data(), out.f.data(), out.gx.data(),
                                          {nullptr, memory.data()});
  memory = workspace_of(cuda::two_layer_parameter_grad_workspace(net, samples));
  error |= cuda::two_layer_parameter_grad(net, samples, problem.cotangent.data(), out.gw.data(), out.ga.data(),
                                          out.gb.data(), {nullptr, memory.data()});
  expect_launched(error, s.text());
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

  auto memory = workspace_of(cuda::two_layer_value_and_grad_workspace(net, samples));
  auto gx = unwritten<double>(static_cast<std::int64_t>(full.gx.size()));
  cuda::two_layer_value_and_grad<double>(net, samples, nullptr, nullptr, gx.data(), {nullptr, memory.data()});
  expect(same_bits(gx, full.gx), "gx without cotangent and f");

  memory = workspace_of(cuda::two_layer_parameter_grad_workspace(net, samples));
  auto ga = unwritten<double>(static_cast<std::int64_t>(full.ga.size()));
  cuda::two_layer_parameter_grad<double>(net, samples, nullptr, nullptr, ga.data(), nullptr, {nullptr, memory.data()});
  expect(same_bits(ga, full.ga), "ga alone");
}

// A row that is not finite stays alone.
void check_rows_are_independent() {
  Problem<float> problem({1, 70, 5, 9}, ActivationKind::relu);
  const Results<float> before = run_engine(problem);
  problem.x[3 * 5 + 2] = std::numeric_limits<float>::quiet_NaN();
  problem.x[66 * 5] = std::numeric_limits<float>::infinity();
  const Results<float> after = run_engine(problem);
  for (std::int64_t row = 0; row < 70; ++row) {
    if (row == 3) expect(std::isnan(after.f[3]), "a NaN in x gives a NaN in f");
    if (row == 3 || row == 66) continue;
    expect(before.f[row] == after.f[row], "a row that is not finite changed another row");
    for (int t = 0; t < 5; ++t) {
      expect(before.gx[row * 5 + t] == after.gx[row * 5 + t], "a row that is not finite changed another gradient");
    }
  }
}

void check_device() {
  expect(cuda::use_device(0) == 0, "the device there is");
  const int error = cuda::use_device(1);
  expect(error != 0, "a device that there is not");
  expect(cuda::error_string(error) == std::string("invalid device ordinal"), "what is wrong with it");
}

void run() {
  constexpr int kActivations = static_cast<int>(ActivationKind::sigmoid) + 1;
  for (int kind = 0; kind < kActivations; ++kind) {
    const auto activation = static_cast<ActivationKind>(kind);
    check<float>({2, 3, 5, 70, 2, 2}, activation);
    check<double>({2, 3, 5, 70, 2, 2}, activation);
    check<BFloat16>({1, 5, 3, 7}, activation);
  }
  const Shape shapes[] = {
      {1, 1, 1, 1},
      {1, 65, 17, 67},
      {3, 7, 13, 31, 1, 1, false, false},
      {2, 5, 33, 19, 3, 4, true, true, true},
      {1, 130, 2, 3, 1, 1, true, false},
      {5, 1, 67, 1, 1, 2},
      {1, 3, 601, 5, 1, 1},   // split along d
      {1, 2, 3, 1031, 1, 1},  // split along the neurons
      {1, 1030, 3, 2, 1, 1},  // split along the samples
      {1, 3, 2, 5, 70, 1},    // patches across tiles
      {1, 4, 6, 8, 1, 67},    // many heads
      {0, 3, 4, 5},
      {2, 0, 4, 5},
      {2, 3, 0, 5},
      {2, 3, 4, 0},
      {1, 0, 0, 0},
  };
  for (const Shape& shape : shapes) {
    check<float>(shape, ActivationKind::relu);
    check<double>(shape, ActivationKind::softplus);
    check<BFloat16>(shape, ActivationKind::leaky_relu);
  }
  check_optional_arguments();
  check_rows_are_independent();
  check_device();
}

}  // namespace
}  // namespace bk::test

int main() {
  bk::test::run();
  return bk::test::finish("two_layer");
}
