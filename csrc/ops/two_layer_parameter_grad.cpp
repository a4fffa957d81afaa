#include <torch/csrc/stable/library.h>

#include <tuple>

#include "engine.h"
#include "network.h"

namespace bk::ops {

template <class Engine>
std::tuple<Tensor, Tensor, Tensor> two_layer_parameter_grad(const Tensor& x, const Tensor& W, const Tensor& a,
                                                            const std::optional<Tensor>& bias, const Tensor& cotangent,
                                                            const std::string& activation, double alpha, double beta,
                                                            std::int64_t patches) {
  const NetworkArguments arguments{W, a, bias, std::nullopt, activation, alpha, beta, patches};
  const Problem problem = check_network("x", x, arguments);
  expect_dtype("x", x, problem.storage);
  expect("cotangent", cotangent, problem.outputs, problem.storage, x);

  const Engine engine(x);
  const Tensor r = dense(cotangent, problem.compute);
  const Tensor gw = allocate(shape_of(W), problem.compute, x);
  const Tensor ga = allocate(shape_of(a), problem.compute, x);
  const Tensor gb = allocate(joined(problem.batch, {problem.neurons}), problem.compute, x);
  with_storage(problem.storage, [&](auto storage) {
    using T = decltype(storage);
    using A = Compute<T>;
    const auto in = operands<T>(problem, x, arguments);
    engine.two_layer_parameter_grad(in.network, in.samples, data<A>(r), mutable_data<A>(gw), mutable_data<A>(ga),
                                    mutable_data<A>(gb));
  });
  return {dense(gw, problem.storage), dense(ga, problem.storage), dense(gb, problem.storage)};
}

BK_REGISTER("two_layer_parameter_grad", two_layer_parameter_grad)

}  // namespace bk::ops
