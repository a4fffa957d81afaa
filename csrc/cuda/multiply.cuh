// The tiled product itself: panels through shared memory, sums in two levels. Over d = 10 000 terms two levels of 256
// keep 6× the accuracy of one running sum.
#pragma once

#include <type_traits>

#include "library.h"
#include "plain_panels.cuh"
#include "split_panels.cuh"

namespace bk::cuda {

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
constexpr bool kTensorCores = false;
#else
constexpr bool kTensorCores = true;
#endif

constexpr int kPanelsPerSum = 16;  // panels after which the inner sum is added to the outer one

// L, R: how the operands are stored. The tile is a large one where tensor cores are, and it is asked for.
template <class L, class R, Precision kPrecision, int kSide = kTile>
using TileSums =
    std::conditional_t<kTensorCores && sizeof(Compute<R>) == sizeof(float),
                       SplitSums<kPiecesOf<L, kPrecision>, kPiecesOf<R, kPrecision>, kSide>, PlainSums<Compute<R>>>;

// Calls visit(side, tiles) with the side of the tiles in which a product is made, and how many they are: tiles(side).
//
// A multiprocessor makes one large tile at a time, or two of the others, and four of those take 1.5 times as long. Where the
// last round leaves many multiprocessors idle, or a large tile is half outside, the others are done sooner.
template <class A, class Tiles, class Visit> int with_side(const Arithmetic& arithmetic, Tiles tiles, Visit visit) {
  if constexpr (std::is_same_v<A, float>) {
    const int64_t large = tiles(kLargeTile), processors = arithmetic.processors;
    if (processors > 0 && 4 * ceil_div(large, processors) <= 3 * ceil_div(tiles(kTile), 2 * processors)) {
      return visit(std::integral_constant<int, kLargeTile>{}, large);
    }
  }
  return visit(std::integral_constant<int, kTile>{}, tiles(kTile));
}

// One panel is read while the next is written. The epilogue, what a kernel needs when all is summed, takes their place.
template <class Sums, class Epilogue> union TileMemory {
  typename Sums::Panels panels[2];
  struct {
    typename Sums::Staged staged;
    Epilogue epilogue;
  } after;
};
struct NoEpilogue {};

// sums = Σ over terms first … last − 1 of left · right. The panels may be used again.
template <class Sums, class Left, class Right>
__device__ void multiply(Left left, Right right, int64_t first, int64_t last, typename Sums::Panels (&panels)[2],
                         Sums& sums) {
  const int count = static_cast<int>(ceil_div(last - first, kDepth));
  const auto fetch = [&](int panel) {
    if (panel >= count) return;
    const int terms = panel + 1 < count ? kDepth : static_cast<int>(last - first - int64_t{kDepth} * panel);
    left.fetch(terms);
    right.fetch(terms);
  };
  // A panel that was fetched goes to shared memory, and the next one is fetched.
  const auto store = [&](int panel) {
    if (panel >= count) return;
    left.store(panels[panel % 2].left);
    right.store(panels[panel % 2].right);
    fetch(panel + 1);
  };
  left.skip(first);
  right.skip(first);
  fetch(0);
  store(0);
  __syncthreads();
  // While half of the warps store, the others multiply: the tensor cores are never left alone.
  const bool stores_first = threadIdx.x < kThreads / 2;
#pragma unroll 1
  for (int panel = 0; panel < count; ++panel) {
    if (stores_first) store(panel + 1);
    sums.add_product(panels[panel % 2]);
    if (panel % kPanelsPerSum == kPanelsPerSum - 1 || panel + 1 == count) sums.close_sum();
    if (!stores_first) store(panel + 1);
    __syncthreads();
  }
}

// Calls visit(place, tile) for the tiles that were summed and begin inside the matrix; all threads of the block do.
template <class Sums, class Staged, class Visit>
__device__ void for_each_tile(const Sums& sums, Staged& staged, const Place& at, int64_t rows, int64_t columns,
                              Visit visit) {
  constexpr int kAcross = Sums::kSide / kTile;
#pragma unroll 1
  for (int i = 0; i < kAcross * kAcross; ++i) {
    const int row = i / kAcross, column = i % kAcross;
    const Place place{at.split, at.network, at.row_tile + row, at.column_tile + column};
    if (place.row() >= rows || place.column() >= columns) continue;
    Tile<typename Sums::Number> tile;
    sums.write(row, column, staged, tile);
    visit(place, tile);
    if (kAcross > 1) __syncthreads();  // before the next is staged
  }
}

}  // namespace bk::cuda
