// What half-sparse attacks on both engines have in common.
#pragma once

#include "macros.h"

namespace bk {

// Whether a gradient that follows its gates has lost so many digits to cancellation that it must be summed afresh.
// norm: ‖g‖ now, and the largest since it was fresh; changes: Σ (ΔU_j ‖w_j‖)² over the flips since; bound:
// Σ |U_j| ‖w_j‖ over `terms` neurons.
//
// The flips leave rounding errors of about u √changes and u max ‖g‖ in g, which matter once g is much smaller. A fresh
// sum is no exact one either: it errs by u √(Σ (U_j ‖w_j‖)²) at least, which is no less than u Σ |U_j| ‖w_j‖ / √terms.
// Between pairs of neurons that nearly cancel, both would be lost in every step, and nothing gained by a fresh sum.
BK_HD bool gradient_is_lost(double norm, double largest_norm, double changes, double bound, double terms) {
  constexpr double kMostLost = 16;  // two bits
  const double drift = largest_norm * largest_norm + changes;
  return drift > kMostLost * norm * norm && drift * terms > bound * bound;
}

}  // namespace bk
