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

// Two neighbouring terms of a line.
template <class E> struct alignas(2 * sizeof(E)) Pair {
  E v[2];
};

// Brings 64 lines × 16 terms after another to shared memory by way of registers: two pairs of terms per thread,
// neighbours reading neighbours. Beyond the matrix everything is zero.
template <class A, class E, bool kTermsContiguous> class PanelLoader {
 public:
  __device__ PanelLoader(const Operand<E>& operand, int64_t network, int64_t first_line, int64_t lines) {
    data_ = operand.data + network * operand.network_stride;
    to_next_term_ = kTermsContiguous ? 1 : operand.stride;
    to_next_pair_ = operand.stride * (kTermsContiguous ? line_of(1) - line_of(0) : term_of(1) - term_of(0));
    next_ = (first_line + line_of(0)) * (kTermsContiguous ? operand.stride : 1) + term_of(0) * to_next_term_;
    scale_ = operand.scale == nullptr ? A(1) : operand.scale[network];
    read_whole_ =
        kTermsContiguous && operand.stride % 2 == 0 && reinterpret_cast<std::uintptr_t>(data_) % sizeof(Pair<E>) == 0;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) inside_[i] = first_line + line_of(i) < lines;
  }

  __device__ void skip(int64_t terms) { next_ += terms * to_next_term_; }

  // Reads the next panel, of which `terms` are left.
  __device__ void fetch(int64_t terms) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const int64_t at = next_ + i * to_next_pair_;
      const int64_t left = inside_[i] ? terms - term_of(i) : 0;
      if (read_whole_ && left >= 2) {
        staged_[i] = *reinterpret_cast<const Pair<E>*>(data_ + at);
      } else {
        staged_[i].v[0] = left >= 1 ? data_[at] : E{};
        staged_[i].v[1] = left >= 2 ? data_[at + to_next_term_] : E{};
      }
    }
    skip(kDepth);
  }
  template <class Panel> __device__ void store(Panel& panel) const {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      panel.put(line_of(i), term_of(i), widen(staged_[i].v[0]) * scale_, widen(staged_[i].v[1]) * scale_);
    }
  }

 private:
  static constexpr int kPairs = kTile * kDepth / kThreads / 2, kPairsOfLine = kDepth / 2;
  static_assert(kPairs == 2, "a thread brings two pairs");

  // Of contiguous terms a warp brings all 8 pairs of every other one of 8 lines: what it then writes to a SplitPanel
  // lies in 32 different banks. Of contiguous lines it brings one pair of 32.
  __device__ static int line_of(int i) {
    const int t = static_cast<int>(threadIdx.x), warp = t / kWarp;
    return kTermsContiguous ? warp / 2 * 8 + t % kWarp / kPairsOfLine * 2 + warp % 2 + i * (kTile / kPairs) : t % kTile;
  }
  __device__ static int term_of(int i) {
    const int t = static_cast<int>(threadIdx.x);
    return 2 * (kTermsContiguous ? t % kPairsOfLine : t / kTile + i * (kPairsOfLine / kPairs));
  }

  const E* data_;
  int64_t next_, to_next_term_, to_next_pair_;
  A scale_;
  bool read_whole_;      // both terms of a pair at once; splits begin at whole panels
  bool inside_[kPairs];  // the pair's line is one of the matrix
  Pair<E> staged_[kPairs];
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
