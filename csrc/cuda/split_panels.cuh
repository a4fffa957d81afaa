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
// A warp's share of a tile is 32 × 16 numbers, of a large one 64 × 32: twice the products for each fragment that is read.
// Shared memory: 2 × 2 panels of 3 pieces, 24 KB, of a large tile 48 KB: one is written while the other is read.
#pragma once

#include "fragment.cuh"
#include "precision.h"
#include "tile.cuh"

namespace bk::cuda {

template <class E, Precision kPrecision> constexpr int kPiecesOf = kPrecision == Precision::exact ? 3 : 2;
template <Precision kPrecision> inline constexpr int kPiecesOf<BFloat16, kPrecision> = 1;

template <int kPieces, int kSide> struct SplitPanel {
  alignas(16) WordPair pair[kPieces][kSide][kQuadsOfLine];

  __device__ void put(int line, int quad, Quad<float> value) {
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      WordPair parts;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const std::uint32_t word = narrow(value.v[2 * half], value.v[2 * half + 1]);
        value.v[2 * half] -= widen(BFloat16{static_cast<std::uint16_t>(word)});
        value.v[2 * half + 1] -= widen(BFloat16{static_cast<std::uint16_t>(word >> 16)});
        parts.word[half] = word;
      }
      pair[piece][line][place_of_quad(line, quad)] = parts;
    }
  }
};

template <int kLeftPieces, int kRightPieces, int kTileSide> class SplitSums {
 public:
  using Number = float;
  static constexpr int kSide = kTileSide;

  struct Panels {
    SplitPanel<kLeftPieces, kSide> left;
    SplitPanel<kRightPieces, kSide> right;
  };
  // 64 × 64 numbers on their way from fragments to each thread's 4 × 4.
  struct Staged {
    float v[kTile][kTile + kPerThread];
  };

  // Of so many rows; beyond them nothing is summed.
  __device__ explicit SplitSums(int64_t rows)
      : row_blocks_(rows < kSide ? static_cast<int>(ceil_div(rows - row(0), LeftFragment::kLines)) : kRowBlocks) {
    clear(outer_);
    clear(inner_);
  }

  __device__ void add_product(const Panels& panels) {
    RightFragment right[kRightPieces][kColumnBlocks];
#pragma unroll
    for (int piece = 0; piece < kRightPieces; ++piece) {
#pragma unroll
      for (int j = 0; j < kColumnBlocks; j += 2) {
        RightFragment::load(right[piece] + j, panels.right.pair[piece], column(j));
      }
    }
#pragma unroll
    for (int i = 0; i < kRowBlocks; i += kRowsAtOnce) {
      if (i >= row_blocks_) break;
      LeftFragment left[kLeftPieces][kRowsAtOnce];
#pragma unroll
      for (int piece = 0; piece < kLeftPieces; ++piece) {
#pragma unroll
        for (int next = 0; next < kRowsAtOnce; ++next) left[piece][next].load(panels.left.pair[piece], row(i + next));
      }
      Sums<kRowsAtOnce> products;
#pragma unroll
      for (int order = kPieces - 1; order >= 0; --order) {
#pragma unroll
        for (int piece = 0; piece < kRightPieces && piece <= order; ++piece) {
          if (order - piece >= kLeftPieces) continue;
          if (order == kPieces - 1 && piece == kFirstPiece) {
            multiply_fragments<false>(products.v, left[order - piece], right[piece]);
          } else {
            multiply_fragments<true>(products.v, left[order - piece], right[piece]);
          }
        }
      }
      add(inner_, i, products);
    }
  }
  __device__ void close_sum() {
    add(outer_, 0, inner_);
    clear(inner_);
  }
  // The tile in this row and column of tiles.
  __device__ void write(int tile_row_of_side, int tile_column_of_side, Staged& staged, Tile<float>& tile) const {
    const int first_row = tile_row_of_side * kTile, first_column = tile_column_of_side * kTile;
    if (row(0) / kTile == tile_row_of_side && column(0) / kTile == tile_column_of_side) {
#pragma unroll
      for (int i = 0; i < kRowBlocks; ++i) {
#pragma unroll
        for (int j = 0; j < kColumnBlocks; ++j) {
          outer_.v[i][j].store(staged.v, row(i) - first_row, column(j) - first_column);
        }
      }
    }
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
      for (int j = 0; j < kPerThread; ++j) tile.v[i][j] = staged.v[tile_row() + i][tile_column() + j];
    }
  }

 private:
  static constexpr int kPieces = kLeftPieces > kRightPieces ? kLeftPieces : kRightPieces;
  static constexpr int kFirstPiece = kPieces - kLeftPieces;  // of the right operand, in the first product
  static constexpr int kRowBlocks = kSide / 32, kColumnBlocks = kSide / 32;
  static constexpr int kRowsAtOnce = kSide == kTile ? kRowBlocks : 1;  // as many as there are registers for
  static constexpr int kWarpRows = kRowBlocks * LeftFragment::kLines,
                       kWarpColumns = kColumnBlocks * RightFragment::kLines;
  static constexpr int kWarpsAcross = kSide / kWarpColumns;
  static_assert(kWarpRows * kWarpColumns * (kThreads / kWarp) == kSide * kSide, "the warps cover the tile");
  static_assert(kTile % kWarpRows == 0 && kTile % kWarpColumns == 0, "a warp's share lies in one tile");
  static_assert(LeftFragment::kTerms == kDepth, "a fragment is as deep as a panel");

  template <int kRows> struct Sums {
    SumFragment v[kRows][kColumnBlocks];
  };

  int row_blocks_;  // of the warp's that have rows
  Sums<kRowBlocks> outer_, inner_;

  __device__ static int row(int i) {
    return static_cast<int>(threadIdx.x) / kWarp / kWarpsAcross * kWarpRows + i * LeftFragment::kLines;
  }
  __device__ static int column(int j) {
    return static_cast<int>(threadIdx.x) / kWarp % kWarpsAcross * kWarpColumns + j * RightFragment::kLines;
  }
  template <int kRows> __device__ static void clear(Sums<kRows>& sums) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int j = 0; j < kColumnBlocks; ++j) sums.v[i][j] = SumFragment{};
    }
  }
  // To the rows from `first` on.
  template <int kRows> __device__ static void add(Sums<kRowBlocks>& sums, int first, const Sums<kRows>& others) {
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int j = 0; j < kColumnBlocks; ++j) {
#pragma unroll
        for (int r = 0; r < SumFragment::kNumbers; ++r) sums.v[first + i][j].v[r] += others.v[i][j].v[r];
      }
    }
  }
};

}  // namespace bk::cuda
