// The gram walk against naive_pgd.h: what it shares with the dense attack is tested there.
#include "attack_case.h"

namespace bk::test {
namespace {

// Steps long enough for gates to flip at each of them.
template <class T> AttackCase<T> gram_case(const Shape& shape, ActivationKind kind, Loss loss = Loss::margin) {
  AttackCase<T> attack(shape, kind, Norm::l2, loss);
  attack.algorithm = Algorithm::gram;
  attack.trajectory = false;
  attack.threat.steps = 6;
  attack.threat.step.value = Compute<T>(0.4);
  attack.threat.radius.value = Compute<T>(1.5);
  return attack;
}

template <class T> void check_shapes() {
  const Shape shapes[] = {
      {1, 1, 1, 1},        {3, 1, 2, 5},
      {1, 7, 3, 67},  // first V by way of W
      {1, 5, 129, 17},     {2, 8, 16, 16, 3, 1, true, true, true},
      {2, 5, 6, 33, 2, 4},  // a V for each head
      {0, 3, 4, 5},        {2, 0, 4, 5},
      {2, 3, 0, 5},        {2, 3, 4, 0},
  };
  for (const Shape& shape : shapes) {
    for (const ActivationKind kind : engine::gram_kinds<T>()) {
      AttackCase<T> attack = gram_case<T>(shape, kind);
      attack.check("gram");
      attack.threat.stop_early = true;
      attack.check("gram, stopping early");
    }
  }
  // An engine's own are large: they stop early by turns, in other cases for each type.
  bool early = sizeof(T) == 4;
  for (const Shape& shape : engine::gram_shapes()) {
    for (const ActivationKind kind : engine::gram_kinds<T>()) {
      // Of so many gates one lies within float's rounding of its kink, and a step turns it one way or the other.
      const bool large = shape.rows() * shape.neurons > 20000, exact = sizeof(Compute<T>) == sizeof(double);
      if (large && kind != ActivationKind::tanh && !(exact && kind == ActivationKind::relu)) continue;
      AttackCase<T> attack = gram_case<T>(shape, kind);
      attack.threat.stop_early = early;
      attack.check(early ? "gram, stopping early" : "gram");
      early = !early;
    }
  }
}

template <class T> void check_options() {
  using A = Compute<T>;
  for (const ActivationKind kind : {ActivationKind::relu, engine::gram_kinds<double>().back()}) {
    for (const Loss loss : {Loss::margin, Loss::squared}) {
      for (const Shape& shape : {Shape{2, 9, 5, 40, 2}, Shape{1, 7, 30, 24, 1, 3}}) {
        AttackCase<T> attack = gram_case<T>(shape, kind, loss);
        attack.with_gram();
        attack.check("gram known");
        attack.threat.keep = Keep::worst;
        attack.check("gram, worst");
        attack.with_start();
        attack.with_sizes_per_row();
        attack.check("gram, start");
        attack.threat.direction = Direction::loss;
        attack.threat.floor = A(0.05);
        attack.check("gram, direction of the loss");
      }
    }
  }
  AttackCase<T> still = gram_case<T>({1, 5, 6, 9}, ActivationKind::relu);
  still.threat.steps = 0;
  expect(same_bits(still.run().x, still.problem.x), "gram, K = 0");
}

// So many gates flip at once that V is a product again; for one row alone, and for all.
template <class T> void check_many_flips() {
  using A = Compute<T>;
  AttackCase<T> attack = gram_case<T>({1, 40, 3, 70, 2}, ActivationKind::relu);
  attack.threat.step.value = A(3);
  attack.threat.radius.value = A(8);
  attack.check("gram, many flips");
  attack.threat.keep = Keep::worst;
  attack.check("gram, many flips, worst");
}

// From no turned gate in a step to more than a warp lists, or brings, at a time: in a row of a warp's and of a block's
// length, over patches that are much shorter than a block, for several heads, and with G known at a scale of its own.
void check_turns() {
  for (const Shape& shape :
       {Shape{1, 5, 4, 127}, Shape{1, 2, 4, 701}, Shape{1, 3, 4, 65, 12}, Shape{1, 2, 4, 270, 2, 3}}) {
    AttackCase<double> attack = gram_case<double>(shape, ActivationKind::identity);
    attack.check("gram, no turns");
    attack = gram_case<double>(shape, ActivationKind::relu);
    attack.threat.steps = 4;
    attack.threat.step.value = 1e-6;
    attack.check("gram, few turns");
    attack.threat.step.value = 30;
    attack.threat.radius.value = 40;
    attack.check("gram, many turns");
    for (double& w : attack.problem.weight) w *= 1e6;
    attack.with_gram();
    attack.check("gram known, many turns");
  }
}

// Pairs of neurons that nearly cancel: flips are much larger than the gradient, which has to be taken afresh.
void check_cancellation() {
  for (const ActivationKind kind : {ActivationKind::relu, engine::gram_kinds<double>().back()}) {
    for (const Shape& shape : {Shape{1, 9, 90, 60, 2}, Shape{1, 2, 90, 150}}) {
      AttackCase<double> attack = gram_case<double>(shape, kind);
      auto& p = attack.problem;
      Random random(3);
      const std::int64_t pairs = shape.neurons / 2;
      for (std::int64_t j = 0; j < pairs; ++j) {
        for (std::int64_t k = 0; k < 90; ++k) {
          p.weight[(pairs + j) * 90 + k] = p.weight[j * 90 + k] + 1e-3 * random.uniform();
        }
        p.head[pairs + j] = -p.head[j];
        p.bias[pairs + j] = p.bias[j];
      }
      attack.check("gram, pairs");
    }
  }
}

// Sizes whose squares leave the range of the type.
template <class T> void check_sizes() {
  using A = Compute<T>;
  const A far = static_cast<A>(sizeof(A) == 4 ? 1e20 : 1e160);
  for (const A size : {far, A(1) / far}) {
    AttackCase<T> attack = gram_case<T>({1, 6, 9, 20, 1, 1, false, false}, ActivationKind::relu);
    for (auto& w : attack.problem.weight) w *= size;
    for (A& a : attack.problem.head) a /= size;
    attack.check("gram, W of size " + std::to_string(size));
    for (auto& w : attack.problem.weight) w /= size;
    for (A& x : attack.problem.x) x *= size;
    attack.threat.step.value *= size;
    attack.threat.radius.value *= size;
    attack.check("gram, x and the ball of size " + std::to_string(size));
  }
}

// The same for a φ that is not homogeneous, with G known, so that its scale is a factor of every change of V.
void check_known_scale() {
  constexpr double kSize = 0x1p20;
  AttackCase<double> attack = gram_case<double>({2, 5, 30, 20, 2, 3}, ActivationKind::tanh);
  for (double& w : attack.problem.weight) w *= kSize;
  for (double& x : attack.problem.x) x /= kSize;
  attack.threat.step.value /= kSize;
  attack.threat.radius.value /= kSize;
  attack.with_gram();
  attack.check("gram known, W of another size");
  attack.threat.keep = Keep::worst;
  attack.with_start();
  for (std::size_t i = 0; i < attack.start.size(); ++i) {
    attack.start[i] = attack.problem.x[i] + (attack.start[i] - attack.problem.x[i]) / kSize;
  }
  attack.check("gram known, W of another size, worst");
}

void run() {
  engine::check_gram_limits();
  check_known_scale();
  check_cancellation();
  check_turns();
  check_shapes<double>();
  check_shapes<float>();
  check_shapes<BFloat16>();
  check_options<double>();
  check_options<float>();
  check_many_flips<double>();
  check_sizes<double>();
  check_sizes<float>();
  for (const ActivationKind kind : {ActivationKind::relu, engine::gram_kinds<double>().back()}) {
    check_bad_rows("gram", gram_case<double>(kBadRows, kind));
    check_bad_rows("gram", gram_case<float>(kBadRows, kind));
  }
}

}  // namespace
}  // namespace bk::test

int main() {
  bk::test::engine::each_level(bk::test::run);
  return bk::test::finish("gram");
}
