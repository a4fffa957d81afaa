// The host runtime itself: right kernels run, and each way of being wrong that block.h lists is caught.
#include <sys/wait.h>
#include <unistd.h>

#include "../cuda/engine.h"
#include "../cuda/fragment.cuh"
#include "../cuda/launch.cuh"
#include "check.h"

namespace bk::test {
namespace {

using cuda::kFullWarp;

struct Numbers {
  int v[64];
};

// A block of 64 reverses its numbers through shared memory.
__global__ void reverse_kernel(int* numbers, bool with_barrier) {
  BK_SHARED(Numbers, shared);
  shared.v[threadIdx.x] = numbers[threadIdx.x];
  if (with_barrier) __syncthreads();
  numbers[threadIdx.x] = shared.v[63 - threadIdx.x];
}

__global__ void shuffle_kernel(int* out) {
  const int lane = static_cast<int>(threadIdx.x);
  out[lane] = __shfl_xor_sync(kFullWarp, lane, 5);
  out[32 + lane] = __shfl_sync(kFullWarp, lane, 3, 8);
  out[64 + lane] = __shfl_down_sync(kFullWarp, lane, 2, 16);
  out[96 + lane] = __shfl_up_sync(kFullWarp, lane, 4);
  out[128 + lane] = static_cast<int>(__ballot_sync(kFullWarp, lane % 3 == 0));
  if (lane < 16) out[160 + lane] = __shfl_sync(0xffffu, lane, lane / 2);
}

// How many threads add, and where the first bit of each one's number is.
__global__ void add_kernel(int* sum, int* places) {
  atomicAdd(sum, 2);
  places[threadIdx.x] = __ffs(threadIdx.x);
}

__global__ void index_kernel(int* out) {
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  out[block * blockDim.x * blockDim.y * blockDim.z + thread] += 1;
}

__global__ void dynamic_kernel(int* out) {
  int* shared = static_cast<int*>(simt::dynamic_shared());
  shared[threadIdx.x] = static_cast<int>(threadIdx.x);
  __syncthreads();
  out[threadIdx.x] = shared[threadIdx.x ^ 1];
}

// A (16, 16) times B (16, 16)ᵀ added to C (16, 16), each from rows of 16 terms, whose quads lie as a panel's.
struct alignas(16) Lines {
  cuda::WordPair pair[16][4];
};
__global__ void fragment_kernel(const Lines* left, const Lines* right, float (*sums)[16]) {
  cuda::LeftFragment a[1];
  cuda::RightFragment b[2];
  cuda::SumFragment c[1][2] = {{{{1, 1, 1, 1}}, {{1, 1, 1, 1}}}};
  a[0].load(left->pair, 0);
  cuda::RightFragment::load(b, right->pair, 0);
  cuda::multiply_fragments<true>(c, a, b);
  c[0][0].store(sums, 0, 0);
  c[0][1].store(sums, 0, 8);
}
__global__ void fragment_of_half_a_warp(const Lines* left, const Lines* right, float (*sums)[16]) {
  if (threadIdx.x < 16) fragment_kernel(left, right, sums);
  __syncthreads();
}

__global__ void rows_off_by_a_word(const Lines* lines, float (*sums)[16]) {
  std::uint32_t word[4];
  cuda::load_matrices(word, lines->pair[threadIdx.x % 15][0].word + 1);
  sums[0][0] = static_cast<float>(word[0]);
}

// ---- wrong kernels --------------------------------------------------------------------------------------------------

__global__ void returns_before_barrier() {
  if (threadIdx.x == 3) return;
  __syncthreads();
}
__global__ void waits_at_two_barriers() {
  if (threadIdx.x < 32) {
    __syncthreads();
  } else {
    __syncthreads();
  }
}
__global__ void mask_lacks_caller() { __shfl_xor_sync(0xfffeu, 1, 0); }
__global__ void lane_never_arrives() {
  if (threadIdx.x % 32 != 7) __shfl_xor_sync(kFullWarp, 1, 1);
  __syncthreads();
}
__global__ void lane_has_returned() {
  if (threadIdx.x % 32 != 0) return;
  __syncwarp();
}
__global__ void source_outside_mask() {
  if (threadIdx.x < 16) __shfl_xor_sync(0xffffu, 1, 16);
}
int sum_down_to_zero(int depth) {
  volatile int local[256] = {depth};
  return depth == 0 ? 0 : local[0] + sum_down_to_zero(depth - 1);
}
__global__ void fills_its_stack(int* out) { out[0] = sum_down_to_zero(1000); }
__global__ void masks_disagree() { __shfl_xor_sync(threadIdx.x < 16 ? kFullWarp : 0xffff0000u, 1, 1); }

template <class... Arguments> cudaError_t run(void (*kernel)(Arguments...), int threads, Arguments... arguments) {
  return simt::launch(kernel, dim3(1), dim3(static_cast<unsigned>(threads)), 0, arguments...);
}

void expect_failure(const char* what, void (*kernel)(), const char* message) {
  for (const simt::Order order : {simt::Order{simt::Order::forward, 0}, simt::Order{simt::Order::reverse, 0}}) {
    simt::set_order(order);
    expect(run(kernel, 64) == cudaErrorLaunchFailure, std::string(what) + " went unseen");
    const bool told = simt::last_failure().find(message) != std::string::npos;
    expect(told, std::string(what) + " was told as: " + simt::last_failure());
  }
  simt::set_order({});
}

// True when `action` ends its process: what the sanitizers do.
template <class Action> bool dies(Action action) {
  const pid_t child = fork();
  if (child == 0) {
    if (std::freopen("/dev/null", "w", stderr) == nullptr) _exit(0);
    action();
    _exit(0);
  }
  int status = 0;
  waitpid(child, &status, 0);
  return status != 0;
}

void check_right_kernels() {
  std::vector<int> numbers(64);
  for (int i = 0; i < 64; ++i) numbers[i] = i;
  expect(run(reverse_kernel, 64, numbers.data(), true) == cudaSuccess, "launch");
  for (int i = 0; i < 64; ++i) expect(numbers[i] == 63 - i, "reversal through shared memory");

  std::vector<int> out(176);
  expect(run(shuffle_kernel, 32, out.data()) == cudaSuccess, "launch");
  for (int lane = 0; lane < 32; ++lane) {
    expect(out[lane] == (lane ^ 5), "__shfl_xor_sync");
    expect(out[32 + lane] == lane / 8 * 8 + 3, "__shfl_sync");
    expect(out[64 + lane] == (lane % 16 + 2 < 16 ? lane + 2 : lane), "__shfl_down_sync");
    expect(out[96 + lane] == (lane >= 4 ? lane - 4 : lane), "__shfl_up_sync");
    expect(static_cast<unsigned>(out[128 + lane]) == 0x49249249u, "__ballot_sync");
    if (lane < 16) expect(out[160 + lane] == lane / 2, "a shuffle in half a warp");
  }

  std::vector<int> sum(1), places(64);
  expect(run(add_kernel, 64, sum.data(), places.data()) == cudaSuccess && sum[0] == 128, "atomicAdd");
  expect(places[0] == 0 && places[1] == 1 && places[6] == 2 && places[32] == 6, "__ffs");

  std::vector<int> counts(2 * 3 * 2 * 4 * 2 * 3, 0);
  expect(simt::launch(index_kernel, dim3(2, 3, 2), dim3(4, 2, 3), 0, counts.data()) == cudaSuccess, "launch");
  expect(counts == std::vector<int>(counts.size(), 1), "every thread of every block once");

  std::vector<int> swapped(64);
  expect(simt::launch(dynamic_kernel, dim3(1), dim3(64), 64 * sizeof(int), swapped.data()) == cudaSuccess, "launch");
  expect(swapped[0] == 1 && swapped[63] == 62, "dynamic shared memory");
}

void check_fragments() {
  Random random(3);
  Lines left = {}, right = {};
  double a[16][16], b[16][16];
  for (int row = 0; row < 16; ++row) {
    for (int term = 0; term < 16; ++term) {
      const BFloat16 x = stored<BFloat16>(random.normal()), y = stored<BFloat16>(random.normal());
      a[row][term] = widen(x);
      b[row][term] = widen(y);
      const int quad = cuda::place_of_quad(row, term / 4), word = term / 2 % 2, shift = 16 * (term % 2);
      left.pair[row][quad].word[word] |= static_cast<std::uint32_t>(x.bits) << shift;
      right.pair[row][quad].word[word] |= static_cast<std::uint32_t>(y.bits) << shift;
    }
  }
  float sums[16][16];
  const Lines *from = &left, *by = &right;
  expect(run(fragment_kernel, 32, from, by, &sums[0]) == cudaSuccess, "launch");
  for (int row = 0; row < 16; ++row) {
    for (int column = 0; column < 16; ++column) {
      double want = 1;
      for (int term = 0; term < 16; ++term) want += a[row][term] * b[column][term];
      expect(std::fabs(sums[row][column] - want) <= 0x1p-22 * (1 + std::fabs(want)), "a product of fragments");
    }
  }
  expect(run(fragment_of_half_a_warp, 32, from, by, &sums[0]) == cudaErrorLaunchFailure, "half a warp's product");
  expect(run(rows_off_by_a_word, 32, from, &sums[0]) == cudaErrorLaunchFailure, "rows that are not aligned");
  expect(simt::narrow(1 + 0x1p-8f, 1 + 0x3p-8f) == 0x3f823f80, "ties to even, the lower half first");
  expect(simt::narrow(static_cast<float>(INFINITY), 0) == 0x7f80, "infinity as bfloat16");
}

void check_wrong_kernels() {
  expect_failure("a thread that returned", returns_before_barrier, "returned before this barrier");
  expect_failure("two barriers", waits_at_two_barriers, "different barriers");
  expect_failure("a mask without its caller", mask_lacks_caller, "lacks the calling lane");
  expect_failure("a lane that never arrives", lane_never_arrives, "never arrive");
  expect_failure("a lane that has returned", lane_has_returned, "lane");
  expect_failure("a source outside the mask", source_outside_mask, "outside its mask");
  expect_failure("masks that disagree", masks_disagree, "mask");

  std::vector<int> numbers(64, 5);
  run(reverse_kernel, 64, numbers.data(), false);
  expect(numbers[0] == -1, "shared memory is not poisoned");

  expect(dies([] { run(reverse_kernel, 96, std::vector<int>(96).data(), true); }), "shared memory out of bounds");
  expect(dies([] { run(reverse_kernel, 64, std::vector<int>(63).data(), true); }), "global memory out of bounds");
  expect(dies([] {
           std::vector<int> out(64);
           simt::launch(dynamic_kernel, dim3(1), dim3(64), 63 * sizeof(int), out.data());
         }),
         "dynamic shared memory out of bounds");
  expect(dies([] { run(fills_its_stack, 1, std::vector<int>(1).data()); }), "a stack that is too small");
  // A launch that failed leaves nothing behind.
  check_right_kernels();
}

void check_device() {
  expect(cuda::use_device(0) == 0, "the device there is");
  const int error = cuda::use_device(1);
  expect(error != 0, "a device that there is not");
  expect(cuda::error_string(error) == std::string("invalid device ordinal"), "what is wrong with it");
}

}  // namespace
}  // namespace bk::test

int main() {
  bk::test::check_right_kernels();
  bk::test::check_fragments();
  bk::test::check_wrong_kernels();
  bk::test::check_device();
  return bk::test::finish("simt");
}
