// A team of threads works on one row: a warp where rows are short, else the whole block. Sums and maxima over a team
// are taken in a fixed order and reach all its threads.
#pragma once

#include "launch.cuh"

namespace bk::cuda {

// Rows up to this long get a warp each, eight to a block.
constexpr int64_t kShortRow = 1024;

// Blocks per multiprocessor, which leave 85 registers per thread. Left alone, ptxas aims at more blocks and spills.
constexpr int kTeamBlocks = 3;

template <class V> struct TeamValues {
  V v[kThreads / kWarp];
};

template <int kSize> struct Team {
  static_assert(kSize == kWarp || kSize == kThreads, "a team is a warp or a block");
  static constexpr int kPerBlock = kThreads / kSize;

  __device__ int lane() const { return static_cast<int>(threadIdx.x) % kSize; }
  __device__ int64_t row() const { return static_cast<int64_t>(blockIdx.x) * kPerBlock + threadIdx.x / kSize; }

  // Calls visit(i) for the thread's share of 0 … count − 1.
  template <class Visit> __device__ void for_each(int64_t count, Visit visit) const {
#pragma unroll 2
    for (int64_t i = lane(); i < count; i += kSize) visit(i);
  }

  // What one thread of the team has written, the others may read.
  __device__ void sync() const {
    if constexpr (kSize == kWarp) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  }

  // V::merge must be commutative, so that all lanes of a butterfly get the same bits.
  template <class V> __device__ V reduce(V mine) const {
#pragma unroll
    for (int distance = kWarp / 2; distance > 0; distance /= 2) mine.merge(mine.from_lane(distance));
    if constexpr (kSize == kWarp) {
      return mine;
    } else {
      BK_SHARED(TeamValues<V>, warps);
      if (threadIdx.x % kWarp == 0) warps.v[threadIdx.x / kWarp] = mine;
      __syncthreads();
      V total = warps.v[0];
#pragma unroll
      for (int warp = 1; warp < kThreads / kWarp; ++warp) total.merge(warps.v[warp]);
      __syncthreads();  // the next reduction writes there again
      return total;
    }
  }
};

// The same for what is done to a row many times over, which waits for itself and not for memory.
constexpr int64_t kShortWalk = 128;

// Launches one team per row: `warp_kernel` and `block_kernel` are the same kernel for the two sizes of a team.
template <int64_t kShort = kShortRow, class... Parameters, class... Arguments>
int launch_teams(int64_t rows, int64_t length, void (*warp_kernel)(Parameters...), void (*block_kernel)(Parameters...),
                 cudaStream_t stream, const Arguments&... arguments) {
  return length <= kShort ? launch(warp_kernel, ceil_div(rows, Team<kWarp>::kPerBlock), stream, arguments...)
                          : launch(block_kernel, rows, stream, arguments...);
}

// ---- what is reduced ------------------------------------------------------------------------------------------------

template <class A> struct Largest {
  A value;
  __device__ void merge(const Largest& other) { value = other.value > value ? other.value : value; }
  __device__ Largest from_lane(int distance) const { return {__shfl_xor_sync(kFullWarp, value, distance)}; }
};

template <class A> struct Sum {
  A value;
  __device__ void merge(const Sum& other) { value += other.value; }
  __device__ Sum from_lane(int distance) const { return {__shfl_xor_sync(kFullWarp, value, distance)}; }
};

// A sum of squares that is right to the last bit or two however long the row: in double for float (a square is exact
// there), in double plus its rounding errors for double.
template <class A> struct SquareSum;

template <> struct SquareSum<float> {
  double sum;
  __device__ void add(double value) { sum += value * value; }
  __device__ void merge(const SquareSum& other) { sum += other.sum; }
  __device__ SquareSum from_lane(int distance) const { return {__shfl_xor_sync(kFullWarp, sum, distance)}; }
  __device__ double value() const { return sum; }
};

template <> struct SquareSum<double> {
  double sum, error;
  __device__ void add(double value) {
    const double square = value * value;
    merge({square, ::fma(value, value, -square)});
  }
  __device__ void merge(const SquareSum& other) {  // Knuth's two-sum
    const double total = sum + other.sum, grown = total - sum;
    const double lost = (sum - (total - grown)) + (other.sum - grown);
    sum = total;
    error = (error + other.error) + lost;
  }
  __device__ SquareSum from_lane(int distance) const {
    return {__shfl_xor_sync(kFullWarp, sum, distance), __shfl_xor_sync(kFullWarp, error, distance)};
  }
  __device__ double value() const { return sum + error; }
};

}  // namespace bk::cuda
