// What a library's products need that it does not do itself: the scales of operands (tile.cuh), and pieces of bfloat16.
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

// pieces (2, rows, terms): x0 = bf16(x) and x1 = bf16(x − x0), of which x is the sum to 2^-17 |x|. Lines of one network, of
// contiguous terms, without a scale.
int write_pieces(const Operand<float>& lines, int64_t rows, int64_t terms, BFloat16* pieces, cudaStream_t stream);

}  // namespace bk::cuda
