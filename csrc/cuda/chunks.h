// How a problem is cut so that the workspace stays bounded: runs of samples (over several networks when they are
// small), and within a run, ranges of neurons. Host only; depends on shapes alone, so that results repeat bit for bit.
#pragma once

#include <algorithm>
#include <cstdint>

#include "engine.h"
#include "launch.cuh"
#include "tile.cuh"

namespace bk::cuda {

// Whole networks, or a range of one network's samples: contiguous rows of every (networks, n, …) array either way.
struct Chunk {
  int64_t network, networks;
  int64_t sample, samples;
};

// The matrix U of a chunk has at most this many numbers: 16 MB in float32, so that it stays in the second-level cache
// between the product that writes it and the one that reads it. A sample with more patches than that sets its own.
constexpr int64_t kGatedElements = int64_t{1} << 22;
// Rows of U per chunk: enough tiles to occupy the device, few enough to leave room for 512 neurons.
constexpr int64_t kChunkRows = 8192;
// Numbers of x per chunk, where an algorithm keeps copies of x.
constexpr int64_t kStateElements = int64_t{1} << 21;

constexpr int64_t kUnlimited = std::int64_t{1} << 62;

// Samples per chunk. `state` bounds the numbers of x.
template <class T> int64_t samples_per_chunk(const Network<T>& network, int64_t state = kUnlimited) {
  // Per-tile sums cost k numbers per row and 64 neurons: many heads mean fewer rows.
  const int64_t rows = kChunkRows / std::max<int64_t>(1, network.heads / kTile);
  const int64_t by_rows = rows / network.patches;
  const int64_t by_state = state / std::max<int64_t>(1, network.patches * network.dim);
  return std::max<int64_t>(1, std::min(by_rows, by_state));
}

inline int64_t neurons_per_chunk(int64_t rows, int64_t neurons) {
  const int64_t most = std::max<int64_t>(1, kGatedElements / std::max<int64_t>(1, rows));
  return std::min(neurons, most < kTile ? most : most / kTile * kTile);
}

// The largest chunk that for_each_chunk makes, with which the workspace is laid out.
inline Chunk largest_chunk(int64_t networks, int64_t samples, int64_t limit) {
  if (samples >= limit) return {0, std::min<int64_t>(networks, 1), 0, limit};
  return {0, std::min(networks, limit / std::max<int64_t>(1, samples)), 0, samples};
}

template <class Visit> int for_each_chunk(int64_t networks, int64_t samples, int64_t limit, Visit&& visit) {
  const Chunk most = largest_chunk(networks, samples, limit);
  for (int64_t network = 0; network < networks; network += most.networks) {
    for (int64_t sample = 0; sample == 0 || sample < samples; sample += std::max<int64_t>(1, most.samples)) {
      BK_TRY(visit(Chunk{network, std::min(most.networks, networks - network), sample,
                         std::min(most.samples, samples - sample)}));
    }
  }
  return cudaSuccess;
}

// Calls visit(first, count) over the neurons; once with (0, 0) when there are none, so that results are still written.
template <class Visit> int for_each_neuron_range(int64_t neurons, int64_t most, Visit&& visit) {
  for (int64_t first = 0; first == 0 || first < neurons; first += std::max<int64_t>(1, most)) {
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
