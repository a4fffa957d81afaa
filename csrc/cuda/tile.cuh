// The tiles that every role of the network's contraction is computed in. A block of 256 threads makes 64 × 64 numbers, or
// 128 × 128 where there are enough of them, from panels of 16 terms that pass through shared memory; of each 64 × 64 a
// thread ends with 4 × 4.
#pragma once

#include "launch.cuh"

namespace bk::cuda {

constexpr int kTile = 64;                   // rows and columns of a tile
constexpr int kLargeTile = 2 * kTile;       // the same of four tiles at once
constexpr int kDepth = 16;                  // terms per panel
constexpr int kPerThread = 4;               // rows and columns per thread
constexpr int kLanes = kTile / kPerThread;  // threads along a side of the tile
// Blocks per multiprocessor that registers must leave room for: 128 per thread in float32. Left alone, ptxas aims at
// more blocks and spills.
template <class A, int kSide = kTile>
constexpr int kBlocksPerProcessor = sizeof(A) == sizeof(float) && kSide == kTile ? 2 : 1;
static_assert(kLanes * kLanes == kThreads, "each thread owns 4 × 4 numbers of the tile");
static_assert(kWarp % kLanes == 0, "a row of the tile is reduced by shuffles within a warp");

// Where a block of a product works. Rows and columns are counted in tiles, also those of a large one.
struct Place {
  int split, network, row_tile, column_tile;

  __device__ int64_t row() const { return static_cast<int64_t>(row_tile) * kTile; }
  __device__ int64_t column() const { return static_cast<int64_t>(column_tile) * kTile; }
};

// The numbers of networks, rows and columns are those of the launch. A grid has fewer than 2^31 blocks, and so many of
// each.
template <int kSide> __device__ Place place_of(int64_t networks, int64_t rows, int64_t columns) {
  constexpr int kTiles = kSide / kTile;
  const auto row_tiles = static_cast<unsigned>(ceil_div(rows, kSide));
  const auto column_tiles = static_cast<unsigned>(ceil_div(columns, kSide)), batch = static_cast<unsigned>(networks);
  const unsigned block = blockIdx.x, lines = block / column_tiles, matrices = lines / row_tiles;
  return {static_cast<int>(matrices / batch), static_cast<int>(matrices % batch),
          static_cast<int>(lines % row_tiles) * kTiles, static_cast<int>(block % column_tiles) * kTiles};
}

inline int64_t tiles_of(int64_t networks, int64_t rows, int64_t columns, int side = kTile) {
  return networks * ceil_div(rows, side) * ceil_div(columns, side);
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

constexpr int kQuad = 4, kQuadsOfLine = kDepth / kQuad;

template <class E> struct alignas(kQuad * sizeof(E) < 16 ? kQuad * sizeof(E) : 16) Quad {
  E v[kQuad];
};

// Which quads of neighbouring terms of a panel a thread brings. A warp brings 8 whole lines; neighbours read neighbours.
template <bool kTermsContiguous, int kSide> struct QuadsOfThread {
  static constexpr int kCount = kSide * kQuadsOfLine / kThreads;

  __device__ static int line(int i) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, warp = static_cast<int>(threadIdx.x) / kWarp;
    return warp * kLinesOfWarp + (kTermsContiguous ? lane / kQuadsOfLine : lane % kLinesOfWarp) + i * (kSide / kCount);
  }
  __device__ static int quad() {
    const int lane = static_cast<int>(threadIdx.x) % kWarp;
    return kTermsContiguous ? lane % kQuadsOfLine : lane / kLinesOfWarp;
  }

 private:
  static constexpr int kLinesOfWarp = kWarp / kQuadsOfLine;
};

// Brings as many lines × 16 terms after another to shared memory by way of registers. Beyond the matrix everything is
// zero.
template <class A, class E, bool kTermsContiguous, int kSide> class PanelLoader {
 public:
  __device__ PanelLoader(const Operand<E>& operand, int64_t network, int64_t first_line, int64_t lines)
      : stride_(operand.stride), scale_(operand.scale == nullptr ? A(1) : operand.scale[network]) {
    const E* data = operand.data + network * operand.network_stride;
    read_whole_ =
        kTermsContiguous && stride_ % kQuad == 0 && reinterpret_cast<std::uintptr_t>(data) % alignof(Quad<E>) == 0;
    next_ = data + index(first_line + Mine::line(0), kQuad * Mine::quad());
#pragma unroll
    for (int i = 0; i < Mine::kCount; ++i)
      before_[i] = first_line + Mine::line(i) < lines ? kQuad * Mine::quad() : kDepth;
  }

  __device__ void skip(int64_t terms) { next_ += index(0, terms); }

  // Reads the next panel, of which `terms`, at most kDepth, are left.
  __device__ void fetch(int terms) {
#pragma unroll
    for (int i = 0; i < Mine::kCount; ++i) {
      const E* from = next_ + index(Mine::line(i) - Mine::line(0), 0);
      const int left = terms - before_[i];
      if (read_whole_ && left >= kQuad) {
        staged_[i] = *reinterpret_cast<const Quad<E>*>(from);
      } else {
#pragma unroll
        for (int term = 0; term < kQuad; ++term) staged_[i].v[term] = left > term ? from[index(0, term)] : E{};
      }
    }
    skip(kDepth);
  }
  template <class Panel> __device__ void store(Panel& panel) const {
#pragma unroll
    for (int i = 0; i < Mine::kCount; ++i) {
      Quad<A> quad;
#pragma unroll
      for (int term = 0; term < kQuad; ++term) quad.v[term] = widen(staged_[i].v[term]) * scale_;
      panel.put(Mine::line(i), Mine::quad(), quad);
    }
  }

 private:
  using Mine = QuadsOfThread<kTermsContiguous, kSide>;

  __device__ int64_t index(int64_t line, int64_t term) const {
    return kTermsContiguous ? line * stride_ + term : term * stride_ + line;
  }

  const E* next_;  // the first number of the thread's first quad
  int64_t stride_;
  A scale_;
  bool read_whole_;           // a quad at once; splits begin at whole panels
  int before_[Mine::kCount];  // terms of the panel before the quad; all of them where its line is none of the matrix
  Quad<E> staged_[Mine::kCount];
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
