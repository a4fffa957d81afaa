// The hidden layer of a chunk of samples and neurons: the product H = X Wᵀ + b, and what is made of each 64 × 64 tile
// while it is still in registers. A row is a patch of a sample: row = sample·P + patch.
#pragma once

#include "gate.cuh"
#include "product.cuh"

namespace bk::cuda {

template <class T> struct Hidden {
  using A = Compute<T>;

  Network<T> network;
  const A* x;                // (networks, n·P, d)
  int64_t x_network_stride;  // 0: shared
  int64_t samples;           // n
  int64_t first_neuron, neurons;
  const A* cotangent;    // (networks, n, k) R, or null: all ones
  const A* weight_norm;  // (networks, m) ‖w_j‖; with scale_parts only

  // Results, each null when not wanted. Row tiles and neuron tiles are 64 wide.
  A* gated;        // (networks, n·P, neurons)                   U = φ'(H) ∘ R a
  A* value_parts;  // (neuron tiles, P, networks, n, k)          Σ_j a_j φ(H_j)
  A* scale_parts;  // (neuron tiles, P, networks, n)             Σ_j |U_j| ‖w_j‖
  A* head_parts;   // (row tiles, networks, k, neurons)          Σ_i R_i φ(H_i)
  A* bias_parts;   // (row tiles, networks, neurons)             Σ_i U_i

  Arithmetic arithmetic = {};

  BK_HD int64_t rows() const { return samples * network.patches; }
  BK_HD int64_t row_tiles() const { return ceil_div(rows(), kTile); }
  BK_HD int64_t neuron_tiles() const { return ceil_div(neurons, kTile); }
};

// preactivations: (networks, n·P, neurons), for H where a library makes it; may be where U goes.
// parts: product_workspace(…) numbers, for those of H where it is split along d.
template <class T>
int hidden(const Hidden<T>& layer, Compute<T>* preactivations, Compute<T>* parts, cudaStream_t stream);

// The gates of all neurons as bits: neuron j of a row is bit j % 32 of its word j / 32. A row has whole tiles of words.
constexpr int64_t kWordBits = 32;
BK_HD constexpr int64_t gate_words(int64_t neurons) { return ceil_div(neurons, kTile) * (kTile / kWordBits); }

struct GateBits {
  std::uint32_t* open;         // (networks, n·P, words) h > 0, or NaN; what was there is compared, and replaced
  std::uint32_t* flips;        // (networks, n·P, words) the bits that differ; null: there is nothing to compare with
  unsigned long long* counts;  // (networks, n) how many they are, added to what is there; with flips only
};

// The same for piecewise-linear φ, all its neurons; and the gates.
template <class T>
int hidden_and_gates(const Hidden<T>& layer, const GateBits& bits, Compute<T>* preactivations, Compute<T>* parts,
                     cudaStream_t stream);

// Whether a library makes H. With few terms, the way of H through memory takes longer than what is gained.
template <class T>
bool library_makes_hidden(const Arithmetic& arithmetic, int64_t networks, int64_t rows, int64_t neurons, int64_t dim) {
  constexpr int64_t kLeastTerms = sizeof(Compute<T>) == sizeof(float) ? 256 : 32;
  return dim >= kLeastTerms && arithmetic.template wants_library<T>(networks, rows, neurons, dim);
}

}  // namespace bk::cuda
