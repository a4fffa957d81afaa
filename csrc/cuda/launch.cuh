// How a kernel is launched, and where its memory comes from; the same words under nvcc and in the host emulation.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "../model/network.h"

namespace bk::cuda {

using std::int64_t;

constexpr int kThreads = 256;
constexpr int kWarp = 32;
constexpr unsigned kFullWarp = 0xffffffffu;

#if defined(__CUDACC__)

// A variable shared by the threads of a block.
#define BK_SHARED(Type, name) __shared__ Type name

#else

#define BK_SHARED(Type, name) \
  struct name##_key {};       \
  Type& name = ::bk::simt::shared<Type, name##_key>()

#endif

// Returns from the calling function when `call` failed.
#define BK_TRY(call)                             \
  do {                                           \
    const int bk_error = static_cast<int>(call); \
    if (bk_error != 0) return bk_error;          \
  } while (false)

// Runs `blocks` blocks of kThreads threads; none is fine. All our grids are one-dimensional: a kernel divides its block
// number itself, so that no batch size meets the limit of 65535 on the other two.
template <class... Parameters, class... Arguments>
int launch(void (*kernel)(Parameters...), int64_t blocks, cudaStream_t stream, const Arguments&... arguments) {
  constexpr int64_t kMostBlocks = (int64_t{1} << 31) - 1;
  if (blocks == 0) return cudaSuccess;
  if (blocks < 0 || blocks > kMostBlocks) return cudaErrorInvalidValue;
  const dim3 grid(static_cast<unsigned>(blocks));
#if defined(__CUDACC__)
  kernel<<<grid, kThreads, 0, stream>>>(arguments...);
  return cudaGetLastError();
#else
  (void)stream;
  return simt::launch(kernel, grid, dim3(kThreads), 0, arguments...);
#endif
}

BK_HD constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Hands out pieces of the workspace. Without memory it only counts, so that one function both sizes and lays out.
class Arena {
 public:
  explicit Arena(void* memory) : memory_(static_cast<char*>(memory)) {}

  template <class A> A* take(int64_t count) {
    const std::size_t offset = bytes_;
    bytes_ += (static_cast<std::size_t>(count) * sizeof(A) + kAlignment - 1) / kAlignment * kAlignment;
    return memory_ == nullptr ? nullptr : reinterpret_cast<A*>(memory_ + offset);
  }
  std::size_t bytes() const { return bytes_; }

 private:
  static constexpr std::size_t kAlignment = 256;
  char* memory_;
  std::size_t bytes_ = 0;
};

}  // namespace bk::cuda
