// l2_pgd_step and linf_pgd_step against their formulas, and every edge rule.
#include "engine.h"
#include "naive_pgd.h"

namespace bk::test {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

template <class A> struct Rows {
  std::int64_t rows, dim;
  std::vector<A> x, origin, grad;
  PerRow<A> step, radius;

  Rows(std::int64_t r, std::int64_t d, double eta, double epsilon, std::uint64_t seed = 3)
      : rows(r), dim(d), step{nullptr, static_cast<A>(eta)}, radius{nullptr, static_cast<A>(epsilon)} {
    Random random(seed);
    origin = random_vector<A>(random, r * d);
    grad = random_vector<A>(random, r * d);
    x = origin;
    for (A& value : x) value += static_cast<A>(0.1 * random.normal());
  }

  std::vector<A> run(Norm norm) const {
    return under_all_orders(
        "pgd_step",
        [&] {
          auto out = unwritten<A>(rows * dim);
          const PgdStep<A> p{x.data(), origin.data(), grad.data(), out.data(), rows, dim, step, radius};
          engine::pgd_step(norm, p);
          return out;
        },
        same_bits<A>);
  }
};

template <class A> void check_formula(std::int64_t rows, std::int64_t dim, double eta, double epsilon) {
  const std::string name =
      "pgd_step " + std::to_string(dim) + " step " + std::to_string(eta) + " radius " + std::to_string(epsilon);
  for (const Norm norm : {Norm::l2, Norm::linf}) {
    const Rows<A> problem(rows, dim, eta, epsilon);
    const std::vector<A> got = problem.run(norm);
    const Vector want = naive_pgd_step(norm, widened(problem.x), widened(problem.origin), widened(problem.grad), rows,
                                       problem.step[0], problem.radius[0]);
    expect_close(name + (norm == Norm::l2 ? " l2" : " linf"), got, want, sizeof(A) == 4 ? 1e-6 : 1e-14);

    auto in_place = problem;
    const PgdStep<A> p{in_place.x.data(), in_place.origin.data(), in_place.grad.data(), in_place.x.data(), rows, dim,
                       problem.step,      problem.radius};
    engine::pgd_step(norm, p);
    expect(same_bits(in_place.x, got), name + ": in place differs");
  }
}

// ‖x' − origin‖ ≤ ε(1 + 4 ulp), with origin 0 so that the last addition is exact.
template <class A> void check_projection(std::int64_t dim, double size) {
  const double ulp = sizeof(A) == 4 ? 0x1p-23 : 0x1p-52;
  for (std::uint64_t seed = 0; seed < 8; ++seed) {
    Rows<A> problem(3, dim, 10 * size, 0.37 * size, seed);
    std::fill(problem.origin.begin(), problem.origin.end(), A(0));
    for (A& value : problem.x) value *= static_cast<A>(size);
    const std::vector<A> got = problem.run(Norm::l2);
    for (int row = 0; row < 3; ++row) {
      long double square = 0;
      for (std::int64_t i = 0; i < dim; ++i) {
        const long double scaled = static_cast<long double>(got[row * dim + i]) / size;
        square += scaled * scaled;
      }
      const long double ratio = std::sqrt(square) * size / static_cast<long double>(problem.radius[row]);
      expect(ratio <= 1 + 4 * ulp,
             "projection leaves the ball by " + std::to_string(double((ratio - 1) / ulp)) + " ulp");
      expect(ratio >= 1 - 4 * ulp, "projection stops short by " + std::to_string(double((1 - ratio) / ulp)) + " ulp");
    }
  }
}

template <class A> void check_scale_freedom() {
  for (const Norm norm : {Norm::l2, Norm::linf}) {
    Rows<A> problem(5, 37, 0.25, 1.5);
    for (A& value : problem.grad) value = static_cast<A>(std::ldexp(std::round(8 * value), -3));
    const std::vector<A> plain = problem.run(norm);
    for (const int power : {-100, 100}) {
      auto scaled = problem;
      for (A& value : scaled.grad) value = std::ldexp(value, power);
      expect(same_bits(scaled.run(norm), plain), "a gradient's size changed its step");
    }
  }
}

template <class A> void check_edges(std::int64_t dim) {
  for (const Norm norm : {Norm::l2, Norm::linf}) {
    Rows<A> problem(6, dim, 0.5, kInf);
    problem.x[0] = problem.origin[0] = A(-0.0);
    const std::vector<A> free = problem.run(norm);

    auto still = problem;  // η = 0, and a zero gradient
    still.step.value = 0;
    expect(same_bits(still.run(norm), still.x), "η = 0 moved x");
    still = problem;
    std::fill(still.grad.begin(), still.grad.end(), A(0));
    expect(same_bits(still.run(norm), still.x), "a zero gradient moved x");

    auto pinned = problem;
    pinned.radius.value = 0;
    expect(same_bits(pinned.run(norm), pinned.origin), "radius 0 is not the origin");

    // One bad row of each kind, the last row good.
    auto bad = problem;
    std::vector<A> step(6, A(0.5)), radius(6, static_cast<A>(kInf));
    bad.step.values = step.data();
    bad.radius.values = radius.data();
    bad.grad[0 * dim + dim / 2] = static_cast<A>(kNaN);
    bad.x[1 * dim + dim - 1] = static_cast<A>(kInf);
    bad.origin[2 * dim] = static_cast<A>(-kInf);
    step[3] = static_cast<A>(-1);
    radius[4] = static_cast<A>(kNaN);
    const std::vector<A> got = bad.run(norm);
    for (std::int64_t i = 0; i < 6 * dim; ++i) {
      expect(i < 5 * dim ? std::isnan(got[i]) : got[i] == free[i], "bad rows become NaN and touch no other");
    }
  }
}

template <class A> void run() {
  for (const std::int64_t dim : {1, 2, 31, 33, 1000}) {
    check_formula<A>(3, dim, 0.3, 0.5);
    check_formula<A>(1, dim, 0.01, 1e3);
  }
  for (const auto& [rows, dim] : engine::pgd_step_shapes()) check_formula<A>(rows, dim, 0.3, 0.5);
  check_formula<A>(9, 5, 0.3, kInf);
  check_formula<A>(0, 5, 0.3, 1);
  check_formula<A>(3, 0, 0.3, 1);
  const double small = sizeof(A) == 4 ? 1e-30 : 1e-200, large = sizeof(A) == 4 ? 1e30 : 1e200;
  for (const std::int64_t dim : {3, 100, 1500}) {
    for (const double size : {1.0, small, large}) check_projection<A>(dim, size);
  }
  check_scale_freedom<A>();
  for (const std::int64_t dim : {9, 41}) check_edges<A>(dim);
}

}  // namespace
}  // namespace bk::test

int main() {
  bk::test::engine::each_level(bk::test::run<float>, false);
  bk::test::engine::each_level(bk::test::run<double>, false);
  return bk::test::finish("pgd_step");
}
