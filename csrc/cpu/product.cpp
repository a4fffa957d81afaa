// One register tile of C: kRows × kVectors accumulators; per step of depth, kVectors loads of B and kRows broadcasts of
// a.
#include "product.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

// Accumulators, one column of B and a broadcast fit the registers: 24 + 4 + 1 of 32, 12 + 2 + 1 of 16. At least eight
// accumulators keep two multiply-add pipes of latency four busy.
constexpr int kMaxVectors = kRegisters == 32 ? 4 : 2;
constexpr int max_rows(int vectors) {
  constexpr int kRows32[] = {12, 12, 8, 6};
  constexpr int kRows16[] = {8, 6};
  return kRegisters == 32 ? kRows32[vectors - 1] : kRows16[vectors - 1];
}

template <class A> struct Operands {
  const A* a;
  std::int64_t stride;
  const A* B;
  std::int64_t B_stride;
  A* C;
  std::int64_t C_stride;
  std::int64_t depth;
  bool accumulate;
};

template <class A, int kRows, int kVectors, bool kTransposed>
void multiply_tile(const Operands<A>& o, std::int64_t row, std::int64_t column) {
  using V = Vec<A>;
  const std::int64_t along_depth = kTransposed ? o.stride : 1;
  const std::int64_t along_rows = kTransposed ? 1 : o.stride;
  const A* a = o.a + row * along_rows;
  const A* B = o.B + column;
  V sum[kRows][kVectors];
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) sum[i][v] = V(0);
  }
  // The next tile of a, a cache line ahead of its use: a is read once, and its rows are too short for the hardware.
  constexpr std::int64_t kLine = 64 / sizeof(A);
  for (std::int64_t begin = 0; begin < o.depth; begin += kLine) {
    const std::int64_t end = begin + kLine < o.depth ? begin + kLine : o.depth;
    if constexpr (!kTransposed) {
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) __builtin_prefetch(a + (kRows + i) * along_rows);
    }
    for (std::int64_t k = begin; k < end; ++k) {
      V b[kVectors];
#pragma GCC unroll 4
      for (int v = 0; v < kVectors; ++v) b[v] = V::load(B + v * V::kLanes);
      if constexpr (kTransposed) __builtin_prefetch(a + kLine);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        const V factor = V::broadcast(a[i * along_rows]);
#pragma GCC unroll 4
        for (int v = 0; v < kVectors; ++v) sum[i][v] += factor * b[v];
      }
      a += along_depth;
      B += o.B_stride;
    }
  }
  A* C = o.C + row * o.C_stride + column;
#pragma GCC unroll 16
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v) {
      A* to = C + i * o.C_stride + v * V::kLanes;
      if (o.accumulate) sum[i][v] += V::load(to);
      sum[i][v].store(to);
    }
  }
}

// Calls the tile of `rows` ≤ kRows rows.
template <class A, int kRows, int kVectors, bool kTransposed>
BK_HD void multiply_rows(const Operands<A>& o, std::int64_t row, std::int64_t rows, std::int64_t column) {
  if constexpr (kRows > 0) {
    if (rows == kRows) return multiply_tile<A, kRows, kVectors, kTransposed>(o, row, column);
    multiply_rows<A, kRows - 1, kVectors, kTransposed>(o, row, rows, column);
  }
}

// `rows` in chunks of nearly equal height: a chunk of one row would leave the pipes half empty.
template <class A, int kVectors, bool kTransposed>
void multiply_columns(const Operands<A>& o, std::int64_t rows, std::int64_t column) {
  constexpr int kRows = max_rows(kVectors);
  const std::int64_t chunks = (rows + kRows - 1) / kRows;
  const std::int64_t height = chunks ? rows / chunks : 0;
  const std::int64_t taller = chunks ? rows % chunks : 0;
  std::int64_t row = 0;
  for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
    const std::int64_t chunk_rows = height + (chunk < taller);
    multiply_rows<A, kRows, kVectors, kTransposed>(o, row, chunk_rows, column);
    row += chunk_rows;
  }
}

template <class A, bool kTransposed>
BK_HD void multiply(const Operands<A>& o, std::int64_t rows, std::int64_t vectors) {
  std::int64_t column = 0;
  while (vectors > 0) {
    const std::int64_t group = vectors < kMaxVectors ? vectors : kMaxVectors;
    switch (group) {
      case 1: multiply_columns<A, 1, kTransposed>(o, rows, column); break;
      case 2: multiply_columns<A, 2, kTransposed>(o, rows, column); break;
      case 3:
        if constexpr (kMaxVectors >= 3) multiply_columns<A, 3, kTransposed>(o, rows, column);
        break;
      default:
        if constexpr (kMaxVectors >= 4) multiply_columns<A, 4, kTransposed>(o, rows, column);
    }
    vectors -= group;
    column += group * Vec<A>::kLanes;
  }
}

}  // namespace

template <class A>
void product(const A* a, std::int64_t stride, std::int64_t rows, std::int64_t depth, const A* B, A* C,
             std::int64_t vectors, bool accumulate) {
  const std::int64_t width = vectors * Vec<A>::kLanes;
  multiply<A, false>({a, stride, B, width, C, width, depth, accumulate}, rows, vectors);
}

template <class A>
void strided_product(const A* a, std::int64_t stride, std::int64_t rows, std::int64_t depth, const A* B,
                     std::int64_t B_stride, A* C, std::int64_t C_stride, std::int64_t vectors, bool accumulate) {
  multiply<A, false>({a, stride, B, B_stride, C, C_stride, depth, accumulate}, rows, vectors);
}

template <class A>
void transposed_product(const A* a, std::int64_t stride, std::int64_t rows, std::int64_t depth, const A* B, A* C,
                        std::int64_t vectors, bool accumulate) {
  const std::int64_t width = vectors * Vec<A>::kLanes;
  multiply<A, true>({a, stride, B, width, C, width, depth, accumulate}, rows, vectors);
}

#define BK_INSTANTIATE(A)                                                                                             \
  template void product<A>(const A*, std::int64_t, std::int64_t, std::int64_t, const A*, A*, std::int64_t, bool);     \
  template void strided_product<A>(const A*, std::int64_t, std::int64_t, std::int64_t, const A*, std::int64_t, A*,    \
                                   std::int64_t, std::int64_t, bool);                                                 \
  template void transposed_product<A>(const A*, std::int64_t, std::int64_t, std::int64_t, const A*, A*, std::int64_t, \
                                      bool);
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)

}  // namespace bk::cpu::BK_SIMD_LEVEL
