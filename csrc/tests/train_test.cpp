// Training against a naive loop in float64: naive_pgd.h for the attack, naive_parameter_grad for the gradient.
#include "attack_case.h"

namespace bk::test {
namespace {

template <class A> struct Trained {
  std::vector<A> weight, head, bias, head_bias, gram, attacked, clean, scalars;
  bool operator==(const Trained& other) const {
    return same_bits(weight, other.weight) && same_bits(head, other.head) && same_bits(bias, other.bias) &&
           same_bits(head_bias, other.head_bias) && same_bits(gram, other.gram) &&
           same_bits(attacked, other.attacked) && same_bits(clean, other.clean) && same_bits(scalars, other.scalars);
  }
};

// What is asked of the descent; zeros for what is not.
struct Options {
  bool mixture = false, momentum = false, decay = false, distance = false, head = false, carry = false;
  std::int64_t steps = 3, updates = 4, every = 2;
  double rate = 0.05;
};

template <class A> struct TrainingCase {
  AttackCase<A> attack;
  TrainingLoss loss;
  Options options;
  std::vector<double> rates, mixture, momentum, decay, distance;

  TrainingCase(const Shape& shape, ActivationKind kind, TrainingLoss loss, const Options& options)
      : attack(shape, kind, Norm::l2, loss == TrainingLoss::squared ? Loss::squared : Loss::margin),
        loss(loss),
        options(options) {
    attack.threat.steps = options.steps;
    const std::int64_t networks = shape.networks;
    for (std::int64_t i = 0; i < options.updates * networks; ++i)
      rates.push_back(options.rate * (1 + 0.2 * static_cast<double>(i)));
    for (std::int64_t i = 0; i < networks; ++i) {
      const double turn = static_cast<double>(i);
      if (options.mixture) mixture.push_back(0.6 + 0.1 * turn);
      if (options.momentum) momentum.push_back(0.5 - 0.1 * turn);
      if (options.decay) decay.push_back(0.2 + 0.1 * turn);
      if (options.distance) distance.push_back(0.1 + turn);
    }
  }

  std::int64_t records() const {
    return options.updates == 0 ? 1 : (options.updates + options.every - 1) / options.every;
  }

  Trained<A> run() const {
    const auto& p = attack.problem;
    const Shape& s = p.shape;
    const std::int64_t outputs = records() * s.rows() * s.heads, scalars = records() * s.networks;
    Trained<A> out{p.weight,
                   p.head,
                   p.bias,
                   p.head_bias,
                   unwritten<A>(options.carry ? s.networks * s.neurons * s.neurons : 0),
                   unwritten<A>(outputs),
                   unwritten<A>(outputs),
                   unwritten<A>(5 * scalars)};
    std::vector<A> velocity[4] = {std::vector<A>(p.weight.size()), std::vector<A>(p.head.size()),
                                  std::vector<A>(p.bias.size()), std::vector<A>(p.head_bias.size())};
    const auto numbers = [](auto& vector, bool wanted) { return wanted ? vector.data() : nullptr; };
    Training<A> task{};
    task.shape = p.network();
    task.samples = p.samples();
    task.attack = {attack.threat, attack.target.empty() ? nullptr : attack.target.data(),
                   attack.label.empty() ? nullptr : attack.label.data(), nullptr};
    const auto each = [](const std::vector<double>& values) { return values.empty() ? nullptr : values.data(); };
    task.descent = {loss,           rates.data(),    each(mixture), each(momentum), each(decay),
                    each(distance), p.weight.data(), options.head,  s.bias,         s.head_bias};
    task.now = {out.weight.data(), out.head.data(), numbers(out.bias, s.bias), numbers(out.head_bias, s.head_bias)};
    task.velocity = {numbers(velocity[0], options.momentum), numbers(velocity[1], options.momentum && options.head),
                     numbers(velocity[2], options.momentum && s.bias),
                     numbers(velocity[3], options.momentum && s.head_bias)};
    task.gram = options.carry ? out.gram.data() : nullptr;
    task.every = options.every;
    A* scalar = out.scalars.data();
    task.records = {out.attacked.data(),  out.clean.data(),    scalar, scalar + scalars, scalar + 2 * scalars,
                    scalar + 3 * scalars, scalar + 4 * scalars};
    // In two calls: what comes out must not depend on where they part.
    const std::int64_t first = options.updates / 2;
    task.updates = options.updates;
    if (first % options.every == 0 && first > 0) {
      task.updates = first;
      engine::train(task);
      const std::int64_t seen = task.count_records();
      task.iteration = first;
      task.updates = options.updates - first;
      task.knows_gram = true;
      task.descent.step_size += first * s.networks;
      task.records.attacked += seen * s.rows() * s.heads;
      task.records.clean += seen * s.rows() * s.heads;
      for (A** at : {&task.records.attacked_loss, &task.records.clean_loss, &task.records.weight_norm,
                     &task.records.distance, &task.records.gradient_norm}) {
        *at += seen * s.networks;
      }
    }
    engine::train(task);
    return out;
  }

  double naive_loss(const Vector& f, std::int64_t row) const {
    const std::int64_t heads = attack.problem.shape.heads;
    if (loss == TrainingLoss::cross_entropy) {
      double sum = 0;
      for (double value : f) sum += std::exp(value - f[attack.label[row]]);
      return std::log(sum);
    }
    if (loss == TrainingLoss::squared) {
      double sum = 0;
      for (std::int64_t c = 0; c < heads; ++c) {
        const double error = f[c] - static_cast<double>(attack.target[row * heads + c]);
        sum += error * error / 2;
      }
      return sum;
    }
    const double margin = f[0] * static_cast<double>(attack.target[row]);
    return loss == TrainingLoss::hinge         ? std::fmax(0, 1 - margin)
           : loss == TrainingLoss::exponential ? std::exp(-margin)
                                               : std::log1p(std::exp(-margin));
  }

  // ∂ℓ/∂f by differences: so it shares no formula with the kernel.
  Vector naive_slope(Vector f, std::int64_t row) const {
    Vector slope;
    for (double& value : f) {
      const double at = value, by = 1e-5;
      value = at + by;
      const double up = naive_loss(f, row);
      value = at - by;
      slope.push_back((up - naive_loss(f, row)) / (2 * by));
      value = at;
    }
    return slope;
  }

  void check(const std::string& what) const {
    const auto& p = attack.problem;
    const Shape& s = p.shape;
    const std::string name = std::string(type_name<A>()) + " train " + what + " " + s.text();
    const Trained<A> got =
        under_all_orders(name, [&] { return run(); }, [](const auto& one, const auto& other) { return one == other; });
    NaiveNetwork net = p.naive();
    const NaiveNetwork first = net;
    const Vector x = widened(p.x);
    Vector velocity[4] = {Vector(net.weight.size()), Vector(net.head.size()), Vector(s.networks * s.neurons),
                          Vector(s.networks * s.heads)};
    Vector attacked, clean, scalars(got.scalars.size());
    for (std::int64_t t = 0; t < options.updates || t == 0; ++t) {
      const bool recorded = t % options.every == 0;
      const NaiveNetwork now = net;
      for (std::int64_t b = 0; b < s.networks; ++b) {
        Vector gradient[4] = {Vector(s.neurons * s.dim), Vector(s.heads * s.neurons), Vector(s.neurons),
                              Vector(s.heads)};
        double losses[2] = {0, 0};
        for (std::int64_t i = 0; i < s.samples; ++i) {
          const std::int64_t row = b * s.samples + i;
          const auto at = x.begin() + p.x_offset(b, i);
          const Vector point(at, at + s.row_size());
          const NaiveAttacked found =
              naive_attack(now, b, point, attack.naive(row), sizeof(A) == 4 ? 0x1p-24 : 0x1p-53);
          const Vector f[2] = {found.logits, naive_value(now, b, point.data())};
          for (int side = 0; side < 2; ++side) {
            losses[side] += naive_loss(f[side], row) / static_cast<double>(s.samples);
            if (recorded)
              (side == 0 ? attacked : clean)
                  .insert((side == 0 ? attacked : clean).end(), f[side].begin(), f[side].end());
            const double lambda = mixture.empty() || options.steps == 0 ? 1 : mixture[b];
            Vector slope = naive_slope(f[side], row);
            for (double& r : slope) r *= (side == 0 ? lambda : 1 - lambda) / static_cast<double>(s.samples);
            naive_parameter_grad(now, b, side == 0 ? found.x.data() : point.data(), slope.data(), gradient[0].data(),
                                 gradient[1].data(), gradient[2].data());
            for (std::int64_t c = 0; c < s.heads; ++c) gradient[3][c] += slope[c];
          }
        }
        const bool learns[4] = {true, options.head, s.bias, s.head_bias};
        Vector* parts[4] = {&net.weight, &net.head, &net.bias, &net.head_bias};
        double square = 0;
        for (int part = 0; part < 4; ++part) {
          for (std::size_t k = 0; learns[part] && k < gradient[part].size(); ++k) {
            square += gradient[part][k] * gradient[part][k];
          }
        }
        if (recorded) {
          const std::int64_t place = t / options.every * s.networks + b, stride = records() * s.networks;
          const Vector W(now.weight.begin() + b * s.neurons * s.dim, now.weight.begin() + (b + 1) * s.neurons * s.dim);
          Vector moved = W;
          for (std::size_t k = 0; k < W.size(); ++k) moved[k] -= first.weight[b * W.size() + k];
          const double values[] = {losses[0], losses[1], norm_of(W), norm_of(moved), std::sqrt(square)};
          for (int which = 0; which < 5; ++which) scalars[which * stride + place] = values[which];
        }
        for (int part = 0; part < 4 && options.updates > 0; ++part) {
          const std::size_t size = gradient[part].size();
          for (std::size_t k = 0; learns[part] && k < size; ++k) {
            double& value = (*parts[part])[b * size + k];
            double& v = velocity[part][b * size + k];
            v = (momentum.empty() ? 0 : momentum[b] * v) + gradient[part][k] + (decay.empty() ? 0 : decay[b] * value);
            value -= rates[t * s.networks + b] * v;
          }
        }
        if (!distance.empty()) {
          const std::size_t size = s.neurons * s.dim;
          Vector moved(net.weight.begin() + b * size, net.weight.begin() + (b + 1) * size);
          for (std::size_t k = 0; k < size; ++k) moved[k] -= first.weight[b * size + k];
          naive_project(Norm::l2, distance[b], moved);
          for (std::size_t k = 0; k < size; ++k) net.weight[b * size + k] = first.weight[b * size + k] + moved[k];
        }
      }
    }
    const double tolerance = sizeof(A) == 4 ? 1e-3 : 1e-8;  // of the differences; in float32 of a path of 4 steps
    expect_close(name + " W", got.weight, net.weight, tolerance);
    expect_close(name + " a", got.head, net.head, tolerance);
    expect_close(name + " b", got.bias, net.bias, tolerance);
    expect_close(name + " c", got.head_bias, net.head_bias, tolerance);
    expect_close(name + " f(x')", got.attacked, attacked, tolerance);
    expect_close(name + " f(x)", got.clean, clean, tolerance);
    expect_close(name + " scalars", got.scalars, scalars, tolerance);
  }
};

constexpr TrainingLoss kOneOutput[] = {TrainingLoss::logistic, TrainingLoss::exponential, TrainingLoss::hinge,
                                       TrainingLoss::squared};

template <class A> void check_shapes() {
  const Shape shapes[] = {
      {1, 1, 1, 1, 1, 1, false, false},       {1, 7, 17, 5},   {3, 5, 9, 18, 2},
      {2, 9, 30, 33, 1, 1, true, true, true}, {1, 40, 70, 50},  // with threads
  };
  for (const Shape& shape : shapes) {
    for (const ActivationKind kind : {ActivationKind::relu, ActivationKind::leaky_relu, ActivationKind::tanh}) {
      TrainingCase<A>(shape, kind, TrainingLoss::logistic, {}).check("plain");
    }
  }
}

template <class A> void check_options() {
  const Shape shape{2, 6, 40, 17};
  for (const bool carry : {false, true}) {
    for (const bool mixture : {false, true}) {
      for (const bool decay : {false, true}) {
        Options options;
        options.carry = carry;
        options.mixture = mixture;
        options.decay = decay;
        options.head = decay;
        TrainingCase<A>(shape, ActivationKind::tanh, TrainingLoss::logistic, options).check("options");
      }
    }
  }
  for (const bool distance : {false, true}) {
    Options options;
    options.momentum = options.mixture = options.head = true;
    options.distance = distance;
    TrainingCase<A>(shape, ActivationKind::leaky_relu, TrainingLoss::logistic, options).check("momentum");
  }
  for (const std::int64_t steps : {0, 1}) {
    Options options;
    options.steps = steps;
    TrainingCase<A>(shape, ActivationKind::tanh, TrainingLoss::logistic, options).check("few steps");
  }
  Options look;
  look.updates = 0;
  TrainingCase<A>(shape, ActivationKind::tanh, TrainingLoss::logistic, look).check("a look");
}

template <class A> void check_losses() {
  Options options;
  options.head = options.mixture = true;
  options.rate = 1e-3;  // where e^−m is large, too
  for (const TrainingLoss loss : kOneOutput) {
    TrainingCase<A>({1, 6, 20, 9}, ActivationKind::tanh, loss, options).check("loss");
  }
  for (const TrainingLoss loss : {TrainingLoss::squared, TrainingLoss::cross_entropy}) {
    for (const ActivationKind kind : {ActivationKind::tanh, ActivationKind::relu}) {
      TrainingCase<A>({2, 6, 20, 9, 2, 3}, kind, loss, options).check("loss of three outputs");
    }
  }
}

// A network whose numbers are none ends, and touches no other.
template <class A> void check_faults() {
  for (const double fault : {kNaN, kInf}) {
    TrainingCase<A> faulty({2, 5, 9, 17}, ActivationKind::relu, TrainingLoss::logistic, {});
    const Trained<A> whole = faulty.run();
    faulty.attack.problem.weight[9 * 17 + 3] = static_cast<A>(fault);
    const Trained<A> got = faulty.run();
    for (std::int64_t k = 0; k < 9 * 17; ++k) expect(got.weight[k] == whole.weight[k], "a fault touches no other");
    expect(!std::isfinite(static_cast<double>(got.weight[9 * 17 + 3])), "a fault stays");
  }
  for (const Shape& shape : {Shape{1, 0, 4, 5}, Shape{1, 3, 4, 0}, Shape{1, 3, 0, 5}, Shape{0, 3, 4, 5}}) {
    TrainingCase<A>(shape, ActivationKind::relu, TrainingLoss::logistic, {}).run();
  }
}

void run() {
  check_shapes<double>();
  check_shapes<float>();
  check_options<double>();
  check_options<float>();
  check_losses<double>();
  check_losses<float>();
  check_faults<double>();
  check_faults<float>();
}

}  // namespace
}  // namespace bk::test

int main() {
  bk::test::engine::each_level(bk::test::run);
  return bk::test::finish("train");
}
