// Many iterations of adversarial training in one call, on the CPU.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <iterator>
#include <tuple>

#include "../model/training.h"
#include "engine.h"
#include "network.h"

namespace bk::ops {

namespace {

constexpr const char* kLosses[] = {"logistic", "exponential", "hinge", "squared", "cross_entropy"};

TrainingLoss loss_named(const std::string& name, std::int64_t heads) {
  const auto* found = std::find(std::begin(kLosses), std::end(kLosses), name);
  if (found == std::end(kLosses)) {
    reject("loss", "got '" + name + "', expected 'logistic', 'exponential', 'hinge', 'squared' or 'cross_entropy'");
  }
  const auto loss = static_cast<TrainingLoss>(found - std::begin(kLosses));
  const bool one = loss != TrainingLoss::squared && loss != TrainingLoss::cross_entropy;
  if ((one && heads != 1) || (loss == TrainingLoss::cross_entropy && heads < 2)) {
    reject("loss", "got '" + name + "' with " + std::to_string(heads) + " heads");
  }
  return loss;
}

// A copy to train in; nothing where there is none.
Tensor copied(const std::optional<Tensor>& tensor, ScalarType dtype, const Tensor& like) {
  return tensor ? torch::stable::clone(dense(*tensor, dtype)) : allocate({0}, dtype, like);
}

template <class A> A* numbers_of(const std::optional<Tensor>& given, const Tensor& copy) {
  return given ? mutable_data<A>(copy) : nullptr;
}

}  // namespace

using Trained =
    std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <class Engine>
Trained train(const Tensor& x, const Tensor& y, const Tensor& W, const Tensor& a, const std::optional<Tensor>& bias,
              const std::optional<Tensor>& head_bias, const std::optional<Tensor>& v_W,
              const std::optional<Tensor>& v_a, const std::optional<Tensor>& v_bias,
              const std::optional<Tensor>& v_head_bias, const std::optional<Tensor>& gram, const Tensor& first_W,
              const Tensor& step_size, const std::optional<Tensor>& mixture, const std::optional<Tensor>& momentum,
              const std::optional<Tensor>& weight_decay, const std::optional<Tensor>& distance,
              const std::optional<Tensor>& radius_rows, const std::optional<Tensor>& step_rows, double radius,
              double step, std::int64_t steps, const std::string& loss, bool train_a, bool train_bias,
              bool train_head_bias, bool carry_gram, std::int64_t iteration, std::int64_t every, bool clean, bool norms,
              const std::string& activation, double alpha, double beta, std::int64_t patches) {
  const NetworkArguments arguments{W, a, bias, head_bias, activation, alpha, beta, patches};
  const Problem problem = check_network("x", x, arguments);
  const ScalarType dtype = problem.storage;
  if (dtype == ScalarType::BFloat16) reject("W", "got dtype torch.bfloat16, expected torch.float32 or torch.float64");
  expect_dtype("x", x, dtype);
  const TrainingLoss kind = loss_named(loss, problem.heads);
  const bool classes = kind == TrainingLoss::cross_entropy;
  const Shape rows = joined(problem.batch, {problem.samples});
  const Shape each{problem.networks}, grams = joined(problem.batch, {problem.neurons, problem.neurons});
  const Shape outputs = joined(
      rows, Shape(problem.outputs.begin() + static_cast<std::ptrdiff_t>(problem.rows.size()), problem.outputs.end()));
  if (steps < 0) reject("steps", "got " + std::to_string(steps) + ", expected at least 0");
  if (iteration < 0) reject("iteration", "got " + std::to_string(iteration) + ", expected at least 0");
  if (every < 1) reject("every", "got " + std::to_string(every) + ", expected at least 1");
  expect("y", y, kind == TrainingLoss::squared ? outputs : rows, classes ? ScalarType::Long : dtype, x);
  if (classes) {
    expect_each<std::int64_t>("y", dense(y, ScalarType::Long), "class indices below k",
                              [&](std::int64_t label) { return label >= 0 && label < problem.heads; });
  }
  expect("v_W", v_W, shape_of(W), dtype, x);
  expect("v_a", v_a, shape_of(a), dtype, x);
  if (bias) expect("v_bias", v_bias, shape_of(*bias), dtype, x);
  if (head_bias) expect("v_head_bias", v_head_bias, shape_of(*head_bias), dtype, x);
  expect("gram", gram, grams, dtype, x);
  expect("first_W", first_W, shape_of(W), dtype, x);
  expect("mixture", mixture, each, ScalarType::Double, x);
  expect("momentum", momentum, each, ScalarType::Double, x);
  expect("weight_decay", weight_decay, each, ScalarType::Double, x);
  expect("distance", distance, each, ScalarType::Double, x);
  expect("radius", radius_rows, rows, dtype, x);
  expect("step", step_rows, rows, dtype, x);
  const Shape rates = shape_of(step_size);
  if (rates.size() != 2 || rates[1] != problem.networks) {
    reject("step_size", "got shape " + text(rates) + ", expected (updates, " + std::to_string(problem.networks) + ")");
  }
  expect_dtype("step_size", step_size, ScalarType::Double);
  if (momentum.has_value() != v_W.has_value() || (momentum && train_a != v_a.has_value()) ||
      (momentum && (train_bias && bias) != v_bias.has_value()) ||
      (momentum && (train_head_bias && head_bias) != v_head_bias.has_value())) {
    reject("momentum", "expected it together with the velocities of all that is trained");
  }
  if (carry_gram && (momentum || distance)) reject("carry_gram", "got True with momentum or distance, expected False");

  const Engine engine(x);
  const auto in_double = [](const std::optional<Tensor>& tensor) { return dense(tensor, ScalarType::Double); };
  const Tensor X = dense(x, dtype), labels = dense(y, y.scalar_type()), first = dense(first_W, dtype);
  const Tensor each_step = dense(step_size, ScalarType::Double);
  const auto mix = in_double(mixture), mu = in_double(momentum), kappa = in_double(weight_decay);
  const auto reach = in_double(distance);
  const auto radii = dense(radius_rows, dtype), lengths = dense(step_rows, dtype);
  const Tensor now[] = {copied(W, dtype, x), copied(a, dtype, x), copied(bias, dtype, x), copied(head_bias, dtype, x)};
  const Tensor velocity[] = {copied(v_W, dtype, x), copied(v_a, dtype, x), copied(v_bias, dtype, x),
                             copied(v_head_bias, dtype, x)};
  const Tensor carried =
      carry_gram && gram ? copied(gram, dtype, x) : allocate(carry_gram ? grams : Shape{0}, dtype, x);

  Tensor attacked, at_samples, scalars;
  const auto run = [&](auto storage) {
    using A = decltype(storage);
    expect_sizes<A>("radius", radii, radius);
    expect_sizes<A>("step", lengths, step, Size::finite);
    Training<A> task{};
    task.shape.networks = problem.networks;
    task.shape.neurons = problem.neurons;
    task.shape.dim = problem.dim;
    task.shape.patches = problem.patches;
    task.shape.heads = problem.heads;
    task.shape.activation = problem.activation;
    task.samples = {data<A>(X), problem.samples, problem.shared ? 0 : problem.samples * problem.patches * problem.dim};
    Threat<A> threat{};
    threat.norm = Norm::l2;
    threat.loss = kind == TrainingLoss::squared ? Loss::squared : Loss::margin;
    threat.direction = Direction::exact;
    threat.keep = Keep::last;
    threat.radius = {data<A>(radii), static_cast<A>(radius)};
    threat.step = {data<A>(lengths), static_cast<A>(step)};
    threat.steps = steps;
    task.attack = {threat, classes ? nullptr : data<A>(labels), classes ? data<std::int64_t>(labels) : nullptr,
                   nullptr};
    task.descent = {kind,
                    data<double>(each_step),
                    data<double>(mix),
                    data<double>(mu),
                    data<double>(kappa),
                    data<double>(reach),
                    data<A>(first),
                    train_a,
                    train_bias && bias,
                    train_head_bias && head_bias};
    task.now = {mutable_data<A>(now[0]), mutable_data<A>(now[1]), numbers_of<A>(bias, now[2]),
                numbers_of<A>(head_bias, now[3])};
    task.velocity = {numbers_of<A>(v_W, velocity[0]), numbers_of<A>(v_a, velocity[1]),
                     numbers_of<A>(v_bias, velocity[2]), numbers_of<A>(v_head_bias, velocity[3])};
    task.gram = carry_gram ? mutable_data<A>(carried) : nullptr;
    task.knows_gram = gram.has_value();
    task.iteration = iteration;
    task.updates = rates[0];
    task.every = every;
    const Shape records{task.count_records()};
    attacked = allocate(joined(records, outputs), dtype, x);
    at_samples = allocate(clean ? joined(records, outputs) : Shape{0}, dtype, x);
    scalars = allocate(joined({5}, joined(records, problem.batch)), dtype, x);
    const std::int64_t size = records[0] * problem.networks;
    A* of_loss = mutable_data<A>(scalars);
    A* of_norms = of_loss + 2 * size;
    task.records = {mutable_data<A>(attacked),
                    clean ? mutable_data<A>(at_samples) : nullptr,
                    of_loss,
                    clean ? of_loss + size : nullptr,
                    norms ? of_norms : nullptr,
                    norms ? of_norms + size : nullptr,
                    norms ? of_norms + 2 * size : nullptr};
    engine.train(task);
  };
  if (dtype == ScalarType::Double) run(double{});
  else run(float{});
  return {now[0],      now[1],      now[2],  now[3],   velocity[0], velocity[1],
          velocity[2], velocity[3], carried, attacked, at_samples,  scalars};
}

BK_REGISTER_ON(CPU, CpuEngine, "train", train)

}  // namespace bk::ops
