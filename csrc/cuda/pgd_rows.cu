#include "objective.cuh"

namespace bk::cuda {
namespace {

template <class T, int kSize>
__global__ void __launch_bounds__(kThreads, kTeamBlocks)
    weight_norm_kernel(const T* weight, const int64_t neurons, const int64_t dim, Compute<T>* norms) {
  using A = Compute<T>;
  const Team<kSize> team;
  if (team.row() >= neurons) return;
  const T* w = weight + team.row() * dim;
  const auto value = [=](int64_t i) { return widen(w[i]); };
  const A peak = peak_of<A>(team, dim, value);
  const bool plain = peak > A(0) && is_finite(peak);
  const A norm = plain ? static_cast<A>(peak * norm_over_peak(team, dim, peak, value)) : peak;
  if (team.lane() == 0) norms[team.row()] = norm;
}

// ---- the first iterate ----------------------------------------------------------------------------------------------

template <class A, int kSize>
__global__ void __launch_bounds__(kThreads, kTeamBlocks) begin_kernel(const AttackRows<A> p) {
  const Team<kSize> team;
  const int64_t row = team.row();
  if (row >= p.rows()) return;
  const A* origin = p.origin(row);
  A* x = p.x + row * p.dim;
  A* delta = p.delta + row * p.dim;
  const A step = p.threat.step[row], radius = p.threat.radius[row];

  bool good = is_finite(step) && step >= A(0) && is_valid_size(radius) && valid_target(p, row);
  good = all_finite<A>(team, p.dim, [=](int64_t i) { return origin[i]; }) && good;
  if (p.start == nullptr) {
    team.for_each(p.dim, [=](int64_t i) {
      x[i] = origin[i];
      delta[i] = A(0);
    });
  } else {
    const A* start = p.start + row * p.dim;
    const auto wanted = [=](int64_t i) { return start[i] - origin[i]; };
    const Projection<A> projection = project(team, p.dim, p.threat.norm, radius, wanted);
    good = good && projection.finite;
    team.for_each(p.dim, [=](int64_t i) {
      delta[i] = radius == A(0) ? A(0) : projection(wanted(i));
      x[i] = displaced(origin[i], delta[i]);
    });
  }
  if (team.lane() != 0) return;
  p.good[row] = good;
  if (p.fixed_cotangent()) p.cotangent[row] = -p.target[row];
}

// ---- the direction in output space ----------------------------------------------------------------------------------

template <class A> __global__ void __launch_bounds__(kThreads) cotangent_kernel(const AttackRows<A> p) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= p.rows()) return;
  set_cotangent(p, row);
}

// ---- looking at an iterate ------------------------------------------------------------------------------------------

template <class A, class T> __device__ void keep_iterate(const AttackRows<A>& p, const T& team, int64_t row, A margin) {
  if (p.result.x != nullptr && p.result.x != p.x) {
    team.for_each(p.dim, [&](int64_t i) { p.result.x[row * p.dim + i] = p.x[row * p.dim + i]; });
  }
  team.for_each(p.heads, [&](int64_t c) { p.result.logits[row * p.heads + c] = p.f[row * p.heads + c]; });
  if (team.lane() == 0) p.result.margin[row] = margin;
}

// From now on everything of this row is NaN.
template <class A, class T> __device__ void spoil(const AttackRows<A>& p, const T& team, int64_t row) {
  const A bad = not_a_number<A>();
  team.sync();  // all have read what is overwritten here
  team.for_each(p.dim, [&](int64_t i) {
    p.x[row * p.dim + i] = bad;
    if (p.result.x != nullptr) p.result.x[row * p.dim + i] = bad;
  });
  team.for_each(p.heads, [&](int64_t c) { p.result.logits[row * p.heads + c] = bad; });
  if (team.lane() == 0) {
    p.result.margin[row] = bad;
    p.good[row] = 0;
  }
}

// ---- the step -------------------------------------------------------------------------------------------------------

// With paired neurons the gradient is zero, and what is computed for it is rounding noise of size 8u Σ |U| ‖w‖.
template <class A, class T> __device__ Ascent<A> ascent_of(const AttackRows<A>& p, const T& team, int64_t row, A peak) {
  constexpr double kRoundoff = sizeof(A) == sizeof(float) ? 5.9604644775390625e-8 : 1.1102230246251565e-16;
  const A* gradient = p.gradient + row * p.dim;
  const A step = p.threat.step[row];
  Ascent<A> ascent = {step > A(0) && peak > A(0), p.threat.norm, peak, step};
  const bool exact = p.threat.direction == Direction::exact;
  if (!ascent.moves || (!exact && p.threat.norm == Norm::linf)) return ascent;

  const double ratio = norm_over_peak(team, p.dim, peak, [=](int64_t i) { return gradient[i]; });
  if (exact) {
    ascent.moves = peak * ratio > 8 * kRoundoff * static_cast<double>(p.scale[row]);
    if (p.threat.norm == Norm::l2) ascent.rate = static_cast<A>(step / ratio);
  } else {
    ascent.rate = static_cast<A>(step * (peak / floored(p.threat, peak * ratio)));
  }
  return ascent;
}

