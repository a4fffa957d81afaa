// The attack in neuron space, for piecewise-linear φ: products with W before and after all steps, and one launch for
// the steps of all rows between them.
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
