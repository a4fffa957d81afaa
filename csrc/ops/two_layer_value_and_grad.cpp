#include <torch/csrc/stable/library.h>

#include <tuple>

#include "engine.h"
#include "network.h"

namespace bk::ops {

template <class Engine>
std::tuple<Tensor, Tensor> two_layer_value_and_grad(const Tensor& x, const Tensor& W, const Tensor& a,
                                                    const std::optional<Tensor>& bias,
                                                    const std::optional<Tensor>& head_bias,
                                                    const std::optional<Tensor>& cotangent,
                                                    const std::string& activation, double alpha, double beta,
                                                    std::int64_t patches) {
  const NetworkArguments arguments{W, a, bias, head_bias, activation, alpha, beta, patches};
  const Problem problem = check_network("x", x, arguments);
  expect_dtype("x", x, problem.storage);
  expect("cotangent", cotangent, problem.outputs, problem.storage, x);

  const Engine engine(x);
  const std::optional<Tensor> r = dense(cotangent, problem.compute);
  const Tensor f = allocate(problem.outputs, problem.compute, x);
  const Tensor gx = allocate(joined(problem.rows, {problem.patches * problem.dim}), problem.compute, x);
  with_storage(problem.storage, [&](auto storage) {
    using T = decltype(storage);
    using A = Compute<T>;
    const auto in = operands<T>(problem, x, arguments);
    engine.two_layer_value_and_grad(in.network, in.samples, data<A>(r), mutable_data<A>(f), mutable_data<A>(gx));
  });
  return {dense(f, problem.storage), dense(gx, problem.storage)};
}

BK_REGISTER("two_layer_value_and_grad", two_layer_value_and_grad)

}  // namespace bk::ops
