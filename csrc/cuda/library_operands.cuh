// What a library's products need that it does not do itself: the scales of operands (tile.cuh).
#pragma once

#include "tile.cuh"

namespace bk::cuda {

// numbers (networks, size) *= scale (networks), a power of two each.
template <class A>
int scale_networks(A* numbers, int64_t networks, int64_t size, int64_t network_stride, const A* scale,
                   cudaStream_t stream);

// out (networks, count, terms) = scaled terms first … first + terms − 1 of `count` lines of contiguous terms.
template <class T>
int copy_scaled(const Operand<T>& lines, int64_t networks, int64_t count, int64_t first, int64_t terms, T* out,
                cudaStream_t stream);

}  // namespace bk::cuda
