// The two small matrix products every kernel is made of. The panel's axis (samples, or dimensions) is the vector axis.
//
// A panel is a row-major array of rows of `vectors` SIMD registers: width = vectors · Vec<A>::kLanes numbers.
#pragma once

#include <cstdint>

#include "simd.h"

namespace bk::cpu::BK_SIMD_LEVEL {

// C (rows, width) = or += a (rows, depth) · B (depth, width). Row i of a begins at a + i·stride.
// Each element of C is a chain of multiply-adds in the order of depth, begun at zero: its bits do not depend on the
// number of rows or vectors, nor on its place among them.
template <class A>
void product(const A* a, std::int64_t stride, std::int64_t rows, std::int64_t depth, const A* B, A* C,
             std::int64_t vectors, bool accumulate);

// The same with rows of B and of C that lie further apart than their width.
template <class A>
void strided_product(const A* a, std::int64_t stride, std::int64_t rows, std::int64_t depth, const A* B,
                     std::int64_t B_stride, A* C, std::int64_t C_stride, std::int64_t vectors, bool accumulate);

// C (rows, width) = or += aᵀ · B (depth, width), a (depth, rows): row k of a begins at a + k·stride.
template <class A>
void transposed_product(const A* a, std::int64_t stride, std::int64_t rows, std::int64_t depth, const A* B, A* C,
                        std::int64_t vectors, bool accumulate);

}  // namespace bk::cpu::BK_SIMD_LEVEL
