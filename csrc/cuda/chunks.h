// How a problem is cut so that the workspace stays bounded: runs of samples (over several networks when they are
// small), and within a run, ranges of neurons. Host only; depends on shapes alone, so that results repeat bit for bit.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "engine.h"
#include "launch.cuh"
#include "tile.cuh"

namespace bk::cuda {

// Whole networks, or a range of one network's samples: contiguous rows of every (networks, n, …) array either way.
struct Chunk {
  int64_t network, networks;
  int64_t sample, samples;
};

struct ChunkLimits {
  // Rows of U per chunk: enough tiles to occupy the device, few enough to leave room for 512 neurons.
  int64_t rows;
  // Numbers of U per chunk: 16 MB in float32, so that it stays in the second-level cache between the product that
  // writes it and the one that reads it. A sample with more patches than that sets its own.
  int64_t gated;
  // Numbers of x per chunk, where an algorithm keeps copies of x; and neurons, where it keeps one number for each.
  int64_t state;
};
constexpr ChunkLimits kChunkLimits = {8192, int64_t{1} << 22, int64_t{1} << 21};
inline ChunkLimits chunk_limits = kChunkLimits;  // only tests change it, to see many chunks of small problems

inline int64_t at_least_one(int64_t count) { return std::max<int64_t>(1, count); }
inline int64_t whole_tiles(int64_t rows) { return ceil_div(rows, kTile) * kTile; }
// At most so many, whole tiles where there is one; at least one.
inline int64_t whole_tiles_below(int64_t most) { return most < kTile ? at_least_one(most) : most / kTile * kTile; }

// Sums over a tile leave k numbers for 64 of U, and an attack keeps 2 k for a row: beyond 48 heads there is no room for
// them beside as large a U.
template <class T> int64_t head_groups(const Network<T>& network) {
  constexpr int64_t kHeadsOfGroup = 48;
  return at_least_one(ceil_div(network.heads, kHeadsOfGroup));
}

// The largest chunk that for_each_chunk makes, with which the workspace is laid out.
// `copies_x`: the algorithm keeps copies of x.
template <class T> Chunk largest_chunk(const Network<T>& network, int64_t samples, bool copies_x = false) {
  const int64_t rows = at_least_one(chunk_limits.rows / head_groups(network)), patches = network.patches;
  const int64_t state = copies_x ? chunk_limits.state : std::numeric_limits<int64_t>::max();
  const int64_t by_state = at_least_one(state / at_least_one(patches * network.dim));
  const int64_t most = at_least_one(std::min(rows / patches, by_state));
  if (samples >= most) return {0, std::min<int64_t>(network.networks, 1), 0, most};

  int64_t networks = rows / at_least_one(whole_tiles(samples * patches));
  networks = std::min({networks, by_state / at_least_one(samples), state / at_least_one(network.neurons)});
  return {0, std::min(network.networks, at_least_one(networks)), 0, samples};
}

// Neurons per range, for every chunk of a call.
template <class T> int64_t neurons_per_range(const Network<T>& network, const Chunk& most) {
  const int64_t rows = most.networks * whole_tiles(most.samples * network.patches);
  return std::min(network.neurons, whole_tiles_below(chunk_limits.gated / head_groups(network) / at_least_one(rows)));
}

template <class Visit> int for_each_chunk(int64_t networks, int64_t samples, const Chunk& most, Visit&& visit) {
  for (int64_t network = 0; network < networks; network += most.networks) {
    for (int64_t sample = 0; sample == 0 || sample < samples; sample += at_least_one(most.samples)) {
      BK_TRY(visit(Chunk{network, std::min(most.networks, networks - network), sample,
                         std::min(most.samples, samples - sample)}));
    }
  }
  return cudaSuccess;
}

// Calls visit(first, count) over the neurons; once with (0, 0) when there are none, so that results are still written.
template <class Visit> int for_each_neuron_range(int64_t neurons, int64_t most, Visit&& visit) {
  for (int64_t first = 0; first == 0 || first < neurons; first += at_least_one(most)) {
    BK_TRY(visit(first, std::min(most, neurons - first)));
  }
  return cudaSuccess;
}

// ---- the part of a problem that belongs to a chunk ------------------------------------------------------------------

template <class T> Network<T> part_of(const Network<T>& network, const Chunk& chunk) {
  Network<T> part = network;
  part.networks = chunk.networks;
  part.weight += chunk.network * network.neurons * network.dim;
  part.head += chunk.network * network.heads * network.neurons;
  if (part.bias != nullptr) part.bias += chunk.network * network.neurons;
  if (part.head_bias != nullptr) part.head_bias += chunk.network * network.heads;
  return part;
}

template <class A> Samples<A> part_of(const Samples<A>& samples, const Chunk& chunk, int64_t row_size) {
  Samples<A> part = samples;
  part.x += chunk.network * samples.network_stride + chunk.sample * row_size;
  part.count = chunk.samples;
  return part;
}

// An array of `size` numbers per (network, sample); null stays null.
template <class A> A* rows_of(A* rows, const Chunk& chunk, int64_t samples, int64_t size) {
  return rows == nullptr ? nullptr : rows + (chunk.network * samples + chunk.sample) * size;
}

}  // namespace bk::cuda
