// A warp's share of a small matrix product on tensor cores (mma.m16n8k16, sm_80 on): which lane holds which numbers.
//
// In all three, lane = 4·group + place. A word holds two neighbouring terms, the first in its lower half.
#pragma once

#include "launch.cuh"
#if !defined(__CUDACC__)
#include "../simt/tensor_core.h"
#endif

namespace bk::cuda {

__device__ inline int fragment_group() { return static_cast<int>(threadIdx.x) % kWarp / 4; }
__device__ inline int fragment_place() { return static_cast<int>(threadIdx.x) % 4; }

// Words of a line are kept in another order in every eighth line: word w at w ^ turned(line).
__device__ inline int turned(int line) { return line / 8 % 4; }

// 16 rows of 16 terms: lines group and group + 8, words place and place + 4.
struct LeftFragment {
  static constexpr int kLines = 16, kTerms = 16;
  std::uint32_t word[4];

  template <int kWords> __device__ void load(const std::uint32_t (*lines)[kWords], int first) {
    const int line = first + fragment_group(), place = fragment_place() ^ turned(first);
    const int place_below = fragment_place() ^ turned(first + 8);
    word[0] = lines[line][place];
    word[1] = lines[line + 8][place_below];
    word[2] = lines[line][place + 4];
    word[3] = lines[line + 8][place_below + 4];
  }
};

// 8 columns of 16 terms: line group, words place and place + 4.
struct RightFragment {
  static constexpr int kLines = 8;
  std::uint32_t word[2];

  template <int kWords> __device__ void load(const std::uint32_t (*lines)[kWords], int first) {
    const int line = first + fragment_group(), place = fragment_place() ^ turned(first);
    word[0] = lines[line][place];
    word[1] = lines[line][place + 4];
  }
};

// 16 × 8 numbers: rows group and group + 8, columns 2·place and 2·place + 1.
struct SumFragment {
  static constexpr int kNumbers = 4;
  float v[kNumbers];

  template <int kColumns> __device__ void store(float (*rows)[kColumns], int row, int column) const {
    const int at = row + fragment_group(), side = column + 2 * fragment_place();
    rows[at][side] = v[0];
    rows[at][side + 1] = v[1];
    rows[at + 8][side] = v[2];
    rows[at + 8][side + 1] = v[3];
  }
};

#if defined(__CUDACC__)

// The nearest bfloat16, ties to even: that of `low` in the lower half of the word.
__device__ inline std::uint32_t narrow(float low, float high) {
  std::uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}

__device__ inline void multiply_add(SumFragment& sum, const LeftFragment& left, const RightFragment& right) {
  asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(sum.v[0]), "+f"(sum.v[1]), "+f"(sum.v[2]), "+f"(sum.v[3])
      : "r"(left.word[0]), "r"(left.word[1]), "r"(left.word[2]), "r"(left.word[3]), "r"(right.word[0]),
        "r"(right.word[1]));
}

// sums[i][j] += left[i] · right[j]
template <int kRows, int kColumns>
__device__ void multiply_add(SumFragment (&sums)[kRows][kColumns], const LeftFragment (&left)[kRows],
                             const RightFragment (&right)[kColumns]) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) multiply_add(sums[i][j], left[i], right[j]);
  }
}

#else

using simt::narrow;

template <int kRows, int kColumns>
void multiply_add(SumFragment (&sums)[kRows][kColumns], const LeftFragment (&left)[kRows],
                  const RightFragment (&right)[kColumns]) {
  simt::mma_m16n8k16(sums[0][0].v, left[0].word, kRows, right[0].word, kColumns);
}

#endif

}  // namespace bk::cuda
