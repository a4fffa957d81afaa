#include "vertical.h"

#include "squares.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

// sums = Σ entry², row(k) having made row k ready.
template <class A, int kVectors, class Row>
BK_HD void sum_squares(const A* panel, std::int64_t size, const Row& row, double* sums) {
  constexpr std::int64_t kLanes = Vec<A>::kLanes;
  SquareSum<A> sum[kVectors];
  for (std::int64_t begin = 0; begin < size; begin += kStretch) {
    const std::int64_t end = begin + kStretch < size ? begin + kStretch : size;
    for (std::int64_t k = begin; k < end; ++k) {
      row(k);
      for (int v = 0; v < kVectors; ++v) sum[v].add(panel + (k * kVectors + v) * kLanes);
    }
    for (int v = 0; v < kVectors; ++v) sum[v].pass_on();
  }
  for (int v = 0; v < kVectors; ++v) sum[v].store(sums + v * kLanes);
}

template <class A, class Row>
BK_HD void norms_after(const A* panel, std::int64_t size, std::int64_t vectors, const Row& row, Lanes<A>& norms) {
  switch (vectors) {
    case 1: sum_squares<A, 1>(panel, size, row, norms.lane); break;
    case 2: sum_squares<A, 2>(panel, size, row, norms.lane); break;
    case 3: sum_squares<A, 3>(panel, size, row, norms.lane); break;
    default: sum_squares<A, 4>(panel, size, row, norms.lane);
  }
  const std::int64_t width = vectors * Vec<A>::kLanes;
  for (std::int64_t i = 0; i < width; ++i) norms[i] = norm_of(norms[i], panel + i, size, width);
}

}  // namespace

template <class A> void column_norms(const A* panel, std::int64_t size, std::int64_t vectors, Lanes<A>& norms) {
  norms_after(panel, size, vectors, [](std::int64_t) {}, norms);
}

template <class A>
void move_columns(A* delta, const A* g, const Lanes<A, A>& before, const Lanes<A, A>& after, std::int64_t size,
                  std::int64_t vectors, Lanes<A>& norms) {
  using V = Vec<A>;
  const std::int64_t width = vectors * V::kLanes;
  const auto move_row = [=, &before, &after](std::int64_t k) __attribute__((always_inline)) {
    for (std::int64_t i = 0; i < width; i += V::kLanes) {
      const V direction = V::load(g + k * width + i) * V::load(before.lane + i);
      A* to = delta + k * width + i;
      (V::load(to) + direction * V::load(after.lane + i)).store(to);
    }
  };
  norms_after(delta, size, vectors, move_row, norms);
}

template <class A>
void move_columns_by_sign(A* delta, const A* g, const Lanes<A, A>& step, const Lanes<A, A>& radius, std::int64_t size,
                          std::int64_t vectors) {
  using V = Vec<A>;
  const std::int64_t width = vectors * V::kLanes;
  for (std::int64_t k = 0; k < size; ++k) {
    for (std::int64_t i = 0; i < width; i += V::kLanes) {
      const V slope = V::load(g + k * width + i);
      const V reach = V::load(radius.lane + i);
      const V by = V::load(step.lane + i);
      A* to = delta + k * width + i;
      V moved = V::load(to) + select(slope > V(0), by, select(slope < V(0), -by, V(0)));
      moved = select(moved > reach, reach, moved);
      select(moved < -reach, -reach, moved).store(to);
    }
  }
}

template <class A>
void place_columns(A* x, A* delta, const A* origin, const Lanes<A, A>& scale, const Lanes<A, A>& moved,
                   const Box<A>* box, std::int64_t size, std::int64_t vectors) {
  using V = Vec<A>;
  const std::int64_t width = vectors * V::kLanes;
  for (std::int64_t k = 0; k < size; ++k) {
    for (std::int64_t i = 0; i < width; i += V::kLanes) {
      const auto here = V::load(moved.lane + i) != V(0);
      A* to = delta + k * width + i;
      const V old = V::load(to);
      const V from = V::load(origin + k * width + i);
      V by = old * V::load(scale.lane + i);
      V point = from + by;
      if (box) {
        point = select(point < V::broadcast(box->lo), V::broadcast(box->lo), point);
        point = select(point > V::broadcast(box->hi), V::broadcast(box->hi), point);
        by = point - from;
      }
      select(here, by, old).store(to);
      A* at = x + k * width + i;
      select(here, point, V::load(at)).store(at);
    }
  }
}

template <class A> void check_columns(const A* panel, std::int64_t size, std::int64_t vectors, Lanes<A, A>& finite) {
  using V = Vec<A>;
  const std::int64_t width = vectors * V::kLanes;
  for (std::int64_t i = 0; i < width; i += V::kLanes) {
    V zero = V(0);  // 0 · entry is 0 for numbers, NaN for the rest
    for (std::int64_t k = 0; k < size; ++k) zero += V::load(panel + k * width + i) * V(0);
    select(zero == V(0), V::load(finite.lane + i), V(0)).store(finite.lane + i);
  }
}

#define BK_INSTANTIATE(A)                                                                                         \
  template void column_norms<A>(const A*, std::int64_t, std::int64_t, Lanes<A>&);                                 \
  template void move_columns<A>(A*, const A*, const Lanes<A, A>&, const Lanes<A, A>&, std::int64_t, std::int64_t, \
                                Lanes<A>&);                                                                       \
  template void move_columns_by_sign<A>(A*, const A*, const Lanes<A, A>&, const Lanes<A, A>&, std::int64_t,       \
                                        std::int64_t);                                                            \
  template void place_columns<A>(A*, A*, const A*, const Lanes<A, A>&, const Lanes<A, A>&, const Box<A>*,         \
                                 std::int64_t, std::int64_t);                                                     \
  template void check_columns<A>(const A*, std::int64_t, std::int64_t, Lanes<A, A>&);
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)

}  // namespace bk::cpu::BK_SIMD_LEVEL
