// A whole attack on a random problem, to be compared with naive_pgd.h.
#pragma once

#include <limits>

#include "engine.h"
#include "naive_pgd.h"
#include "problem.h"

namespace bk::test {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

template <class A> struct Attacked {
  std::vector<A> x, logits, margin, trajectory;
  bool operator==(const Attacked& other) const {
    return same_bits(x, other.x) && same_bits(logits, other.logits) && same_bits(margin, other.margin) &&
           same_bits(trajectory, other.trajectory);
  }
};

// A problem with its labels and threat; the public fields are varied by the tests.
template <class T> struct AttackCase {
  using A = Compute<T>;
  Problem<T> problem;
  Threat<A> threat;
  std::vector<A> target, start, radius, step, gram;
  std::vector<std::int64_t> label;
  Algorithm algorithm = Algorithm::dense;
  bool trajectory = true, points = true;

  AttackCase(const Shape& shape, ActivationKind kind, Norm norm, Loss loss) : problem(shape, kind) {
    threat = {norm,
              loss,
              Direction::exact,
              Floor::added,
              A(0),
              A(1),
              Keep::last,
              {nullptr, A(0.8)},
              {nullptr, A(0.3)},
              3,
              static_cast<A>(-kInf),
              static_cast<A>(kInf)};
    Random random(11);
    const std::int64_t rows = shape.rows();
    if (loss == Loss::squared) {
      target = random_vector<A>(random, rows * shape.heads);
    } else if (shape.heads == 1) {
      for (std::int64_t row = 0; row < rows; ++row) target.push_back(random.below(2) == 0 ? A(-1) : A(1));
    } else {
      for (std::int64_t row = 0; row < rows; ++row) label.push_back(random.below(shape.heads));
    }
  }

  // A start that is partly outside of the ball; sizes that differ from row to row.
  void with_start() {
    Random random(5);
    start = random_vector<A>(random, problem.shape.rows() * problem.shape.row_size(), 0.5);
    for (std::int64_t row = 0; row < problem.shape.rows(); ++row) {
      const A* x0 = problem.x.data() + problem.x_offset(row / problem.shape.samples, row % problem.shape.samples);
      for (std::int64_t i = 0; i < problem.shape.row_size(); ++i) start[row * problem.shape.row_size() + i] += x0[i];
    }
  }
  void with_sizes_per_row() {
    Random random(6);
    for (std::int64_t row = 0; row < problem.shape.rows(); ++row) {
      radius.push_back(static_cast<A>(random.uniform()));
      step.push_back(static_cast<A>(0.5 * random.uniform()));
    }
    threat.radius.values = radius.data();
    threat.step.values = step.data();
  }

  void with_gram() {
    const Shape& s = problem.shape;
    const NaiveNetwork net = problem.naive();
    for (std::int64_t network = 0; network < s.networks; ++network) {
      for (std::int64_t i = 0; i < s.neurons; ++i) {
        for (std::int64_t j = 0; j < s.neurons; ++j) {
          double sum = 0;
          for (std::int64_t k = 0; k < s.dim; ++k) sum += net.w(network, i, k) * net.w(network, j, k);
          gram.push_back(static_cast<A>(sum));
        }
      }
    }
  }

  Attacked<A> run() const {
    const Shape& s = problem.shape;
    const std::int64_t numbers = s.rows() * s.row_size();
    Attacked<A> out{unwritten<A>(numbers), unwritten<A>(s.rows() * s.heads), unwritten<A>(s.rows()),
                    unwritten<A>(trajectory ? (threat.steps + 1) * numbers : 0)};
    const Network<T> net = problem.network();
    const Attack<A> attack{threat,
                           target.empty() ? nullptr : target.data(),
                           label.empty() ? nullptr : label.data(),
                           start.empty() ? nullptr : start.data(),
                           algorithm,
                           gram.empty() ? nullptr : gram.data()};
    engine::pgd(net, problem.samples(), attack,
                {points ? out.x.data() : nullptr, out.logits.data(), out.margin.data(),
                 trajectory ? out.trajectory.data() : nullptr});
    return out;
  }

  NaiveAttack naive(std::int64_t row) const {
    const std::int64_t heads = problem.shape.heads, size = problem.shape.row_size();
    NaiveAttack attack{threat.norm,
                       threat.loss,
                       threat.direction,
                       threat.floor_rule,
                       threat.floor,
                       threat.loss_scale,
                       threat.radius[row],
                       threat.step[row],
                       threat.steps,
                       threat.keep == Keep::worst,
                       threat.stop_early,
                       threat.box_lo,
                       threat.box_hi,
                       {},
                       label.empty() ? 0 : label[row],
                       {}};
    const std::int64_t targets = threat.loss == Loss::squared ? heads : 1;
    if (!target.empty()) {
      attack.target.assign(target.begin() + row * targets, target.begin() + (row + 1) * targets);
    }
    if (!start.empty()) attack.start.assign(start.begin() + row * size, start.begin() + (row + 1) * size);
    return attack;
  }

  void check(const std::string& what) const {
    const Shape& s = problem.shape;
    const std::string name = std::string(type_name<T>()) + " " + what + " " + s.text();
    const Attacked<A> got =
        under_all_orders(name, [&] { return run(); }, [](const auto& one, const auto& other) { return one == other; });

    const NaiveNetwork net = problem.naive();
    const Vector x0 = widened(problem.x);
    Vector x, logits, margin, path(got.trajectory.size());
    for (std::int64_t row = 0; row < s.rows(); ++row) {
      const auto first = x0.begin() + problem.x_offset(row / s.samples, row % s.samples);
      const NaiveAttacked want = naive_attack(net, row / s.samples, Vector(first, first + s.row_size()), naive(row),
                                              sizeof(A) == 4 ? 0x1p-24 : 0x1p-53);
      x.insert(x.end(), want.x.begin(), want.x.end());
      logits.insert(logits.end(), want.logits.begin(), want.logits.end());
      margin.push_back(want.margin);
      for (std::int64_t k = 0; trajectory && k <= threat.steps; ++k) {
        std::copy(want.trajectory[k].begin(), want.trajectory[k].end(),
                  path.begin() + (k * s.rows() + row) * s.row_size());
      }
    }
    const double tolerance = 10 * rounding<A>();
    expect_close(name + " x", got.x, x, tolerance);
    expect_close(name + " logits", got.logits, logits, tolerance);
    expect_close(name + " margin", got.margin, margin, tolerance);
    expect_close(name + " trajectory", got.trajectory, path, tolerance);
  }
};

// h = 0 counts as shut, and a row that is not finite touches no other.
constexpr Shape kBadRows = {1, 20, 6, 33, 1, 1, false};
template <class T> void check_bad_rows(const std::string& what, AttackCase<T> attack) {
  using A = Compute<T>;
  for (int k = 0; k < 6; ++k) attack.problem.x[3 * 6 + k] = 0;
  attack.check(what + ", h = 0");
  const Attacked<A> before = attack.run();
  attack.problem.x[5 * 6 + 2] = static_cast<A>(kNaN);
  attack.problem.x[7 * 6 + 1] = static_cast<A>(kInf);
  const Attacked<A> after = attack.run();
  for (int row = 0; row < 20; ++row) {
    const bool bad = row == 5 || row == 7;
    expect(bad ? std::isnan(after.margin[row]) : after.margin[row] == before.margin[row],
           what + ", a bad row's margin");
    for (int i = row * 6; i < row * 6 + 6; ++i) {
      expect(bad ? std::isnan(after.x[i]) : after.x[i] == before.x[i], what + ", a bad row's x");
    }
  }
}

}  // namespace bk::test
