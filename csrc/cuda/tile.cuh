// The tiles that every role of the network's contraction is computed in: a block of 256 threads makes a 64 × 64 tile,
// from panels of 16 terms that pass through shared memory; each thread ends with 4 × 4 of its numbers.
#pragma once

#include "launch.cuh"

namespace bk::cuda {

constexpr int kTile = 64;                   // rows and columns of a tile
constexpr int kDepth = 16;                  // terms per panel
constexpr int kPerThread = 4;               // rows and columns per thread
constexpr int kLanes = kTile / kPerThread;  // threads along a side of the tile
// Blocks per multiprocessor that registers must leave room for: 128 per thread in float32. Left alone, ptxas aims at
// more blocks and spills.
template <class A> constexpr int kBlocksPerProcessor = sizeof(A) == sizeof(float) ? 2 : 1;
static_assert(kLanes * kLanes == kThreads, "each thread owns 4 × 4 numbers of the tile");
static_assert(kWarp % kLanes == 0, "a row of the tile is reduced by shuffles within a warp");

// Where one block of a product works; the numbers of networks and tiles are those of the launch.
struct Place {
  int64_t split, network, row, column;
};

__device__ inline Place place_of(int64_t block, int64_t networks, int64_t row_tiles, int64_t column_tiles) {
  Place place;
  place.column = block % column_tiles * kTile;
  block /= column_tiles;
  place.row = block % row_tiles * kTile;
  block /= row_tiles;
  place.network = block % networks;
  place.split = block / networks;
  return place;
}

// A matrix in memory, seen as lines (rows of the left operand, columns of the right one) of terms.
template <class E> struct Operand {
  const E* data;
  int64_t network_stride;
  int64_t stride;                     // between lines when the terms of a line are contiguous, else between terms
  const Compute<E>* scale = nullptr;  // (networks): powers of two that the numbers are multiplied by; null: nothing
};

template <class A> struct Tile {
  A v[kPerThread][kPerThread];  // [row][column]
};

// Position of the thread's 4 × 4 numbers in the tile.
__device__ inline int tile_row() { return static_cast<int>(threadIdx.x) / kLanes * kPerThread; }
__device__ inline int tile_column() { return static_cast<int>(threadIdx.x) % kLanes * kPerThread; }

// Brings 64 lines × 16 terms after another to shared memory by way of registers: 4 numbers per thread, neighbours
// reading neighbours. Beyond the matrix everything is zero.
template <class A, class E, bool kTermsContiguous> class PanelLoader {
 public:
  __device__ PanelLoader(const Operand<E>& operand, int64_t network, int64_t first_line, int64_t lines) {
    data_ = operand.data + network * operand.network_stride;
    next_ = kTermsContiguous ? (first_line + line_of(0)) * operand.stride + term_of(0)
                             : term_of(0) * operand.stride + first_line + line_of(0);
    to_next_number_ = operand.stride * (kTermsContiguous ? line_of(1) - line_of(0) : term_of(1) - term_of(0));
    to_next_term_ = kTermsContiguous ? 1 : operand.stride;
    scale_ = operand.scale == nullptr ? A(1) : operand.scale[network];
    lines_inside_ = 0;
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      lines_inside_ |= static_cast<unsigned>(first_line + line_of(i) < lines) << i;
    }
  }

  __device__ void skip(int64_t terms) { next_ += terms * to_next_term_; }

  // Reads the next panel, of which `terms` are left.
  __device__ void fetch(int64_t terms) {
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      const bool inside = (lines_inside_ >> i & 1u) != 0 && term_of(i) < terms;
      staged_[i] = inside ? widen(data_[next_ + i * to_next_number_]) * scale_ : A(0);
    }
    skip(kDepth);
  }
  template <class Panel> __device__ void store(Panel& panel) const {
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) panel.put(line_of(i), term_of(i), staged_[i]);
  }

 private:
  __device__ static int line_of(int i) {
    const int t = static_cast<int>(threadIdx.x);
    return kTermsContiguous ? t / kDepth + i * (kThreads / kDepth) : t % kTile;
  }
  __device__ static int term_of(int i) {
    const int t = static_cast<int>(threadIdx.x);
    return kTermsContiguous ? t % kDepth : t / kTile + i * (kThreads / kTile);
  }

  const E* data_;
  int64_t next_, to_next_number_, to_next_term_;
  unsigned lines_inside_;  // bit i: the line of the thread's number i is one of the matrix
  A scale_;
  A staged_[kPerThread];
};

template <class A> __device__ void clear(Tile<A>& tile) {
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) tile.v[i][j] = A(0);
  }
}

template <class A> __device__ void add(Tile<A>& tile, const Tile<A>& other) {
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) tile.v[i][j] += other.v[i][j];
  }
}

}  // namespace bk::cuda
