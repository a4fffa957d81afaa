// The half-sparse attack against naive_pgd.h: what it shares with the dense one is tested there.
#include "attack_case.h"

namespace bk::test {
namespace {

// Steps long enough for gates to flip at each of them.
template <class T> AttackCase<T> half_sparse_case(const Shape& shape, ActivationKind kind, Loss loss = Loss::margin) {
  AttackCase<T> attack(shape, kind, Norm::l2, loss);
  attack.algorithm = Algorithm::half_sparse;
  attack.threat.steps = engine::kHalfSparseSteps;
  attack.threat.step.value = Compute<T>(0.4);
  attack.threat.radius.value = Compute<T>(1.5);
  return attack;
}

template <class T> void check_shapes() {
  for (const Shape& shape : engine::half_sparse_shapes<T>()) {
    for (const ActivationKind kind : engine::half_sparse_kinds<T>()) {
      AttackCase<T> attack = half_sparse_case<T>(shape, kind);
      attack.threat.stop_early = kind == ActivationKind::leaky_relu;
      attack.check("half-sparse");
    }
  }
}

template <class T> void check_slabs() {
  for (const Shape& shape : engine::half_sparse_slabs<T>()) {
    AttackCase<T> attack = half_sparse_case<T>(shape, ActivationKind::relu);
    attack.threat.steps = 2;
    attack.threat.stop_early = shape.samples < 4;
    attack.check("half-sparse, slabs");
  }
}

template <class T> void check_options() {
  using A = Compute<T>;
  for (const ActivationKind kind : engine::half_sparse_kinds<T>()) {
    for (const Loss loss : {Loss::margin, Loss::squared}) {
      AttackCase<T> attack = half_sparse_case<T>({2, 9, 5, 40, 2}, kind, loss);
      attack.threat.keep = Keep::worst;
      attack.check("half-sparse, worst");
      attack.with_start();
      attack.with_sizes_per_row();
      attack.threat.box_lo = A(-0.5);
      attack.threat.box_hi = A(0.75);
      attack.check("half-sparse, start, box");
      attack.threat.direction = Direction::loss;
      attack.threat.floor = A(0.05);
      attack.check("half-sparse, direction of the loss");
    }
  }
  AttackCase<T> still = half_sparse_case<T>({1, 5, 6, 9}, ActivationKind::relu);
  still.threat.steps = 0;
  expect(same_bits(still.run().x, still.problem.x), "half-sparse, K = 0");
}

// So many gates flip at once that the gradient is summed afresh, in some rows.
template <class T> void check_many_flips() {
  using A = Compute<T>;
  AttackCase<T> attack = half_sparse_case<T>({1, 40, 3, 70, 2}, ActivationKind::relu);
  attack.with_sizes_per_row();
  for (std::size_t row = 0; row < attack.step.size(); row += 2) {
    attack.step[row] = A(3);
    attack.radius[row] = A(8);
  }
  attack.check("half-sparse, many flips");
}

// Pairs of neurons that nearly cancel: flips are much larger than the gradient, which has to be taken afresh.
void check_cancellation() {
  for (const Shape& shape : {Shape{1, 9, 20, 60, 2}, engine::half_sparse_slabs<double>().back()}) {
    AttackCase<double> attack = half_sparse_case<double>(shape, ActivationKind::relu);
    auto& p = attack.problem;
    Random random(3);
    const std::int64_t half = shape.neurons / 2;
    for (std::int64_t j = 0; j < half; ++j) {
      for (std::int64_t k = 0; k < shape.dim; ++k) {
        p.weight[(half + j) * shape.dim + k] = p.weight[j * shape.dim + k] + 1e-3 * random.uniform();
      }
      p.head[half + j] = -p.head[j];
      p.bias[half + j] = p.bias[j];
    }
    attack.threat.steps = 4;
    attack.check("half-sparse, pairs");
  }
}

// All gates shut on the way: of the gradient nothing may remain, or the attack would walk in its rounding errors.
template <class T> void check_death() {
  using A = Compute<T>;
  AttackCase<T> attack = half_sparse_case<T>({1, 2, 3, 50, 1, 1, true, false}, ActivationKind::relu);
  auto& p = attack.problem;
  for (std::int64_t j = 0; j < 50; ++j) {
    p.weight[3 * j] = A(1) + p.weight[3 * j] / 4;  // at x = 0 every gate is open, some steps of −1 along it shut them
    p.head[j] = A(1) + p.head[j] / 4;
    p.bias[j] = A(0.1) + A(0.02) * static_cast<A>(j % 9);
  }
  for (A& x : p.x) x = 0;
  attack.target = {A(1), A(1)};
  attack.threat.steps = engine::kHalfSparseSteps + 4;
  attack.check("half-sparse, death");
  const Attacked<A> got = attack.run();
  expect(got.logits[0] == 0 && got.logits[1] == 0, "gates left open");
  expect(std::equal(got.x.begin(), got.x.end(), got.trajectory.end() - 12), "half-sparse walked in rounding errors");
}

void run() {
  check_shapes<double>();
  check_shapes<float>();
  check_shapes<BFloat16>();
  check_slabs<double>();
  check_slabs<float>();
  check_slabs<BFloat16>();
  check_options<double>();
  check_options<float>();
  check_many_flips<double>();
  check_cancellation();
  check_death<double>();
  check_death<float>();
  check_bad_rows("half-sparse", half_sparse_case<double>(kBadRows, ActivationKind::leaky_relu));
  check_bad_rows("half-sparse", half_sparse_case<float>(kBadRows, ActivationKind::leaky_relu));
}

}  // namespace
}  // namespace bk::test

int main() {
  bk::test::engine::each_level(bk::test::run, false);
  return bk::test::finish("half_sparse");
}
