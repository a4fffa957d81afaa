// The tiled product itself: panels through shared memory, sums in two levels. Over d = 10 000 terms two levels of 256
// keep 6× the accuracy of one running sum.
#pragma once

#include <type_traits>

#include "plain_panels.cuh"
#include "split_panels.cuh"

namespace bk::cuda {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool kTensorCores = false;
#else
constexpr bool kTensorCores = true;
#endif

constexpr int kPanelsPerSum = 16;  // panels after which the inner sum is added to the outer one

// L, R: how the operands are stored.
template <class L, class R, Precision kPrecision>
using TileSums =
    std::conditional_t<kTensorCores && sizeof(Compute<R>) == sizeof(float),
                       SplitSums<kPiecesOf<L, kPrecision>, kPiecesOf<R, kPrecision>>, PlainSums<Compute<R>>>;

// tile = Σ over terms first … last − 1 of left · right. The panels may be used again after a barrier.
template <class Sums, class Left, class Right, class A>
__device__ void multiply(Left left, Right right, int64_t first, int64_t last, typename Sums::Panels& panels,
                         Tile<A>& tile) {
  Sums sums;
  int panels_in_sum = 0;
  left.skip(first);
  right.skip(first);
  int64_t terms = last - first;
  left.fetch(terms);
  right.fetch(terms);
  for (; terms > 0; terms -= kDepth) {
    left.store(panels.left());
    right.store(panels.right());
    __syncthreads();
    left.fetch(terms - kDepth);
    right.fetch(terms - kDepth);
    sums.add_product(panels);
    if (++panels_in_sum == kPanelsPerSum || terms <= kDepth) {
      panels_in_sum = 0;
      sums.close_sum();
    }
    __syncthreads();
  }
  sums.write(panels, tile);
}

}  // namespace bk::cuda
