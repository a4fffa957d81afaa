// All that the engine computes of a problem, side by side: what a setting of the engine changes, and what it does not.
#pragma once

#include <utility>

#include "attack_case.h"

namespace bk::test {

struct Output {
  std::string name;
  std::vector<double> numbers;
};

template <class A> Output named(const std::string& name, const std::vector<A>& numbers) {
  return {name, widened(numbers)};
}

template <class T> std::vector<Output> everything(const Shape& s) {
  using A = Compute<T>;
  const Problem<T> problem(s, ActivationKind::gelu);
  const Network<T> net = problem.network();
  const Samples<A> samples = problem.samples();
  const A* cotangent = problem.cotangent.data();
  auto alone = unwritten<A>(s.rows() * s.heads), f = alone, gx = unwritten<A>(s.rows() * s.row_size());
  auto gw = unwritten<A>(s.networks * s.neurons * s.dim), ga = unwritten<A>(s.networks * s.heads * s.neurons);
  auto gb = unwritten<A>(s.networks * s.neurons);
  engine::two_layer(net, samples, alone.data());
  engine::two_layer_value_and_grad(net, samples, cotangent, f.data(), gx.data());
  engine::two_layer_parameter_grad(net, samples, cotangent, gw.data(), ga.data(), gb.data());
  std::vector<Output> outputs = {named("f alone", alone), named("f", f),   named("gx", gx),
                                 named("gw", gw),         named("ga", ga), named("gb", gb)};

  constexpr struct {
    Algorithm algorithm;
    ActivationKind kind;
    const char* name;
  } kAttacks[] = {
      {Algorithm::dense, ActivationKind::relu, "dense"},
      {Algorithm::gram, ActivationKind::relu, "gram"},
      {Algorithm::gram, ActivationKind::tanh, "smooth gram"},
      {Algorithm::half_sparse, ActivationKind::relu, "half-sparse"},
  };
  for (const auto& [algorithm, kind, name] : kAttacks) {
    if (algorithm == Algorithm::half_sparse && s.heads > 1) continue;
    AttackCase<T> attack(s, kind, Norm::l2, Loss::margin);
    attack.algorithm = algorithm;
    attack.trajectory = false;
    const Attacked<A> found = attack.run();
    outputs.push_back(named(name + std::string(" x"), found.x));
    outputs.push_back(named(name + std::string(" margin"), found.margin));
  }
  return outputs;
}

}  // namespace bk::test
