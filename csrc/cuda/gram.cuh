// The attack in neuron space: products with W before and after all steps. Between them one launch for all steps of all
// rows where φ is piecewise linear; for other φ a launch and a product with G for each step.
#pragma once

#include "engine.h"

namespace bk::cuda {

template <class T>
std::size_t gram_workspace(const Network<T>& network, const Samples<Compute<T>>& x0, const Attack<Compute<T>>& attack,
                           const AttackResult<Compute<T>>& result);
template <class T>
int gram_attack(const Network<T>& network, const Samples<Compute<T>>& x0, const Attack<Compute<T>>& attack,
                const AttackResult<Compute<T>>& result, Launch run);

}  // namespace bk::cuda
