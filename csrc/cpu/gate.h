// The element-wise stage between the two products, on a tile of pre-activations H (rows neurons, width samples).
#pragma once

#include <cstdint>

#include "../model/activation.h"
#include "simd.h"

namespace bk::cpu::BK_SIMD_LEVEL {

// One head. Sums over the tile's neurons go to f and bound, which are added to.
template <class A> struct GateTile {
  A* H;  // (rows, width); becomes U = φ'(H) a R when `cotangent` is given
  std::int64_t rows;
  std::int64_t vectors;
  const A* head;       // (rows)
  const A* cotangent;  // R (width), or null: no gradient
  const A* norms;      // ‖w_j‖ (rows); with a cotangent only
  A* f;                // (width) += Σ a φ(h), or null
  A* bound;            // (width) += Σ |U| ‖w_j‖; with a cotangent only
};
template <class A> void gate(const Activation& activation, const GateTile<A>& tile);

// Several heads: values = φ(H), and H = φ'(H) ∘ slopes; either is skipped when null.
template <class A>
void gate_elements(const Activation& activation, A* H, std::int64_t rows, std::int64_t vectors, A* values,
                   const A* slopes);

// bound (width) += Σ |U_j| ‖w_j‖ over the rows of U.
template <class A> void add_bound(const A* U, std::int64_t rows, std::int64_t vectors, const A* norms, A* bound);

// The gates of a piecewise-linear φ, one bit per column of a panel: bit i of closed[j] is 1 where h ≤ 0.
template <class A> void find_closed(const A* H, std::int64_t rows, std::int64_t vectors, std::uint64_t* closed);

// U (rows, width) = φ'(H) a from those bits; φ' is `slope` where h ≤ 0, and 1 elsewhere.
template <class A>
void gated_head(const std::uint64_t* closed, std::int64_t rows, std::int64_t vectors, const A* head, A slope, A* U);

}  // namespace bk::cpu::BK_SIMD_LEVEL
