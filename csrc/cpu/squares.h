// Sums of squares that are accurate and do not overflow.
#pragma once

#include "simd.h"

namespace bk::cpu::BK_SIMD_LEVEL {

// Entries between two calls of pass_on().
constexpr std::int64_t kStretch = 16;

// Per-lane sums of squares. float: in double, where squares neither overflow nor underflow.
template <class A> struct SquareSum;

template <> struct SquareSum<float> {
  typedef float Half __attribute__((vector_size(kVectorBytes / 2)));
  Vec<double> low = Vec<double>(0), high = Vec<double>(0);

  BK_HD void add(const float* from) {
    Half halves[2];
    std::memcpy(halves, from, sizeof(halves));
    const auto a = Vec<double>::of(__builtin_convertvector(halves[0], Vec<double>::Raw));
    const auto b = Vec<double>::of(__builtin_convertvector(halves[1], Vec<double>::Raw));
    low += a * a;
    high += b * b;
  }
  BK_HD void pass_on() {}
  BK_HD void store(double* to) const {
    low.store(to);
    high.store(to + Vec<double>::kLanes);
  }
  BK_HD double total() const { return sum_lanes(low + high); }
};

// double: short stretches, added up with the rounding error of each addition kept.
template <> struct SquareSum<double> {
  Vec<double> stretch = Vec<double>(0), sum = Vec<double>(0), lost = Vec<double>(0);

  BK_HD void add(const double* from) {
    const auto a = Vec<double>::load(from);
    stretch += a * a;
  }
  BK_HD void pass_on() {
    const auto total = sum + stretch;
    const auto back = total - sum;
    lost += (sum - (total - back)) + (stretch - back);
    sum = total;
    stretch = Vec<double>(0);
  }
  BK_HD Vec<double> lanes() const { return select(is_finite(sum), sum + lost, sum); }  // lost is NaN after an overflow
  BK_HD void store(double* to) const { lanes().store(to); }
  BK_HD double total() const { return sum_lanes(lanes()); }
};

// Squares of doubles overflow beyond 1e154 and vanish below 1e-162. A sum of squares outside this range, zero and what
// is not finite included, is taken again with the entries multiplied by rescaling_unit(sum). Rare.
template <class A> BK_HD bool squares_in_range(double sum) {
  return sizeof(A) == sizeof(float) || (sum > 1e-280 && sum < 1e280);
}
BK_HD double rescaling_unit(double sum) { return sum > 1 ? 0x1p-520 : 0x1p+520; }

template <class A> BK_HD double rescaled_norm(double sum, const A* v, std::int64_t size, std::int64_t stride) {
  const double unit = rescaling_unit(sum);
  double total = 0, lost = 0;
  for (std::int64_t k = 0; k < size; ++k) {
    const double term = (v[k * stride] * unit) * (v[k * stride] * unit);
    const double next = total + term;
    const double back = next - total;
    lost += (total - (next - back)) + (term - back);
    total = next;
  }
  return total - total == 0 ? __builtin_sqrt(total + lost) / unit : total;
}

// ‖v‖ from the plain sum of squares of its entries.
template <class A> BK_HD double norm_of(double sum, const A* v, std::int64_t size, std::int64_t stride) {
  return squares_in_range<A>(sum) ? __builtin_sqrt(sum) : rescaled_norm(sum, v, size, stride);
}

// ‖v‖ of contiguous entries.
template <class A> BK_HD double row_norm(const A* v, std::int64_t size) {
  constexpr std::int64_t kLanes = Vec<A>::kLanes;
  SquareSum<A> sum;
  std::int64_t k = 0;
  while (k + kLanes <= size) {
    for (std::int64_t i = 0; i < kStretch && k + kLanes <= size; ++i, k += kLanes) sum.add(v + k);
    sum.pass_on();
  }
  if (k < size) {
    A rest[kLanes] = {};
    if (size < kLanes) {
      for (std::int64_t i = 0; i < size; ++i) rest[i] = v[i];
    } else {
      select(last_lanes<A>(size - k), Vec<A>::load(v + size - kLanes), Vec<A>(0)).store(rest);
    }
    sum.add(rest);
    sum.pass_on();
  }
  return norm_of(sum.total(), v, size, 1);
}

}  // namespace bk::cpu::BK_SIMD_LEVEL
