// One projected ascent step of a row, as its team computes it: norms, the ascent, the projection.
#pragma once

#include "../model/threat.h"
#include "team.cuh"

namespace bk::cuda {

template <class A> __device__ A not_a_number() { return static_cast<A>(nan("")); }
template <class A> __device__ bool is_finite(A value) { return value - value == A(0); }
template <class A> __device__ bool is_valid_size(A radius) {
  return radius >= A(0);  // +∞ is; NaN is not
}

// x0 + δ; x0 itself, −0 included, where δ is zero.
template <class A> __device__ A displaced(A origin, A delta) { return delta == A(0) ? origin : origin + delta; }

// max |v_i|; +∞ when some v_i is not finite.
template <class A, class T, class Values> __device__ A peak_of(const T& team, int64_t dim, Values values) {
  Largest<A> largest = {A(0)};
  team.for_each(dim, [&](int64_t i) {
    const A value = values(i);
    largest.merge({is_finite(value) ? (value < A(0) ? -value : value) : static_cast<A>(INFINITY)});
  });
  return team.reduce(largest).value;
}

template <class A, class T, class Values> __device__ bool all_finite(const T& team, int64_t dim, Values values) {
  return is_finite(peak_of<A>(team, dim, values));
}

// ‖v‖ / peak, in [1, √dim], for a finite row with peak = max |v_i| > 0: neither over- nor underflows.
template <class A, class T, class Values>
__device__ double norm_over_peak(const T& team, int64_t dim, A peak, Values values) {
  SquareSum<A> squares = {};
  const double inverse = 1 / static_cast<double>(peak);
  team.for_each(dim, [&](int64_t i) {
    const A value = values(i);
    // In double, 1/peak may overflow.
    squares.add(sizeof(A) == sizeof(double) ? static_cast<double>(value) / static_cast<double>(peak) : value * inverse);
  });
  return ::sqrt(team.reduce(squares).value());
}

// δ ↦ δ + η·direction(g), or δ where no step is made.
template <class A> struct Ascent {
  bool moves;
  Norm norm;
  A peak;  // max |g_i|
  A rate;  // l2: η·peak/‖g‖   linf: η

  __device__ A operator()(A delta, A g) const {
    if (!moves) return delta;
    if (norm == Norm::l2) return delta + g / peak * rate;
    return g > A(0) ? delta + rate : g < A(0) ? delta - rate : delta;
  }
};

// δ ↦ the nearest point of the ball.
template <class A> struct Projection {
  bool finite;   // δ is
  bool outside;  // δ is not in the ball
  Norm norm;
  A radius;
  double scale;  // l2: ε/‖δ‖

  __device__ A operator()(A delta) const {
    if (!outside) return delta;
    if (norm == Norm::l2) return static_cast<A>(delta * scale);
    return delta > radius ? radius : delta < -radius ? -radius : delta;
  }
};

template <class A, class T, class Values>
__device__ Projection<A> project(const T& team, int64_t dim, Norm norm, A radius, Values delta) {
  const A peak = peak_of<A>(team, dim, delta);
  Projection<A> projection = {is_finite(peak), false, norm, radius, 1};
  if (!projection.finite || peak == A(0)) return projection;
  if (norm == Norm::linf) {
    projection.outside = peak > radius;
    return projection;
  }
  const double limit = static_cast<double>(radius) / static_cast<double>(peak);
  const double size = norm_over_peak(team, dim, peak, delta);
  projection.outside = size > limit;
  projection.scale = limit / size;
  return projection;
}

}  // namespace bk::cuda
