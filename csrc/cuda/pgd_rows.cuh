// What an attack does to its rows between two passes over the network. One row per team of threads.
#pragma once

#include "../model/threat.h"
#include "launch.cuh"

namespace bk::cuda {

// The rows of one chunk; results point at the chunk's first row.
template <class A> struct AttackRows {
  Threat<A> threat;
  int64_t networks, samples, dim, heads;  // dim: P·d
  const A* x0;                            // row (network, sample) at network·x0_network_stride + sample·dim
  int64_t x0_network_stride;
  const A* target;
  const std::int64_t* label;
  const A* start;

  std::int32_t* good;  // (rows) 0 once anything of the row was not finite or not valid
  A* x;                // (rows, dim) the iterate; result.x itself when the last one is kept there
  A* delta;            // (rows, dim) δ, with x = fl(x0 + δ)
  A* f;                // (rows, k) logits of x
  A* cotangent;        // (rows, k) R
  A* gradient;         // (rows, dim) of Σ R·f
  A* scale;            // (rows) Σ |U| ‖w‖

  AttackResult<A> result;
  int64_t trajectory_stride;  // numbers from one iterate to the next

  BK_HD int64_t rows() const { return networks * samples; }
  BK_HD const A* origin(int64_t row) const { return x0 + row / samples * x0_network_stride + row % samples * dim; }
  // R does not depend on f: one pass gives both f and the gradient.
  BK_HD bool fixed_cotangent() const {
    return threat.direction == Direction::exact && threat.loss == Loss::margin && heads == 1;
  }
  BK_HD bool in_box() const { return threat.box_lo > -INFINITY || threat.box_hi < INFINITY; }
};

// ‖w_j‖ of every neuron, (neurons).
template <class T>
int weight_norms(const T* weight, int64_t neurons, int64_t dim, Compute<T>* norms, cudaStream_t stream);

// Checks every row and puts it at its first iterate.
template <class A> int begin_attack(const AttackRows<A>& rows, cudaStream_t stream);

// R from f.
template <class A> int write_cotangent(const AttackRows<A>& rows, cudaStream_t stream);

// Looks at iterate k: its margin, the trajectory, whether it is kept; then, unless it is the last, takes the step.
template <class A> int advance(const AttackRows<A>& rows, int64_t iterate, bool last, cudaStream_t stream);

}  // namespace bk::cuda
