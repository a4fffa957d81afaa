// Full-batch gradient descent at attacked points, of a batch of independent networks.
#pragma once

#include "network.h"
#include "threat.h"

namespace bk {

// ℓ(f, y). Of the margin m = y f: logistic log(1 + e^−m), exponential e^−m (its tangent below m = −60), hinge
// max(0, 1 − m). squared |f − y|²/2. cross_entropy −log softmax_y.
enum class TrainingLoss : std::int32_t { logistic, exponential, hinge, squared, cross_entropy };

// A network's numbers, or velocities of them; null for what is not there.
template <class A> struct Parameters {
  A* weight;     // (networks, m, d)
  A* head;       // (networks, k, m)
  A* bias;       // (networks, m)
  A* head_bias;  // (networks, k)
};

// θ ← θ − η v, v ← μ v + ∇L + κθ, then ‖W − W0‖ ≤ R;  L = mean of (1−λ) ℓ(f(x)) + λ ℓ(f(x')).
template <class A> struct Descent {
  TrainingLoss loss;
  const double* step_size;  // η (updates, networks)
  // (networks) each; null: λ = 1, no momentum, κ = 0, R = ∞
  const double* mixture;
  const double* momentum;
  const double* weight_decay;
  const double* distance;
  const A* first_weight;  // W0 (networks, m, d)
  bool trains_head, trains_bias, trains_head_bias;
};

// What is written down of an iteration, before its update: at those that `every` divides, or of the one look where
// there are no updates. Null for what is not wanted.
template <class A> struct TrainingRecords {
  A* attacked;  // (records, networks, n, k): f(x')
  A* clean;     // (records, networks, n, k): f(x)
  // (records, networks): the mean losses at x' and x; ‖W‖, ‖W − W0‖, ‖∇L‖ over all that is trained
  A* attacked_loss;
  A* clean_loss;
  A* weight_norm;
  A* distance;
  A* gradient_norm;
};

// Iterations [iteration, iteration + updates), in place.
template <class A> struct Training {
  Network<A> shape;  // its pointers are not used
  Samples<A> samples;
  Attack<A> attack;  // l2 without start, box and worst; steps = 0: none
  Descent<A> descent;
  Parameters<A> now;
  Parameters<A> velocity;  // with momentum, of what is trained
  A* gram;                 // (networks, m, m) W Wᵀ, where carries_gram(); else null
  bool knows_gram;         // it holds that of `now`
  TrainingRecords<A> records;
  std::int64_t iteration, updates, every;

  BK_HD std::int64_t first_record() const { return (iteration + every - 1) / every; }
  BK_HD std::int64_t count_records() const {
    return updates == 0 ? 1 : (iteration + updates + every - 1) / every - first_record();
  }
};

}  // namespace bk
