// One projected step on rows of any model. The norm of the gradient is taken first; the rest is one more pass over the
// row, which is still near.
#include "../model/threat.h"
#include "squares.h"
#include "tasks.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

template <class A> constexpr A kNaN = static_cast<A>(__builtin_nan(""));

BK_HD bool finite(double number) { return number - number == 0; }

template <class A> struct Row {
  const A* x;
  const A* origin;
  const A* grad;
  A* out;
  std::int64_t size;
  double step, radius;

  Row(const PgdStep<A>& all, std::int64_t row)
      : x(all.x + row * all.dim),
        origin(all.origin + row * all.dim),
        grad(all.grad + row * all.dim),
        out(all.out + row * all.dim),
        size(all.dim),
        step(all.step[row]),
        radius(all.radius[row]) {}

  bool valid() const { return step >= 0 && finite(step) && radius >= 0; }
};

// Three vectors of a row: its last lanes, or, of a row shorter than a register, all there is and zeros.
template <class A> struct Entries {
  Vec<A> x, origin, grad;

  BK_HD static Entries at(const Row<A>& row, std::int64_t k) {
    return {Vec<A>::load(row.x + k), Vec<A>::load(row.origin + k), Vec<A>::load(row.grad + k)};
  }
  BK_HD static Entries last(const Row<A>& row) {
    constexpr std::int64_t kLanes = Vec<A>::kLanes;
    if (row.size >= kLanes) return at(row, row.size - kLanes);
    A x[kLanes] = {}, origin[kLanes] = {}, grad[kLanes] = {};
    for (std::int64_t i = 0; i < row.size; ++i) {
      x[i] = row.x[i];
      origin[i] = row.origin[i];
      grad[i] = row.grad[i];
    }
    return {Vec<A>::load(x), Vec<A>::load(origin), Vec<A>::load(grad)};
  }
};

// out = update(entries). The last register overlaps the one before it, so it is loaded before anything is stored: out
// may be x.
template <class A, class Update> BK_HD void each_vector(const Row<A>& row, const Update& update) {
  using V = Vec<A>;
  const V last = update(Entries<A>::last(row));
  for (std::int64_t k = 0; k + V::kLanes <= row.size; k += V::kLanes) {
    update(Entries<A>::at(row, k)).store(row.out + k);
  }
  if (row.size >= V::kLanes) return last.store(row.out + row.size - V::kLanes);
  A out[V::kLanes];
  last.store(out);
  for (std::int64_t i = 0; i < row.size; ++i) row.out[i] = out[i];
}

// (x − origin) + (grad · before) · after.
template <class A> struct Way {
  Vec<A> before, after;
  BK_HD Vec<A> operator()(const Entries<A>& at) const { return (at.x - at.origin) + (at.grad * before) * after; }
};

// Σ (way · unit)².
template <class A> double sum_of_squares(const Row<A>& row, const Way<A>& way, A unit) {
  using V = Vec<A>;
  SquareSum<A> sum;
  std::int64_t k = 0;
  const auto add = [&](V entries) {
    A squared[V::kLanes];
    (entries * V::broadcast(unit)).store(squared);
    sum.add(squared);
  };
  while (k + V::kLanes <= row.size) {
    for (std::int64_t i = 0; i < kStretch && k + V::kLanes <= row.size; ++i, k += V::kLanes) {
      add(way(Entries<A>::at(row, k)));
    }
    sum.pass_on();
  }
  if (k < row.size) {  // the last lanes not yet seen, or a short row with its zeros
    const V last = way(Entries<A>::last(row));
    add(row.size < V::kLanes ? last : select(last_lanes<A>(row.size - k), last, V(0)));
    sum.pass_on();
  }
  return sum.total();
}

// ‖way‖; infinite or NaN where an entry of the row is.
template <class A> double length_of(const Row<A>& row, const Way<A>& way) {
  const double sum = sum_of_squares(row, way, A(1));
  if (squares_in_range<A>(sum)) return __builtin_sqrt(sum);
  const double unit = rescaling_unit(sum);
  return __builtin_sqrt(sum_of_squares(row, way, static_cast<A>(unit))) / unit;
}

