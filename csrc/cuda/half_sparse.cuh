// The attack in input space for piecewise-linear φ and one head, whose gradient follows the gates that flip: a step costs
// one product for H, and a row of W per flip. csrc/cpu/half_sparse.h has the algorithm.
#pragma once

#include "engine.h"

namespace bk::cuda {

template <class T>
std::size_t half_sparse_workspace(const Network<T>& network, const Samples<Compute<T>>& x0,
                                  const Attack<Compute<T>>& attack, const AttackResult<Compute<T>>& result);
template <class T>
int half_sparse_attack(const Network<T>& network, const Samples<Compute<T>>& x0, const Attack<Compute<T>>& attack,
                       const AttackResult<Compute<T>>& result, Launch run);

}  // namespace bk::cuda
