#include <torch/csrc/stable/library.h>

#include "engine.h"
#include "network.h"

namespace bk::ops {

template <class Engine>
Tensor two_layer(const Tensor& x, const Tensor& W, const Tensor& a, const std::optional<Tensor>& bias,
                 const std::optional<Tensor>& head_bias, const std::string& activation, double alpha, double beta,
                 std::int64_t patches) {
  const NetworkArguments arguments{W, a, bias, head_bias, activation, alpha, beta, patches};
  const Problem problem = check_network("x", x, arguments);
  expect_dtype("x", x, problem.storage);

  const Engine engine(x);
  const Tensor f = allocate(problem.outputs, problem.compute, x);
  with_storage(problem.storage, [&](auto storage) {
    using T = decltype(storage);
    const auto in = operands<T>(problem, x, arguments);
    engine.two_layer(in.network, in.samples, mutable_data<Compute<T>>(f));
  });
  return dense(f, problem.storage);
}

BK_REGISTER("two_layer", two_layer)

}  // namespace bk::ops
