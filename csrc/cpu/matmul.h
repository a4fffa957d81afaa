// Products of whole matrices, at the speed of the panel kernels: what the gram walk begins and ends with.
#pragma once

#include "packed_columns.h"
#include "simd.h"
#include "workspace.h"

namespace bk::cpu::BK_SIMD_LEVEL {

// Rows that products are stored in are padded with zeros to a multiple of this, whatever the SIMD level.
constexpr std::int64_t kPadding = 16;
BK_HD std::int64_t padded(std::int64_t columns) { return (columns + kPadding - 1) / kPadding * kPadding; }

// C (rows, columns) = or += a (rows, depth) · B. Row i of a begins at a + i·a_stride, and so on.
// Each element is a chain of multiply-adds in blocks of depth, or a sum on tiles: its bits depend on no other row or
// column, but for tiles on how many there are.
template <class A> struct Matmul {
  const A* a;
  std::int64_t a_stride;
  std::int64_t rows, depth;
  const A* b;
  std::int64_t b_stride;
  bool transposed;  // b is Bᵀ (columns, depth); else B (depth, columns)
  std::int64_t columns;
  A* c;  // columns beyond `columns`, up to padded(columns), become zero
  std::int64_t c_stride;
  bool accumulate = false;
  const PackedColumns* packed = nullptr;  // of b, from pack_once()
  bool lower = false;  // C is square, and only what is on and below its diagonal is needed: half the work
};
template <class A> void matmul(const Matmul<A>& task, const Parallel& run);
// The same without tiles.
template <class A> void vector_matmul(const Matmul<A>& task, const Parallel& run);

// B (depth, columns), its rows `stride` apart, packed once for several products; empty where matmul() does not pack.
template <class A>
PackedColumns pack_once(const A* b, std::int64_t stride, std::int64_t depth, std::int64_t columns, const Parallel& run);

// A product with B = wᵀ, transposed and not accumulated, and G (columns, padded(columns)) = w wᵀ, half the work of a
// product: w is packed for both at once.
template <class A> void matmul_and_gram(const Matmul<A>& task, A* G, const Parallel& run);

// What is above the diagonal of G (size, padded(size)) from what is below it, and zeros beyond the columns.
template <class A> void mirror_lower(A* G, std::int64_t size, const Parallel& run);

// G alone, w (rows, depth).
template <class A>
void gram_matrix(const A* w, std::int64_t stride, std::int64_t rows, std::int64_t depth, A* G, const Parallel& run);

}  // namespace bk::cpu::BK_SIMD_LEVEL
