// The tiled product that every role of the network's contraction goes through: a block of 256 threads computes a
// 64 × 64 tile, 4 × 4 per thread, over panels of 16 terms staged in shared memory.
//
// Shared memory: 2 panels × 16 × 68 numbers (8.5 KB in float32). Accumulators: 2 × 16 registers, since sums are taken
// in two levels of 256 terms: over d = 10 000 terms that keeps 6× the accuracy of one running sum.
#pragma once

#include "launch.cuh"

namespace bk::cuda {

constexpr int kTile = 64;                   // rows and columns of a tile
constexpr int kDepth = 16;                  // terms per panel
constexpr int kPerThread = 4;               // rows and columns per thread
constexpr int kLanes = kTile / kPerThread;  // threads along a side of the tile
constexpr int kPanelsPerSum = 16;           // panels after which the inner sum is added to the outer one
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
  int64_t stride;  // between lines when the terms of a line are contiguous, else between terms
};

template <class A> struct alignas(16) Quad {
  A v[kPerThread];
};

// One quad more per line than needed: without it all terms of a line would meet in the same bank.
template <class A> struct Panel {
  Quad<A> quad[kDepth][kLanes + 1];
};

template <class A> struct Panels {
  Panel<A> left, right;
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
      staged_[i] = inside ? widen(data_[next_ + i * to_next_number_]) : A(0);
    }
    skip(kDepth);
  }
  __device__ void store(Panel<A>& panel) const {
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      panel.quad[term_of(i)][line_of(i) / kPerThread].v[line_of(i) % kPerThread] = staged_[i];
    }
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
  A staged_[kPerThread];
};

template <class A> __device__ void add_panel_product(const Panels<A>& panels, Tile<A>& sum) {
#pragma unroll
  for (int term = 0; term < kDepth; ++term) {
    const Quad<A> left = panels.left.quad[term][threadIdx.x / kLanes];
    const Quad<A> right = panels.right.quad[term][threadIdx.x % kLanes];
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
      for (int j = 0; j < kPerThread; ++j) sum.v[i][j] += left.v[i] * right.v[j];
    }
  }
}

template <class A> __device__ void clear(Tile<A>& tile) {
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) tile.v[i][j] = A(0);
  }
}

// tile = Σ over terms first … last − 1 of left · right. Ends with a barrier, so that the panels may be used again.
template <class A, class Left, class Right>
__device__ void multiply(Left left, Right right, int64_t first, int64_t last, Panels<A>& panels, Tile<A>& tile) {
  Tile<A> inner;
  clear(tile);
  clear(inner);
  int panels_in_sum = 0;
  left.skip(first);
  right.skip(first);
  int64_t terms = last - first;
  left.fetch(terms);
  right.fetch(terms);
  for (; terms > 0; terms -= kDepth) {
    left.store(panels.left);
    right.store(panels.right);
    __syncthreads();
    left.fetch(terms - kDepth);
    right.fetch(terms - kDepth);
    add_panel_product(panels, inner);
    if (++panels_in_sum == kPanelsPerSum || terms <= kDepth) {
      panels_in_sum = 0;
#pragma unroll
      for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
        for (int j = 0; j < kPerThread; ++j) tile.v[i][j] += inner.v[i][j];
      }
      clear(inner);
    }
    __syncthreads();
  }
}

}  // namespace bk::cuda
