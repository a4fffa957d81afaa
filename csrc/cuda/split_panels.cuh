// Products of float panels on tensor cores: each number is a sum of bfloat16,
//
//   x = x0 + x1 + x2,  x0 = bf16(x), x1 = bf16(x − x0), x2 = bf16(x − x0 − x1),   exact to 2^-25 |x|,
//
// and a product of two is the six products x_i y_j with i + j ≤ 2, the smallest first; what is left out is below
// 2^-24 |x y|: float's own accuracy. Where tf32 is allowed two pieces do, each number exact to 2^-17 |x|, and three
// products; what is left out is below 2^-16 |x y|. A number that is stored as bfloat16 is its own x0.
//
// Three products of bfloat16 and not one of tf32: they are a template parameter of what is here, 30 times as accurate,
// and take 1.5 times as long on tensor cores, which wait for shared memory either way (bench/predictions.md).
//
// Tensor cores add up with less care than an addition does, so what they sum is one panel of 16 terms: all longer sums
// are plain additions.
//
// Shared memory: 2 panels × 3 pieces × 64 × 12 words (18 KB). A warp's share of the tile is 32 × 16.
#pragma once

#include "fragment.cuh"
#include "precision.h"
#include "tile.cuh"

namespace bk::cuda {

template <class E, Precision kPrecision> constexpr int kPiecesOf = kPrecision == Precision::exact ? 3 : 2;
template <Precision kPrecision> inline constexpr int kPiecesOf<BFloat16, kPrecision> = 1;

// Lines of 16 terms, two to a word. In each 8 lines the words of a half line are turned by a place, so that the words
// that a warp reads at once, of 8 lines, and those it writes, of 4 lines or 32, lie in 32 different banks.
template <int kCount> struct SplitPanel {
  static constexpr int kWords = 12;  // 8, and 4 that are not used
  std::uint32_t word[kCount][kTile][kWords];

  __device__ void put(int line, int term, float value, float of_next_term) {
#pragma unroll
    for (int piece = 0; piece < kCount; ++piece) {
      const std::uint32_t parts = narrow(value, of_next_term);
      word[piece][line][term / 2 ^ turned(line)] = parts;
      value -= widen(BFloat16{static_cast<std::uint16_t>(parts)});
      of_next_term -= widen(BFloat16{static_cast<std::uint16_t>(parts >> 16)});
    }
  }
};

// The 64 × 64 numbers on their way from fragments to each thread's 4 × 4.
struct StagedTile {
  float v[kTile][kTile + kPerThread];
};

template <int kLeftPieces, int kRightPieces> class SplitPanels {
 public:
  __device__ SplitPanel<kLeftPieces>& left() { return memory_.panels.left; }
  __device__ SplitPanel<kRightPieces>& right() { return memory_.panels.right; }
  __device__ StagedTile& staged() { return memory_.staged; }

 private:
  union {
    struct {
      SplitPanel<kLeftPieces> left;
      SplitPanel<kRightPieces> right;
    } panels;
    StagedTile staged;
  } memory_;
};

template <int kLeftPieces, int kRightPieces> class SplitSums {
 public:
  using Panels = SplitPanels<kLeftPieces, kRightPieces>;

  __device__ SplitSums() {
    clear(outer_);
    clear(inner_);
  }

  __device__ void add_product(Panels& panels) {
    LeftFragment left[kLeftPieces][kRowBlocks];
    RightFragment right[kRightPieces][kColumnBlocks];
#pragma unroll
    for (int piece = 0; piece < kLeftPieces; ++piece) {
#pragma unroll
      for (int i = 0; i < kRowBlocks; ++i) left[piece][i].load(panels.left().word[piece], row(i));
    }
#pragma unroll
    for (int piece = 0; piece < kRightPieces; ++piece) {
#pragma unroll
      for (int j = 0; j < kColumnBlocks; ++j) right[piece][j].load(panels.right().word[piece], column(j));
    }
    Sums products;
    clear(products);
#pragma unroll
    for (int order = kPieces - 1; order >= 0; --order) {
#pragma unroll
      for (int piece = 0; piece < kRightPieces && piece <= order; ++piece) {
        if (order - piece < kLeftPieces) multiply_add(products.v, left[order - piece], right[piece]);
      }
    }
    add(inner_, products);
  }
  __device__ void close_sum() {
    add(outer_, inner_);
    clear(inner_);
  }
  // After a barrier: the panels are overwritten.
  __device__ void write(Panels& panels, Tile<float>& tile) const {
#pragma unroll
    for (int i = 0; i < kRowBlocks; ++i) {
#pragma unroll
      for (int j = 0; j < kColumnBlocks; ++j) outer_.v[i][j].store(panels.staged().v, row(i), column(j));
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
      for (int j = 0; j < kPerThread; ++j) tile.v[i][j] = panels.staged().v[tile_row() + i][tile_column() + j];
    }
  }

 private:
  static constexpr int kPieces = kLeftPieces > kRightPieces ? kLeftPieces : kRightPieces;
  static constexpr int kRowBlocks = 2, kColumnBlocks = 2;
  static constexpr int kWarpRows = kRowBlocks * LeftFragment::kLines,
                       kWarpColumns = kColumnBlocks * RightFragment::kLines;
  static constexpr int kWarpsAcross = kTile / kWarpColumns;
  static_assert(kWarpRows * kWarpColumns * (kThreads / kWarp) == kTile * kTile, "the warps cover the tile");
  static_assert(LeftFragment::kTerms == kDepth, "a fragment is as deep as a panel");

  struct Sums {
    SumFragment v[kRowBlocks][kColumnBlocks];
  };

  Sums outer_, inner_;

  __device__ static int row(int i) {
    return static_cast<int>(threadIdx.x) / kWarp / kWarpsAcross * kWarpRows + i * LeftFragment::kLines;
  }
  __device__ static int column(int j) {
    return static_cast<int>(threadIdx.x) / kWarp % kWarpsAcross * kWarpColumns + j * RightFragment::kLines;
  }
  __device__ static void clear(Sums& sums) {
#pragma unroll
    for (int i = 0; i < kRowBlocks; ++i) {
#pragma unroll
      for (int j = 0; j < kColumnBlocks; ++j) sums.v[i][j] = SumFragment{};
    }
  }
  __device__ static void add(Sums& sums, const Sums& other) {
#pragma unroll
    for (int i = 0; i < kRowBlocks; ++i) {
#pragma unroll
      for (int j = 0; j < kColumnBlocks; ++j) {
#pragma unroll
        for (int r = 0; r < SumFragment::kNumbers; ++r) sums.v[i][j].v[r] += other.v[i][j].v[r];
      }
    }
  }
};

}  // namespace bk::cuda
