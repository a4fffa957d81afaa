// ‖w_j‖ of every neuron of every network, for the attack's zero rule.
#pragma once

#include "../model/network.h"
#include "simd.h"
#include "workspace.h"

namespace bk::cpu::BK_SIMD_LEVEL {

// norms (networks, m).
template <class T> void row_norms(const Network<T>& network, Compute<T>* norms, const Parallel& run);

}  // namespace bk::cpu::BK_SIMD_LEVEL
