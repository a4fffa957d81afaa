// What the attacker may do and wants: the ball, the steps, the direction, and which iterate is kept.
#pragma once

#include <cstdint>

#include "macros.h"

namespace bk {

enum class Norm : std::int32_t { l2, linf };

// margin: y f for one head (labels ±1), f_y − max of the others for several (labels are class indices).
// squared: |f − y|², y the targets; its "margin" is −|f − y|².
enum class Loss : std::int32_t { margin, squared };

// exact: the gradient's direction, free of ℓ' (which underflows and masks the attack).
// loss: the gradient of the logistic or cross-entropy loss itself, divided by a floored norm, as other libraries do.
enum class Direction : std::int32_t { exact, loss };

// How direction "loss" keeps ‖g‖ off zero:
//   added: ‖g‖ + floor     clipped: max(‖g‖, floor)     squared: sqrt(max(‖g‖², floor))
enum class Floor : std::int32_t { added, clipped, squared };

// last: the final iterate. worst: the iterate x_0 … x_K with the least margin, the earliest of equals.
enum class Keep : std::int32_t { last, worst };

// How an l2 attack is computed; all are exact. csrc/plan chooses.
enum class Algorithm : std::int32_t {
  dense,        // in input space: two products with W per step
  half_sparse,  // piecewise-linear φ, one head: one product per step, the gradient follows the gates that flip
  gram,         // in neuron space: one product with W before and one after all steps
};

// A number for all rows, or one per row.
template <class A> struct PerRow {
  const A* values;  // null: `value` for all
  A value;
  BK_HD A operator[](std::int64_t row) const { return values ? values[row] : value; }
};

template <class A> struct Threat {
  Norm norm;
  Loss loss;
  Direction direction;
  Floor floor_rule;  // with Direction::loss only
  A floor;           // with Direction::loss only
  A loss_scale;      // with Direction::loss only: 1/n for a mean over the batch, 1 for a sum
  Keep keep;
  PerRow<A> radius;         // ε ≥ 0, may be infinite
  PerRow<A> step;           // η ≥ 0, finite
  std::int64_t steps;       // K ≥ 0
  A box_lo, box_hi;         // x is clamped to [lo, hi] after the projection; −∞, +∞ for none
  bool stop_early = false;  // a row rests at its first iterate whose margin is not positive
};

// One attack on every row of every network. Rows are numbered network·n + sample.
template <class A> struct Attack {
  Threat<A> threat;
  const A* target;            // (rows, heads) targets for squared; (rows) labels ±1 for margin with one head; else null
  const std::int64_t* label;  // (rows) class indices for margin with several heads; else null
  const A* start;             // (rows, P·d) the first iterate, projected on the ball; null: start at x0
  Algorithm algorithm = Algorithm::dense;
  const A* gram = nullptr;  // (networks, m, m) W Wᵀ where it is known already; for Algorithm::gram
};

template <class A> struct AttackResult {
  A* x;           // (rows, P·d), or null: only margins are asked for
  A* logits;      // (rows, heads)
  A* margin;      // (rows)
  A* trajectory;  // (K + 1, rows, P·d), or null
};

// One projected ascent step on rows of any model: x' = Π_ball(x0)(x + step · direction(grad)).
template <class A> struct PgdStep {
  const A* x;
  const A* origin;
  const A* grad;
  A* out;  // may be x itself
  std::int64_t rows;
  std::int64_t dim;
  PerRow<A> step;
  PerRow<A> radius;
};

}  // namespace bk
