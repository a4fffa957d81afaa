// Operands' scales (tile.cuh) where a library makes the product, which knows nothing of them.
#pragma once

#include "tile.cuh"

namespace bk::cuda {

// numbers (networks, size) *= scale (networks), a power of two each.
template <class A>
int scale_networks(A* numbers, int64_t networks, int64_t size, int64_t network_stride, const A* scale,
                   cudaStream_t stream);

// out (networks, count, terms) = scaled terms first … first + terms − 1 of `count` lines of contiguous terms.
template <class A>
int copy_scaled(const Operand<A>& lines, int64_t networks, int64_t count, int64_t first, int64_t terms, A* out,
                cudaStream_t stream);

}  // namespace bk::cuda
