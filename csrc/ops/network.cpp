#include "network.h"

#include <algorithm>
#include <iterator>
#include <limits>

namespace bk::ops {

namespace {

Activation activation_named(const std::string& name, double alpha, double beta) {
  const auto* found = std::find(std::begin(kActivationNames), std::end(kActivationNames), name);
  if (found == std::end(kActivationNames)) {
    std::string accepted;
    for (const char* known : kActivationNames) accepted += (accepted.empty() ? "" : ", ") + std::string(known);
    reject("activation", "got '" + name + "', expected one of " + accepted);
  }
  return Activation{static_cast<ActivationKind>(found - std::begin(kActivationNames)), alpha, beta};
}

// P is the one size that no tensor vouches for: where d is 0 any P fits x, and P·d must not wrap around to fit it.
void check_patches(std::int64_t patches, std::int64_t dim) {
  const std::int64_t most =
      std::min<std::int64_t>(std::numeric_limits<std::int32_t>::max(),
                             std::numeric_limits<std::int64_t>::max() / std::max<std::int64_t>(dim, 1));
  if (patches < 1) reject("patches", "got " + std::to_string(patches) + ", expected at least 1");
  if (patches > most)
    reject("patches", "got " + std::to_string(patches) + ", expected at most " + std::to_string(most));
}

void check_samples(const char* x_name, const Shape& x, Problem& problem) {
  const std::int64_t width = problem.patches * problem.dim;
  const auto expected = [&] {
    return problem.batch.empty() ? "(..., " + std::to_string(width) + ")"
                                 : text(problem.batch) + " + (n, " + std::to_string(width) + "), or (n, " +
                                       std::to_string(width) + ") shared by all networks";
  };
  const bool shared = !problem.batch.empty() && x.size() == 2;
  const bool leading_fits = problem.batch.empty()
                                ? !x.empty()
                                : shared || (x.size() == problem.batch.size() + 2 &&
                                             std::equal(problem.batch.begin(), problem.batch.end(), x.begin()));
  if (!leading_fits || x.back() != width) reject(x_name, "got shape " + text(x) + ", expected " + expected());

  problem.shared = shared;
  problem.rows = problem.batch.empty() ? Shape(x.begin(), x.end() - 1) : joined(problem.batch, {x[x.size() - 2]});
  problem.samples = problem.batch.empty() ? count(problem.rows) : x[x.size() - 2];
}

void check_head(const NetworkArguments& arguments, Problem& problem) {
  const Shape a = shape_of(arguments.a);
  const Shape one_head = joined(problem.batch, {problem.neurons});
  const bool has_heads = a.size() == one_head.size() + 1;
  problem.heads = has_heads ? a[a.size() - 2] : 1;
  const Shape many_heads = joined(joined(problem.batch, {problem.heads}), {problem.neurons});
  if (a != (has_heads ? many_heads : one_head)) {
    std::string heads = text(joined(joined(problem.batch, {-1}), {problem.neurons}));
    heads.replace(heads.find("-1"), 2, "k");
    reject("a", "got shape " + text(a) + ", expected " + text(one_head) + ", or " + heads + " for k heads");
  }
  problem.outputs = has_heads ? joined(problem.rows, {problem.heads}) : problem.rows;
  if (arguments.bias) expect_shape("bias", *arguments.bias, one_head);
  if (arguments.head_bias) {
    expect_shape("head_bias", *arguments.head_bias, has_heads ? joined(problem.batch, {problem.heads}) : problem.batch);
  }
}

}  // namespace

Problem check_network(const char* x_name, const Tensor& x, const NetworkArguments& arguments) {
  Problem problem{};
  problem.activation = activation_named(arguments.activation, arguments.alpha, arguments.beta);
  const Shape W = shape_of(arguments.W);
  if (W.size() < 2) reject("W", "got shape " + text(W) + ", expected (m, d) or (networks..., m, d)");
  problem.batch = Shape(W.begin(), W.end() - 2);
  problem.networks = count(problem.batch);
  problem.neurons = W[W.size() - 2];
  problem.dim = W.back();
  check_patches(arguments.patches, problem.dim);
  problem.patches = arguments.patches;
  check_samples(x_name, shape_of(x), problem);
  check_head(arguments, problem);

  problem.storage = arguments.W.scalar_type();
  if (problem.storage != ScalarType::Float && problem.storage != ScalarType::Double &&
      problem.storage != ScalarType::BFloat16) {
    reject("W", "got dtype " + text(problem.storage) + ", expected torch.float32, torch.float64 or torch.bfloat16");
  }
  problem.compute = compute_dtype(problem.storage);

  expect_dtype("a", arguments.a, problem.storage);
  if (arguments.bias) expect_dtype("bias", *arguments.bias, problem.storage);
  if (arguments.head_bias) expect_dtype("head_bias", *arguments.head_bias, problem.storage);
  expect_device("W", arguments.W, x);
  expect_device("a", arguments.a, x);
  if (arguments.bias) expect_device("bias", *arguments.bias, x);
  if (arguments.head_bias) expect_device("head_bias", *arguments.head_bias, x);
  return problem;
}

}  // namespace bk::ops
