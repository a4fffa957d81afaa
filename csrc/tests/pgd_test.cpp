// The whole attack against naive_pgd.h, over losses, directions, floors, starts, boxes, and its edge rules.
#include "attack_case.h"

namespace bk::test {
namespace {

const Shape kPlain = {1, 5, 6, 9};
const Shape kClasses = {2, 3, 6, 9, 2, 4};

// Every loss with every direction and both norms.
template <class T> void check_directions() {
  using A = Compute<T>;
  for (const Norm norm : {Norm::l2, Norm::linf}) {
    for (const Loss loss : {Loss::margin, Loss::squared}) {
      for (const Shape& shape : {kPlain, kClasses}) {
        const std::string name =
            std::string(norm == Norm::l2 ? "l2" : "linf") + (loss == Loss::margin ? " margin" : " squared");
        AttackCase<T> attack(shape, ActivationKind::softplus, norm, loss);
        attack.check(name + " exact");
        attack.threat.direction = Direction::loss;
        attack.threat.loss_scale = A(0.25);
        attack.threat.floor = A(0.05);
        attack.check(name + " loss, added");
        if (norm == Norm::linf) continue;
        attack.threat.floor_rule = Floor::clipped;
        attack.check(name + " loss, clipped");
        attack.threat.floor_rule = Floor::squared;
        attack.check(name + " loss, squared");
      }
    }
  }
}

template <class T> void check_options() {
  using A = Compute<T>;
  for (const Norm norm : {Norm::l2, Norm::linf}) {
    AttackCase<T> attack({2, 4, 5, 7, 1, 1, true, true, true}, ActivationKind::tanh, norm, Loss::margin);
    attack.with_start();
    attack.with_sizes_per_row();
    attack.check("start, sizes per row");
    attack.threat.box_lo = A(-0.5);
    attack.threat.box_hi = A(0.75);
    attack.check("box");
    attack.threat.keep = Keep::worst;
    attack.threat.steps = 5;
    attack.check("worst");
    attack.trajectory = false;
    attack.check("no trajectory");
    attack.threat.stop_early = true;
    attack.check("worst, stopping early");
    attack.threat.keep = Keep::last;
    attack.check("stopping early");
  }
  // A step larger than the ball, so that the last iterate is not the worst one.
  AttackCase<T> attack({1, 9, 3, 5}, ActivationKind::odd_power, Norm::l2, Loss::margin);
  attack.threat.step.value = A(2.5);
  attack.threat.radius.value = static_cast<A>(kInf);
  attack.threat.keep = Keep::worst;
  attack.check("worst of large steps");
}

// What must not move a bit.
template <class T> void check_stillness() {
  using A = Compute<T>;
  AttackCase<T> plain(kPlain, ActivationKind::relu, Norm::l2, Loss::margin);
  plain.problem.x[0] = A(-0.0);
  plain.trajectory = false;
  for (const Norm norm : {Norm::l2, Norm::linf}) {
    for (int what = 0; what < 4; ++what) {
      AttackCase<T> attack = plain;
      attack.threat.norm = norm;
      if (what == 0) attack.threat.steps = 0;
      if (what == 1) attack.threat.radius.value = 0;
      if (what == 2) attack.threat.step.value = 0;
      if (what == 3) std::fill(attack.problem.head.begin(), attack.problem.head.end(), A(0));
      expect(same_bits(attack.run().x, attack.problem.x), "x moved without K, radius, step or gradient");
    }
  }
}

// Paired neurons cancel: what remains of the gradient is rounding noise, and is not walked in.
template <class T> void check_zero_gradient() {
  AttackCase<T> attack({1, 6, 50, 8, 1, 1, false}, ActivationKind::tanh, Norm::l2, Loss::margin);
  attack.problem.activation = default_activation(ActivationKind::identity);
  auto& weight = attack.problem.weight;
  for (int j = 0; j < 4; ++j) {
    std::copy(weight.begin() + j * 50, weight.begin() + (j + 1) * 50, weight.begin() + (7 - j) * 50);
    attack.problem.head[7 - j] = -attack.problem.head[j];
  }
  attack.trajectory = false;
  for (const Norm norm : {Norm::l2, Norm::linf}) {
    attack.threat.norm = norm;
    expect(same_bits(attack.run().x, attack.problem.x), "the attack walked in rounding noise");
  }
}

// Bad rows of every kind become NaN, the others keep their bits.
template <class T> void check_bad_rows() {
  using A = Compute<T>;
  for (const Keep keep : {Keep::last, Keep::worst}) {
    AttackCase<T> attack({1, 8, 6, 9}, ActivationKind::softplus, Norm::l2, Loss::margin);
    attack.threat.keep = keep;
    attack.with_start();
    attack.with_sizes_per_row();
    const Attacked<A> before = attack.run();
    attack.problem.x[0 * 6 + 2] = static_cast<A>(kNaN);
    attack.start[1 * 6 + 5] = static_cast<A>(kInf);
    attack.target[2] = A(0.5);
    attack.radius[3] = A(-1);
    attack.step[4] = static_cast<A>(kNaN);
    attack.radius[5] = static_cast<A>(kNaN);
    const Attacked<A> after = attack.run();
    for (int row = 0; row < 8; ++row) {
      const bool bad = row < 6;
      expect(bad ? std::isnan(after.margin[row]) : after.margin[row] == before.margin[row], "margin of a bad row");
      expect(bad ? std::isnan(after.logits[row]) : after.logits[row] == before.logits[row], "logits of a bad row");
      for (int i = row * 6; i < row * 6 + 6; ++i) {
        expect(bad ? std::isnan(after.x[i]) : after.x[i] == before.x[i], "x of a bad row");
        for (int k = 0; k <= 3; ++k) {
          const A got = after.trajectory[k * 48 + i];
          expect(bad ? std::isnan(got) : got == before.trajectory[k * 48 + i], "trajectory of a bad row");
        }
      }
    }
  }
  AttackCase<T> classes(kClasses, ActivationKind::softplus, Norm::l2, Loss::margin);
  classes.label[1] = 4;
  classes.label[2] = -1;
  const Attacked<A> got = classes.run();
  for (int row = 0; row < 6; ++row) {
    expect(std::isnan(got.margin[row]) == (row == 1 || row == 2), "labels outside [0, k)");
  }
  // No neurons: nothing but x itself tells of the NaN.
  AttackCase<T> empty({1, 2, 3, 0}, ActivationKind::relu, Norm::l2, Loss::margin);
  empty.problem.x[1] = static_cast<A>(kNaN);
  const Attacked<A> lone = empty.run();
  expect(std::isnan(lone.margin[0]) && lone.margin[1] == empty.target[1] * empty.problem.head_bias[0], "no neurons");
}

// Where points are not asked for, all else is as where they are.
template <class T> void check_margins_alone() {
  for (const Keep keep : {Keep::last, Keep::worst}) {
    AttackCase<T> attack(kPlain, ActivationKind::softplus, Norm::l2, Loss::margin);
    attack.threat.keep = keep;
    attack.problem.x[2] = static_cast<Compute<T>>(kNaN);
    const auto with = attack.run();
    attack.points = false;
    const auto without = attack.run();
    expect(same_bits(with.logits, without.logits) && same_bits(with.margin, without.margin) &&
               same_bits(with.trajectory, without.trajectory),
           "the results depend on whether points are asked for");
  }
}

// f = ±1 where its gradient overflows: the row that is wrong already rests, and its gradient is not looked at.
void check_rest() {
  AttackCase<float> attack({1, 2, 1, 1, 1, 1, false, false}, ActivationKind::relu, Norm::l2, Loss::margin);
  attack.problem.weight = {1e30f};
  attack.problem.head = {1e30f};
  attack.problem.x = {1e-30f, 1e-30f};
  attack.target = {-1, 1};
  attack.threat.stop_early = true;
  for (const bool trajectory : {true, false}) {
    attack.trajectory = trajectory;
    const Attacked<float> got = attack.run();
    expect(got.x[0] == 1e-30f && got.margin[0] < 0, "a row at rest");
    expect(std::isnan(got.x[1]) && std::isnan(got.margin[1]), "a gradient that overflows");
  }
}

// A network that overflows on the way: the rows before it are finite, those after are not.
void check_late_overflow() {
  AttackCase<float> attack({1, 1, 1, 1, 1, 1, false, false}, ActivationKind::relu_power, Norm::l2, Loss::margin);
  attack.problem.weight = {1};
  attack.problem.head = {-1};
  attack.problem.x = {1e18f};
  attack.target = {1};
  attack.threat.radius.value = static_cast<float>(kInf);
  attack.threat.step.value = 1e19f;
  attack.threat.steps = 2;
  const Attacked<float> got = attack.run();
  expect(got.trajectory[0] == 1e18f && got.trajectory[1] == 1.1e19f && std::isnan(got.trajectory[2]) &&
             std::isnan(got.x[0]) && std::isnan(got.margin[0]),
         "overflow at the last iterate");
}

// The size of f and of its gradient does not matter, down to and up to where the numbers end.
void check_scale_freedom() {
  AttackCase<float> attack({1, 6, 20, 9}, ActivationKind::relu, Norm::l2, Loss::margin);
  attack.problem.head_bias = {0};
  attack.trajectory = false;
  const Attacked<float> plain = attack.run();
  for (const int power : {-90, 80}) {
    AttackCase<float> scaled = attack;
    for (float& a : scaled.problem.head) a = std::ldexp(a, power);
    expect(same_bits(scaled.run().x, plain.x), "the size of f changed the attack");
  }
}

template <class T> void check_shapes() {
  std::vector<Shape> shapes = {
      {1, 1, 1, 1}, {3, 1, 2, 5}, {1, 70, 3, 67}, {0, 3, 4, 5}, {2, 0, 4, 5}, {2, 3, 0, 5}, {2, 3, 4, 0},
  };
  const std::vector<Shape> own = engine::pgd_shapes();
  shapes.insert(shapes.end(), own.begin(), own.end());
  for (const Shape& shape : shapes) {
    AttackCase<T> attack(shape, ActivationKind::smooth_leaky_relu, Norm::l2, Loss::margin);
    attack.threat.steps = 2;
    attack.check("shape");
  }
  for (const Shape& shape : own) {
    AttackCase<T> attack(shape, ActivationKind::softplus, Norm::l2, Loss::squared);
    attack.threat.steps = 2;
    attack.threat.keep = Keep::worst;
    attack.with_start();
    attack.check("shape, squared, worst");
  }
  AttackCase<T>({2, 3, 4, 5, 1, 0}, ActivationKind::relu, Norm::linf, Loss::squared).check("no heads");
}

void run() {
  check_directions<double>();
  check_directions<float>();
  check_options<double>();
  check_options<float>();
  check_shapes<double>();
  check_shapes<BFloat16>();
  check_stillness<float>();
  check_stillness<double>();
  check_zero_gradient<float>();
  check_zero_gradient<double>();
  check_bad_rows<float>();
  check_bad_rows<double>();
  check_margins_alone<float>();
  check_margins_alone<double>();
  check_rest();
  check_late_overflow();
  check_scale_freedom();
}

}  // namespace
}  // namespace bk::test

int main() {
  bk::test::engine::each_level(bk::test::run, false);
  return bk::test::finish("pgd");
}
