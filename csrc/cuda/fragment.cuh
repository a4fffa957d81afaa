// A warp's share of a small matrix product on tensor cores (mma.m16n8k16, sm_80 on): which lane holds which numbers.
//
// In all three, lane = 4·group + place. A word holds two neighbouring terms, the first in its lower half.
#pragma once

#include "launch.cuh"
#if !defined(__CUDACC__)
#include "../simt/tensor_core.h"
#endif

namespace bk::cuda {

#if defined(__CUDACC__)

// The nearest bfloat16, ties to even: that of `low` in the lower half of the word.
__device__ inline std::uint32_t narrow(float low, float high) {
  std::uint32_t word;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
  return word;
}

// Four matrices of 8 rows of 8 terms: lane 8·i + r brings the address of row r of matrix i, of 16 bytes in shared memory,
// and gets its word `place` of row `group` of each.
__device__ inline void load_matrices(std::uint32_t (&word)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(word[0]), "=r"(word[1]), "=r"(word[2]), "=r"(word[3])
               : "r"(static_cast<std::uint32_t>(__cvta_generic_to_shared(row)))
               : "memory");
}

#else

using simt::narrow;
inline void load_matrices(std::uint32_t (&word)[4], const void* row) { simt::ldmatrix_x4(word, row); }

#endif

__device__ inline int fragment_group() { return static_cast<int>(threadIdx.x) % kWarp / 4; }
__device__ inline int fragment_place() { return static_cast<int>(threadIdx.x) % 4; }

// Two words, of a quad of neighbouring terms; the two pairs of 8 terms are what is read at once. They change places in
// every other four lines: those of 8 lines then lie in all 32 banks.
struct alignas(8) WordPair {
  std::uint32_t word[2];
};
__device__ inline int place_of_quad(int line, int quad) { return quad ^ line / 4 % 2 * 2; }

// 16 rows of 16 terms: lines group and group + 8, words place and place + 4.
struct LeftFragment {
  static constexpr int kLines = 16, kTerms = 16;
  std::uint32_t word[4];

  template <int kQuads> __device__ void load(const WordPair (*lines)[kQuads], int first) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, line = first + lane % 16;
    load_matrices(word, lines[line] + place_of_quad(line, lane / 16 * 2));
  }
};

// 8 columns of 16 terms: line group, words place and place + 4. Loaded by twos.
struct RightFragment {
  static constexpr int kLines = 8;
  std::uint32_t word[2];

  template <int kQuads> __device__ static void load(RightFragment* two, const WordPair (*lines)[kQuads], int first) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, line = first + lane / 16 * 8 + lane % 8;
    std::uint32_t word[4];
    load_matrices(word, lines[line] + place_of_quad(line, lane / 8 % 2 * 2));
    two[0] = {{word[0], word[1]}};
    two[1] = {{word[2], word[3]}};
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

// sum = left · right, or that added to it.
template <bool kAdd>
__device__ void multiply_fragments(SumFragment& sum, const LeftFragment& left, const RightFragment& right) {
  const SumFragment before = kAdd ? sum : SumFragment{};
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%10, %11, %12, %13};"
      : "=f"(sum.v[0]), "=f"(sum.v[1]), "=f"(sum.v[2]), "=f"(sum.v[3])
      : "r"(left.word[0]), "r"(left.word[1]), "r"(left.word[2]), "r"(left.word[3]), "r"(right.word[0]),
        "r"(right.word[1]), "f"(before.v[0]), "f"(before.v[1]), "f"(before.v[2]), "f"(before.v[3]));
}

// sums[i][j] = left[i] · right[j], or that added to them.
template <bool kAdd, int kRows, int kColumns>
__device__ void multiply_fragments(SumFragment (&sums)[kRows][kColumns], const LeftFragment (&left)[kRows],
                                   const RightFragment (&right)[kColumns]) {
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
#pragma unroll
    for (int j = 0; j < kColumns; ++j) multiply_fragments<kAdd>(sums[i][j], left[i], right[j]);
  }
}

#else

template <bool kAdd, int kRows, int kColumns>
void multiply_fragments(SumFragment (&sums)[kRows][kColumns], const LeftFragment (&left)[kRows],
                        const RightFragment (&right)[kColumns]) {
  if (!kAdd) std::memset(sums, 0, sizeof sums);
  simt::mma_m16n8k16(sums[0][0].v, left[0].word, kRows, right[0].word, kColumns);
}

#endif

}  // namespace bk::cuda
