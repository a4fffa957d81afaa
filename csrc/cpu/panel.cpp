#include "panel.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

// Lanes offset, offset + 1, … of a and b in turn: a_0 b_0 a_1 b_1 …
template <class A> BK_HD Vec<A> interleave(Vec<A> a, Vec<A> b, bool upper) {
  using Bits = typename Vec<A>::Bits;
  constexpr int kLanes = Vec<A>::kLanes;
  const Integer<A> first = upper ? kLanes / 2 : 0;
  Bits order;
  if constexpr (kLanes == 2) {
    order = Bits{0, 2};
  } else if constexpr (kLanes == 4) {
    order = Bits{0, 4, 1, 5};
  } else if constexpr (kLanes == 8) {
    order = Bits{0, 8, 1, 9, 2, 10, 3, 11};
  } else {
    order = Bits{0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23};
  }
  return Vec<A>::of(__builtin_shuffle(a.raw, b.raw, order + first));
}

// A square of lanes × lanes. Interleaving the upper with the lower half of the rows log2(lanes) times transposes it.
template <class A> BK_HD void transpose(Vec<A> (&square)[Vec<A>::kLanes]) {
  constexpr int kLanes = Vec<A>::kLanes;
#pragma GCC unroll 4
  for (int round = 1; round < kLanes; round *= 2) {
    Vec<A> next[kLanes];
#pragma GCC unroll 16
    for (int i = 0; i < kLanes / 2; ++i) {
      next[2 * i] = interleave(square[i], square[i + kLanes / 2], false);
      next[2 * i + 1] = interleave(square[i], square[i + kLanes / 2], true);
    }
#pragma GCC unroll 16
    for (int i = 0; i < kLanes; ++i) square[i] = next[i];
  }
}

}  // namespace

template <class A>
void load_panel(const A* rows, std::int64_t stride, std::int64_t count, std::int64_t size, std::int64_t vectors,
                A* panel) {
  using V = Vec<A>;
  constexpr int kLanes = V::kLanes;
  const std::int64_t width = vectors * kLanes;
  for (std::int64_t column = 0; column < width; column += kLanes) {
    const A* row[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      row[lane] = rows + (column + lane < count ? column + lane : count - 1) * stride;
    }
    std::int64_t k = 0;
    for (; k + kLanes <= size; k += kLanes) {
      V square[kLanes];
#pragma GCC unroll 16
      for (int lane = 0; lane < kLanes; ++lane) square[lane] = V::load(row[lane] + k);
      transpose(square);
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) square[i].store(panel + (k + i) * width + column);
    }
    for (; k < size; ++k) {
      for (int lane = 0; lane < kLanes; ++lane) panel[k * width + column + lane] = row[lane][k];
    }
  }
}

template <class A>
void store_panel(const A* panel, std::int64_t vectors, std::int64_t size, std::int64_t count, A* rows,
                 std::int64_t stride) {
  using V = Vec<A>;
  constexpr int kLanes = V::kLanes;
  const std::int64_t width = vectors * kLanes;
  for (std::int64_t column = 0; column < width && column < count; column += kLanes) {
    const std::int64_t lanes = count - column < kLanes ? count - column : kLanes;
    std::int64_t k = 0;
    for (; k + kLanes <= size; k += kLanes) {
      V square[kLanes];
#pragma GCC unroll 16
      for (int i = 0; i < kLanes; ++i) square[i] = V::load(panel + (k + i) * width + column);
      transpose(square);
#pragma GCC unroll 16
      for (int lane = 0; lane < kLanes; ++lane) {
        if (lane < lanes) square[lane].store(rows + (column + lane) * stride + k);
      }
    }
    for (; k < size; ++k) {
      for (int lane = 0; lane < lanes; ++lane) rows[(column + lane) * stride + k] = panel[k * width + column + lane];
    }
  }
}

#define BK_INSTANTIATE(A)                                                                            \
  template void load_panel<A>(const A*, std::int64_t, std::int64_t, std::int64_t, std::int64_t, A*); \
  template void store_panel<A>(const A*, std::int64_t, std::int64_t, std::int64_t, A*, std::int64_t);
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)

}  // namespace bk::cpu::BK_SIMD_LEVEL
