// The gradients of a half-sparse attack between two looks at the gates. Lines: (network, sample, patch).
#pragma once

#include "hidden.cuh"
#include "pgd_rows.cuh"

namespace bk::cuda {

// Of the gates of a row, one in so many may flip before its gradient is summed afresh. A flip costs 4 bytes a coordinate
// from the second cache at about 5 TB/s, a neuron of a product 2 flops at about 25 TFLOP/s; no device has been asked yet.
constexpr int64_t kLeastGatesPerFlip = 8;

template <class T> struct HalfSparse {
  using A = Compute<T>;

  Network<T> network;  // of the chunk
  AttackRows<A> rows;  // scale: at R = 1, until the gradient is finished
  A slope;             // φ'(h) where h ≤ 0; elsewhere it is 1
  GateBits bits;
  const A* norms;  // (networks, m) ‖w_j‖
  Arithmetic arithmetic;

  A* g;  // (lines, d) the gradient at R = 1
  double *changes,
      *most;  // (networks, n) what gradient_is_lost asks for, since g was fresh: the changes, the largest norm
  std::int32_t* stale;  // (networks, n) whether g must be summed afresh; null: none
  bool all_stale;

  // A line's flips are shared by `slabs` warps for every kSpan coordinates, each with so many words.
  int64_t slabs, words_per_slab;
  double* change_parts;  // (slabs, lines)
  A* parts;              // (slabs or splits, lines, d) what g changes by; what it is

  BK_HD int64_t samples() const { return rows.samples; }
  BK_HD int64_t lines() const { return rows.rows() * network.patches; }
  BK_HD int64_t lines_per_network() const { return rows.samples * network.patches; }
  BK_HD int64_t gates() const { return network.patches * network.neurons; }
  BK_HD bool crowded(int64_t row) const {
    return static_cast<int64_t>(bits.counts[row]) * kLeastGatesPerFlip > gates();
  }
  BK_HD bool is_stale(int64_t row) const { return all_stale || (stale != nullptr && stale[row] != 0); }
};

// Coordinates that a warp takes through a slab of flips, four to a lane.
constexpr int64_t kSpan = 4 * kWarp;

// How many slabs occupy the device with lines of d coordinates, and how long they are.
int64_t slab_count(int64_t lines, int64_t dim, int64_t neurons);
int64_t slab_words(int64_t neurons, int64_t slabs);

// What the flips change g by, into the parts.
template <class T> int follow_flips(const HalfSparse<T>& walk, cudaStream_t stream);
// Adds that to g, and finds the rows that are stale.
template <class T> int settle_gradients(const HalfSparse<T>& walk, cudaStream_t stream);
// U W of the rows that are stale, into `splits` parts.
template <class T> int sum_gradients(const HalfSparse<T>& walk, int splits, cudaStream_t stream);
// Takes the stale rows of g from those parts, and writes rows.gradient and rows.scale at R.
template <class T> int finish_gradients(const HalfSparse<T>& walk, int splits, cudaStream_t stream);

}  // namespace bk::cuda
