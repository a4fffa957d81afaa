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

// out(k) = update(k, vector type): whole vectors, then what is left through a padded copy.
template <class A, class Update> BK_HD void each_vector(const Row<A>& row, const Update& update) {
  using V = Vec<A>;
  std::int64_t k = 0;
  for (; k + V::kLanes <= row.size; k += V::kLanes) {
    update(V::load(row.x + k), V::load(row.origin + k), V::load(row.grad + k)).store(row.out + k);
  }
  if (k == row.size) return;
  A x[V::kLanes] = {}, origin[V::kLanes] = {}, grad[V::kLanes] = {}, out[V::kLanes];
  for (std::int64_t i = 0; k + i < row.size; ++i) {
    x[i] = row.x[k + i];
    origin[i] = row.origin[k + i];
    grad[i] = row.grad[k + i];
  }
  update(V::load(x), V::load(origin), V::load(grad)).store(out);
  for (std::int64_t i = 0; k + i < row.size; ++i) row.out[k + i] = out[i];
}

// (x − origin) + (grad · before) · after.
template <class A> struct Way {
  Vec<A> before, after;
  BK_HD Vec<A> operator()(Vec<A> x, Vec<A> origin, Vec<A> grad) const { return (x - origin) + (grad * before) * after; }
};

// Σ (way · unit)².
template <class A> double sum_of_squares(const Row<A>& row, const Way<A>& way, A unit) {
  using V = Vec<A>;
  SquareSum<A> sum;
  std::int64_t k = 0;
  const auto add = [&](V x, V origin, V grad) {
    A entries[V::kLanes];
    (way(x, origin, grad) * V::broadcast(unit)).store(entries);
    sum.add(entries);
  };
  while (k + V::kLanes <= row.size) {
    for (std::int64_t i = 0; i < kStretch && k + V::kLanes <= row.size; ++i, k += V::kLanes) {
      add(V::load(row.x + k), V::load(row.origin + k), V::load(row.grad + k));
    }
    sum.pass_on();
  }
  if (k < row.size) {
    A x[V::kLanes] = {}, origin[V::kLanes] = {}, grad[V::kLanes] = {};
    for (std::int64_t i = 0; k + i < row.size; ++i) {
      x[i] = row.x[k + i];
      origin[i] = row.origin[k + i];
      grad[i] = row.grad[k + i];
    }
    add(V::load(x), V::load(origin), V::load(grad));
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
  each_vector(row, [=](V x, V origin, V grad) { return origin + way(x, origin, grad) * scale; });
}

template <class A> void linf_row(const Row<A>& row) {
  using V = Vec<A>;
  const V step = V::broadcast(static_cast<A>(row.step)), radius = V::broadcast(static_cast<A>(row.radius));
  const auto moves = step > V(0), pinned = radius == V(0);
  V zero = V(0);  // 0 · entry is 0 for numbers, NaN for the rest
  each_vector(row, [&](V x, V origin, V grad) {
    zero += (x * V(0) + origin * V(0)) + grad * V(0);
    const V delta = (x - origin) + select(grad > V(0), step, select(grad < V(0), -step, V(0)));
    const V below = select(delta > radius, radius, delta);
    const V clamped = select(below < -radius, -radius, below);
    const auto still = (~moves | (grad == V(0))) & (clamped == delta);
    return select(pinned, origin, select(still, x, origin + clamped));
  });
  if (!row.valid() || sum_lanes(zero) != 0) fill_row(row, kNaN<A>);
}

template <class A, class RowStep> BK_HD void each_row(const PgdStep<A>& all, Parallel run, const RowStep& row_step) {
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
