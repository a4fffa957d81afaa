// A two-layer network and its samples as ops receive them: checked, made dense, and described to the engines.
#pragma once

#include <string>

#include "../model/network.h"
#include "tensor.h"

namespace bk::ops {

struct NetworkArguments {
  const Tensor& W;
  const Tensor& a;
  const std::optional<Tensor>& bias;
  const std::optional<Tensor>& head_bias;
  const std::string& activation;
  double alpha, beta;
  std::int64_t patches;
};

// What the shapes of the arguments say. Leading dimensions of W are independent networks; where it has none, all
// leading dimensions of x are rows.
struct Problem {
  Shape batch;    // leading dimensions of W
  Shape rows;     // shape of one number per row: batch + (n,), or the leading dimensions of x
  Shape outputs;  // shape of f: rows, + (k,) where a has a head dimension
  std::int64_t networks, samples, neurons, dim, patches, heads;
  bool shared;  // the same samples for all networks
  Activation activation;
  ScalarType storage, compute;
};

// Checks everything but x's dtype: two_layer takes x in W's dtype, the attack in the dtype it computes in.
Problem check_network(const char* x_name, const Tensor& x, const NetworkArguments& arguments);

// The engines' view, and the tensors that keep it alive.
template <class T> struct Operands {
  Tensor x, W, a;
  std::optional<Tensor> bias, head_bias;
  Network<T> network;
  Samples<Compute<T>> samples;
};

template <class T> Operands<T> operands(const Problem& problem, const Tensor& x, const NetworkArguments& arguments) {
  using A = Compute<T>;
  Operands<T> out{dense(x, problem.compute),
                  dense(arguments.W, problem.storage),
                  dense(arguments.a, problem.compute),
                  dense(arguments.bias, problem.compute),
                  dense(arguments.head_bias, problem.compute),
                  {},
                  {}};
  out.network =
      Network<T>{data<T>(out.W),  data<A>(out.a), data<A>(out.bias), data<A>(out.head_bias), problem.networks,
                 problem.neurons, problem.dim,    problem.patches,   problem.heads,          problem.activation};
  out.samples =
      Samples<A>{data<A>(out.x), problem.samples, problem.shared ? 0 : problem.samples * problem.patches * problem.dim};
  return out;
}

}  // namespace bk::ops