template <class A, class T> __device__ void take_step(const AttackRows<A>& p, const T& team, int64_t row, A peak) {
  const A* gradient = p.gradient + row * p.dim;
  const A* origin = p.origin(row);
  A* x = p.x + row * p.dim;
  A* delta = p.delta + row * p.dim;
  const A radius = p.threat.radius[row];
  if (radius == A(0)) return;

  const Ascent<A> ascent = ascent_of(p, team, row, peak);
  const auto moved = [=](int64_t i) { return ascent(delta[i], gradient[i]); };
  const Projection<A> projection = project(team, p.dim, p.threat.norm, radius, moved);
  if (!projection.finite) return spoil(p, team, row);
  if (!ascent.moves && !projection.outside) return;

  const bool in_box = p.in_box();
  const A lo = p.threat.box_lo, hi = p.threat.box_hi;
  team.for_each(p.dim, [=](int64_t i) {
    const A inside = projection(moved(i));
    const A free = displaced(origin[i], inside);
    const A boxed = free < lo ? lo : free > hi ? hi : free;
    x[i] = boxed;
    delta[i] = in_box ? boxed - origin[i] : inside;
  });
}

template <class A, int kSize>
__global__ void __launch_bounds__(kThreads, kTeamBlocks)
    advance_kernel(const AttackRows<A> p, const int64_t iterate, const bool last) {
  const Team<kSize> team;
  const int64_t row = team.row();
  if (row >= p.rows()) return;
  const A* x = p.x + row * p.dim;
  const A* f = p.f + row * p.heads;
  const A* gradient = p.gradient + row * p.dim;

  bool good = p.good[row] != 0;
  good = all_finite<A>(team, p.dim, [=](int64_t i) { return x[i]; }) && good;
  good = all_finite<A>(team, p.heads, [=](int64_t c) { return f[c]; }) && good;

  const A margin = good ? margin_of(p, team, row) : A(0);
  const bool moves = good && !last && !(p.threat.stop_early && !(margin > A(0)));
  const A peak = moves ? peak_of<A>(team, p.dim, [=](int64_t i) { return gradient[i]; }) : A(0);
  good = good && is_finite(peak);

  if (!good) {
    spoil(p, team, row);
  } else {
    const bool worst = p.threat.keep == Keep::worst;
    const bool kept = worst ? iterate == 0 || margin < p.result.margin[row] : last;
    team.sync();  // the margin above is read by all before it is written
    if (kept) keep_iterate(p, team, row, margin);
  }
  if (p.result.trajectory != nullptr) {
    A* path = p.result.trajectory + iterate * p.trajectory_stride + row * p.dim;
    team.for_each(p.dim, [=](int64_t i) { path[i] = x[i]; });
  }
  if (moves && good) take_step(p, team, row, peak);
}

}  // namespace

template <class T>
int weight_norms(const T* weight, int64_t neurons, int64_t dim, Compute<T>* norms, cudaStream_t stream) {
  return launch_teams(neurons, dim, weight_norm_kernel<T, kWarp>, weight_norm_kernel<T, kThreads>, stream, weight,
                      neurons, dim, norms);
}

template <class A> int begin_attack(const AttackRows<A>& rows, cudaStream_t stream) {
  return launch_teams(rows.rows(), rows.dim, begin_kernel<A, kWarp>, begin_kernel<A, kThreads>, stream, rows);
}

template <class A> int write_cotangent(const AttackRows<A>& rows, cudaStream_t stream) {
  return launch(cotangent_kernel<A>, ceil_div(rows.rows(), kThreads), stream, rows);
}

template <class A> int advance(const AttackRows<A>& rows, int64_t iterate, bool last, cudaStream_t stream) {
  return launch_teams(rows.rows(), rows.dim, advance_kernel<A, kWarp>, advance_kernel<A, kThreads>, stream, rows,
                      iterate, last);
}

template int weight_norms(const float*, int64_t, int64_t, float*, cudaStream_t);
template int weight_norms(const double*, int64_t, int64_t, double*, cudaStream_t);
template int weight_norms(const BFloat16*, int64_t, int64_t, float*, cudaStream_t);
template int begin_attack(const AttackRows<float>&, cudaStream_t);
template int begin_attack(const AttackRows<double>&, cudaStream_t);
template int write_cotangent(const AttackRows<float>&, cudaStream_t);
template int write_cotangent(const AttackRows<double>&, cudaStream_t);
template int advance(const AttackRows<float>&, int64_t, bool, cudaStream_t);
template int advance(const AttackRows<double>&, int64_t, bool, cudaStream_t);

}  // namespace bk::cuda
