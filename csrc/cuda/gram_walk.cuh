// The walk of each row through all steps of an attack, in neuron space: x_k = x0 + t·start + C w. See csrc/cpu/gram_walk.h
// for the algorithm. Where φ is piecewise linear, one team of threads takes one row through all its steps; for other φ
// every slope changes in every step, and a step is a launch for all rows and a product, V += ΔU G.
//
// A row's arrays are read and written by its own team alone, and stay in the nearest cache of its multiprocessor.
#pragma once

#include "pgd_rows.cuh"

namespace bk::cuda {

// A gate that has turned: its place among a row's, patch·m + neuron, and by how much its slope has changed.
template <class A> struct Turn {
  std::int32_t at;
  A change;
};

// Of a row, from launch to launch; as in WalkState.
struct WalkProgress {
  double unit, shrink, start, start_norm, drift;
  double least;  // margin of the iterate that is kept
  bool walks;    // it neither rests nor is spoilt
};

template <class T> struct GramWalk {
  using A = Compute<T>;

  Network<T> network;  // of the chunk
  AttackRows<A> rows;  // x: room for g; delta: start − x0

  // Per network. W = weight_unit · w and a = head_unit · head, both powers of two, so that products stay in range.
  const A* weight_unit;
  const A* weight_scale;  // 1 / weight_unit
  const A* head_unit;
  const A* norms;       // (m): ‖w_j‖, times weight_unit
  const A* gram;        // (m, m)
  const A* gram_scale;  // what brings it to w wᵀ; null: it is that

  // (networks, n, P, m)
  A* hidden;        // x0 wᵀ; from the first look on, H0 = W x0 + b
  A* start_hidden;  // start wᵀ, or null
  A* slopes;        // S = φ'(H); for smooth φ U, at R where there are several heads
  A* moved;         // D
  A* coefficients;  // C
  A* kept;          // C of the iterate to be returned; before the walk, room for U
  A* V;             // (k, networks, n, P, m): V = U G of each head at R = 1; for smooth φ one V, of U
  A* change;        // smooth φ: the first U; then ΔU, times gram_scale
  Turn<A>* turns;   // piecewise-linear φ: (networks, n, turn_room)

  // (networks, n)
  WalkProgress* progress;  // smooth φ
  double* start_scales;    // the iterate is x0 + start_scale · start + coefficient_scale · kept w
  double* coefficient_scales;
  bool summed;  // V has been taken as U G: with all the cancellation of its sum

  BK_HD int64_t size() const { return network.patches * network.neurons; }
  BK_HD int64_t all() const { return rows.rows() * size(); }
};

// Room for the turns of a row: all its gates, each warp's of a team together.
BK_HD constexpr int64_t turn_room(int64_t size) { return size; }

// Units and scales from ‖W_j‖ and a: (networks) each. gram_scale only where it is not null.
template <class T>
int find_units(const Network<T>& network, const Compute<T>* norms, Compute<T>* weight_unit, Compute<T>* weight_scale,
               Compute<T>* head_unit, Compute<T>* gram_scale, cudaStream_t stream);

// H0 and the slopes at the first iterate.
template <class T> int look_first(const GramWalk<T>& walk, cudaStream_t stream);
// U of one head at R = 1, into `kept`.
template <class T> int write_direction(const GramWalk<T>& walk, int64_t head, cudaStream_t stream);
// Piecewise-linear φ: all steps, and the results but for x.
template <class T> int walk_rows(const GramWalk<T>& walk, cudaStream_t stream);
// Smooth φ: the step from iterate k − 1, whose V is there, to iterate k, the results but for x, and `change`.
template <class T> int step_rows(const GramWalk<T>& walk, int64_t k, cudaStream_t stream);
// result.x from kept w, which lies in rows.x.
template <class T> int write_points(const GramWalk<T>& walk, cudaStream_t stream);

}  // namespace bk::cuda