template <class A> void fill_row(const Row<A>& row, A value) {
  for (std::int64_t k = 0; k < row.size; ++k) row.out[k] = value;
}

template <class A> void copy_row(const Row<A>& row, const A* from) {
  for (std::int64_t k = 0; k < row.size; ++k) row.out[k] = from[k];
}

template <class A> void l2_row(const Row<A>& row) {
  using V = Vec<A>;
  constexpr bool kFloat = sizeof(A) == sizeof(float);
  constexpr double kTiny = kFloat ? 0x1p-60 : 0x1p-500, kHuge = kFloat ? 0x1p60 : 0x1p500;
  constexpr double kUp = kFloat ? 0x1p80 : 0x1p700, kDown = kFloat ? 0x1p-80 : 0x1p-700;
  const double norm = row_norm(row.grad, row.size);
  const double unit = norm < kTiny ? kUp : norm > kHuge ? kDown : 1;
  const double factor = norm > 0 && row.radius > 0 ? row.step / (norm * unit) : 0;
  const Way<A> way{V::broadcast(static_cast<A>(unit)), V::broadcast(static_cast<A>(factor))};
  const double length = length_of(row, way);
  if (!row.valid() || !finite(norm) || !finite(length)) return fill_row(row, kNaN<A>);
  if (row.radius == 0) return copy_row(row, row.origin);
  const bool inside = length <= row.radius;
  if (inside && factor == 0) return copy_row(row, row.x);
  const V scale = V::broadcast(inside ? A(1) : static_cast<A>(row.radius / length));
  each_vector(row, [=](const Entries<A>& at) { return at.origin + way(at) * scale; });
}

template <class A> void linf_row(const Row<A>& row) {
  using V = Vec<A>;
  const V step = V::broadcast(static_cast<A>(row.step)), radius = V::broadcast(static_cast<A>(row.radius));
  const auto moves = step > V(0), pinned = radius == V(0);
  V zero = V(0);  // 0 · entry is 0 for numbers, NaN for the rest
  each_vector(row, [&](const Entries<A>& at) {
    zero += (at.x * V(0) + at.origin * V(0)) + at.grad * V(0);
    const V delta = (at.x - at.origin) + select(at.grad > V(0), step, select(at.grad < V(0), -step, V(0)));
    const V below = select(delta > radius, radius, delta);
    const V clamped = select(below < -radius, -radius, below);
    const auto still = (~moves | (at.grad == V(0))) & (clamped == delta);
    return select(pinned, at.origin, select(still, at.x, at.origin + clamped));
  });
  if (!row.valid() || sum_lanes(zero) != 0) fill_row(row, kNaN<A>);
}

template <class A, class RowStep> BK_HD void each_row(const PgdStep<A>& all, Parallel run, const RowStep& row_step) {
  if (all.dim == 0) return;
  constexpr std::int64_t kChunk = 1 << 15;  // numbers of a task, near 10 µs
  const std::int64_t rows = 1 + kChunk / (all.dim + 1);
  for_each_task(run, (all.rows + rows - 1) / rows, [&](std::int64_t task) {
    const std::int64_t end = (task + 1) * rows < all.rows ? (task + 1) * rows : all.rows;
    for (std::int64_t row = task * rows; row < end; ++row) row_step(Row<A>(all, row));
  });
}

}  // namespace

template <class A> void l2_pgd_step(const PgdStep<A>& step, Parallel run) {
  each_row(step, run, [](const Row<A>& row) { l2_row(row); });
}

template <class A> void linf_pgd_step(const PgdStep<A>& step, Parallel run) {
  each_row(step, run, [](const Row<A>& row) { linf_row(row); });
}

template void l2_pgd_step<float>(const PgdStep<float>&, Parallel);
template void l2_pgd_step<double>(const PgdStep<double>&, Parallel);
template void linf_pgd_step<float>(const PgdStep<float>&, Parallel);
template void linf_pgd_step<double>(const PgdStep<double>&, Parallel);

}  // namespace bk::cpu::BK_SIMD_LEVEL
