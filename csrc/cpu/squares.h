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
  BK_HD void store(double* to) const { (sum + lost).store(to); }
  BK_HD double total() const { return sum_lanes(sum) + sum_lanes(lost); }
};

// Squares of doubles overflow beyond 1e154 and vanish below 1e-162: outside this range the entries are to be divided by
// a power of two first.
BK_HD bool squares_in_range(double sum) { return sum > 1e-280 && sum < 1e280; }

// ‖v‖ of `size` entries, `stride` apart, that are out of that range: 0, infinite, NaN or extreme. Rare.
BK_HD double scaled_norm(const double* v, std::int64_t size, std::int64_t stride) {
  double largest = 0;
  for (std::int64_t k = 0; k < size && largest == largest; ++k) {
    const double entry = __builtin_fabs(v[k * stride]);
    if (!(entry <= largest)) largest = entry;  // keeps a NaN
  }
  if (!(largest > 0) || largest - largest != 0) return largest;
  const double unit = largest > 1 ? 0x1p-520 : 0x1p+520;
  double sum = 0, lost = 0;
  for (std::int64_t k = 0; k < size; ++k) {
    const double term = (v[k * stride] * unit) * (v[k * stride] * unit);
    const double total = sum + term;
    const double back = total - sum;
    lost += (sum - (total - back)) + (term - back);
    sum = total;
  }
  return __builtin_sqrt(sum + lost) / unit;
}
BK_HD double scaled_norm(const float*, std::int64_t, std::int64_t) { return 0; }

// ‖v‖ from the plain sum of squares of its entries.
template <class A> BK_HD double norm_of(double sum, const A* v, std::int64_t size, std::int64_t stride) {
  return sizeof(A) == sizeof(float) || squares_in_range(sum) ? __builtin_sqrt(sum) : scaled_norm(v, size, stride);
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
    for (std::int64_t i = 0; k + i < size; ++i) rest[i] = v[k + i];
    sum.add(rest);
    sum.pass_on();
  }
  return norm_of(sum.total(), v, size, 1);
}

}  // namespace bk::cpu::BK_SIMD_LEVEL
