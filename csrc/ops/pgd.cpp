// The whole attack in one call: l2_pgd and linf_pgd, by the algorithm that the planner chooses.
#include <torch/csrc/stable/library.h>

#include <algorithm>
#include <cmath>
#include <iterator>
#include <tuple>

#include "../model/threat.h"
#include "../plan/plan.h"
#include "engine.h"
#include "network.h"

namespace bk::ops {

namespace {

// The position of `got` among `names`, as the enumeration that lists them in that order.
template <class Enum, std::size_t count>
Enum named(const char* argument, const std::string& got, const char* const (&names)[count]) {
  const auto* found = std::find(std::begin(names), std::end(names), got);
  if (found == std::end(names)) {
    std::string accepted;
    for (const char* name : names) accepted += (accepted.empty() ? "'" : ", '") + std::string(name) + "'";
    reject(argument, "got '" + got + "', expected one of " + accepted);
  }
  return static_cast<Enum>(found - std::begin(names));
}

constexpr const char* kNorms[] = {"l2", "linf"};
constexpr const char* kLosses[] = {"margin", "squared"};
constexpr const char* kDirections[] = {"exact", "loss"};
constexpr const char* kFloors[] = {"added", "clipped", "squared"};

// Labels ±1, class indices, or targets of any value.
template <class A> void check_labels(const Tensor& y, Loss loss, std::int64_t heads) {
  if (loss == Loss::squared) return;
  if (heads == 1) {
    expect_each<A>("y", y, "labels -1 or 1", [](A label) { return label == 1 || label == -1; });
  } else {
    const std::string expected = "class indices in [0, " + std::to_string(heads) + ")";
    expect_each<std::int64_t>("y", y, expected.c_str(),
                              [heads](std::int64_t label) { return label >= 0 && label < heads; });
  }
}

template <class A>
plan::Problem plan_problem(const Problem& problem, const Tensor& x0, const Threat<A>& threat, bool trajectory,
                           const std::optional<Tensor>& start, const std::optional<Tensor>& gram, bool need_x) {
  const std::int64_t item_size = problem.storage == ScalarType::Double  ? 8
                                 : problem.storage == ScalarType::Float ? 4
                                                                        : 2;
  plan::Problem out{problem.samples,  problem.dim,
                    problem.neurons,  problem.patches,
                    problem.heads,    threat.steps,
                    problem.networks, piecewise_linear(problem.activation),
                    item_size,        x0.is_cpu() ? plan::Device::cpu : plan::Device::cuda};
  out.l2 = threat.norm == Norm::l2;
  out.box = std::isfinite(threat.box_lo) || std::isfinite(threat.box_hi);
  out.trajectory = trajectory;
  out.start = start.has_value();
  out.knows_gram = gram.has_value();
  out.needs_x = need_x;
  return out;
}

}  // namespace

template <class Engine>
std::tuple<Tensor, Tensor, Tensor, Tensor> pgd(
    const Tensor& x0, const Tensor& y, const Tensor& W, const Tensor& a, const std::optional<Tensor>& bias,
    const std::optional<Tensor>& head_bias, const std::optional<Tensor>& gram, const std::optional<Tensor>& start,
    const std::optional<Tensor>& radius_rows, const std::optional<Tensor>& step_rows, double radius, double step,
    std::int64_t steps, const std::string& norm, const std::string& loss, const std::string& direction,
    const std::string& floor_rule, double floor, double loss_scale, bool worst, std::optional<double> box_lo,
    std::optional<double> box_hi, bool trajectory, bool stop_early, bool need_x, const std::string& algorithm,
    const std::string& activation, double alpha, double beta, std::int64_t patches) {
  const NetworkArguments arguments{W, a, bias, head_bias, activation, alpha, beta, patches};
  const Problem problem = check_network("x0", x0, arguments);
  const ScalarType compute = problem.compute;
  const Shape points = joined(problem.rows, {problem.patches * problem.dim});
  expect_dtype("x0", x0, compute);
  if (problem.heads < 1) reject("a", "got no heads, expected at least one");
  if (steps < 0) reject("steps", "got " + std::to_string(steps) + ", expected at least 0");
  constexpr double kInfinity = std::numeric_limits<double>::infinity();
  const double lo = box_lo.value_or(-kInfinity), hi = box_hi.value_or(kInfinity);
  if (!(lo <= hi)) reject("box", "got (" + text(lo) + ", " + text(hi) + "), expected lo ≤ hi");
  expect("gram", gram, joined(problem.batch, {problem.neurons, problem.neurons}), compute, x0);
  expect("radius", radius_rows, problem.rows, compute, x0);
  expect("step", step_rows, problem.rows, compute, x0);
  expect("start", start, points, compute, x0);

  const auto loss_kind = named<Loss>("loss", loss, kLosses);
  if (stop_early && loss_kind == Loss::squared) reject("stop_early", "got True, expected False with loss='squared'");
  const bool classes = loss_kind == Loss::margin && problem.heads > 1;
  expect("y", y, loss_kind == Loss::squared ? problem.outputs : problem.rows, classes ? ScalarType::Long : compute, x0);

  const Engine engine(x0);
  const Tensor labels = dense(y, y.scalar_type());
  const auto first = dense(start, compute), known = dense(gram, compute);
  const auto radii = dense(radius_rows, compute), rates = dense(step_rows, compute);
  const Tensor x = allocate(need_x ? points : Shape{0}, compute, x0);
  const Tensor logits = allocate(problem.outputs, compute, x0);
  const Tensor margin = allocate(problem.rows, compute, x0);
  const Tensor path = allocate(trajectory ? joined({steps + 1}, points) : Shape{0}, compute, x0);

  with_storage(problem.storage, [&](auto storage) {
    using T = decltype(storage);
    using A = Compute<T>;
    expect_sizes<A>("radius", radii, radius);
    expect_sizes<A>("step", rates, step, Size::finite);
    check_labels<A>(labels, loss_kind, problem.heads);
    const auto in = operands<T>(problem, x0, arguments);
    const Threat<A> threat{named<Norm>("norm", norm, kNorms),
                           loss_kind,
                           named<Direction>("direction", direction, kDirections),
                           named<Floor>("floor_rule", floor_rule, kFloors),
                           static_cast<A>(floor),
                           static_cast<A>(loss_scale),
                           worst ? Keep::worst : Keep::last,
                           {data<A>(radii), static_cast<A>(radius)},
                           {data<A>(rates), static_cast<A>(step)},
                           steps,
                           static_cast<A>(lo),
                           static_cast<A>(hi),
                           stop_early};
    const Attack<A> attack{threat,
                           classes ? nullptr : data<A>(labels),
                           classes ? data<std::int64_t>(labels) : nullptr,
                           data<A>(first),
                           plan::choose(plan_problem(problem, x0, threat, trajectory, first, known, need_x), algorithm),
                           data<A>(known)};
    engine.pgd(in.network, in.samples, attack,
               AttackResult<A>{need_x ? mutable_data<A>(x) : nullptr, mutable_data<A>(logits), mutable_data<A>(margin),
                               trajectory ? mutable_data<A>(path) : nullptr});
  });
  return {x, logits, margin, path};
}

BK_REGISTER("pgd", pgd)

}  // namespace bk::ops
