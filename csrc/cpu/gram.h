// The l2 attack in neuron space: products with W at both ends, and between them walks that never leave the cache.
#pragma once

#include "../model/threat.h"
#include "workspace.h"

namespace bk::cpu::BK_SIMD_LEVEL {

// Algorithm::gram: l2, no box, no trajectory.
template <class T>
void gram_attack(const Network<T>& network, const Samples<Compute<T>>& x0, const Attack<Compute<T>>& attack,
                 const AttackResult<Compute<T>>& result, const Parallel& run);

}  // namespace bk::cpu::BK_SIMD_LEVEL
