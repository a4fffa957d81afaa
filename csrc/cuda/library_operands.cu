#include "library_operands.cuh"

namespace bk::cuda {
namespace {

constexpr int kNumbers = 16;  // per thread

// visit(index) for the thread's numbers of 0 … size − 1; neighbours have neighbours.
template <class Visit> __device__ void for_each_number(int64_t block, int64_t size, Visit visit) {
  const int64_t first = block * kNumbers * kThreads + threadIdx.x;
#pragma unroll 4
  for (int i = 0; i < kNumbers; ++i) {
    if (first + i * kThreads < size) visit(first + i * kThreads);
  }
}

int64_t blocks_of(int64_t size) { return ceil_div(size, kNumbers * kThreads); }

template <class A>
__global__ void __launch_bounds__(kThreads)
    scale_kernel(A* numbers, const int64_t blocks, const int64_t size, const int64_t stride, const A* scales) {
  const int64_t network = blockIdx.x / blocks;
  const A scale = scales[network];
  if (scale == A(1)) return;  // as it nearly always is
  A* mine = numbers + network * stride;
  for_each_number(blockIdx.x % blocks, size, [=](int64_t i) { mine[i] *= scale; });
}

template <class T>
__global__ void __launch_bounds__(kThreads)
    copy_kernel(const Operand<T> lines, const int64_t blocks, const int64_t count, const int64_t first,
                const int64_t terms, T* out) {
  const int64_t network = blockIdx.x / blocks;
  const T scale = lines.scale == nullptr ? T(1) : lines.scale[network];
  const T* from = lines.data + network * lines.network_stride + first;
  T* to = out + network * count * terms;
  for_each_number(blockIdx.x % blocks, count * terms,
                  [=](int64_t i) { to[i] = scale * from[i / terms * lines.stride + i % terms]; });
}

}  // namespace

template <class A>
int scale_networks(A* numbers, int64_t networks, int64_t size, int64_t network_stride, const A* scale,
                   cudaStream_t stream) {
  const int64_t blocks = blocks_of(size);
  return launch(scale_kernel<A>, networks * blocks, stream, numbers, blocks, size, network_stride, scale);
}

template <class T>
int copy_scaled(const Operand<T>& lines, int64_t networks, int64_t count, int64_t first, int64_t terms, T* out,
                cudaStream_t stream) {
  const int64_t blocks = blocks_of(count * terms);
  return launch(copy_kernel<T>, networks * blocks, stream, lines, blocks, count, first, terms, out);
}

template int scale_networks(float*, int64_t, int64_t, int64_t, const float*, cudaStream_t);
template int scale_networks(double*, int64_t, int64_t, int64_t, const double*, cudaStream_t);
template int copy_scaled(const Operand<float>&, int64_t, int64_t, int64_t, int64_t, float*, cudaStream_t);
template int copy_scaled(const Operand<double>&, int64_t, int64_t, int64_t, int64_t, double*, cudaStream_t);

}  // namespace bk::cuda
