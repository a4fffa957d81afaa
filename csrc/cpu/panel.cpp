#include "panel.h"

#include "transpose.h"

namespace bk::cpu::BK_SIMD_LEVEL {
template <class A>
void load_panel(const A* rows, std::int64_t stride, std::int64_t count, std::int64_t size, std::int64_t vectors,
                A* panel) {
  using V = Vec<A>;
  constexpr int kLanes = V::kLanes;
  const std::int64_t width = vectors * kLanes;
  constexpr std::int64_t kAhead = 256 / sizeof(A);
  for (std::int64_t column = 0; column < width; column += kLanes) {
    const A* row[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) {
      row[lane] = rows + (column + lane < count ? column + lane : count - 1) * stride;
    }
    std::int64_t k = 0;
    for (; k + kLanes <= size; k += kLanes) {
      V square[kLanes];
#pragma GCC unroll 16
      for (int lane = 0; lane < kLanes; ++lane) {
        square[lane] = V::load(row[lane] + k);
        __builtin_prefetch(row[lane] + k + kAhead);
      }
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
