// Squares of registers, transposed.
#pragma once

#include "simd.h"

namespace bk::cpu::BK_SIMD_LEVEL {

// Registers are made of quarters of 16 bytes, each of kEntries numbers; shuffles within quarters and of whole quarters
// are the cheap ones.
template <class A> constexpr int kEntries = 16 / sizeof(A);

// In each quarter, pieces of `size` numbers of a and b in turn: from the quarters' first halves, or from the second.
template <int size, class A> BK_HD Vec<A> interleave(Vec<A> a, Vec<A> b, bool second) {
  return shuffle(a, b, [second](int i) __attribute__((always_inline)) {
    const int quarter = i / kEntries<A>, piece = i % kEntries<A> / size;
    const int from = (second ? kEntries<A> / 2 : 0) + piece / 2 * size + i % size;
    return static_cast<Integer<A>>(quarter * kEntries<A> + from + (piece % 2) * Vec<A>::kLanes);
  });
}

// Every other quarter of a and b laid end to end, from the first or from the second.
template <class A> BK_HD Vec<A> every_other(Vec<A> a, Vec<A> b, bool second) {
  return shuffle(a, b, [second](int i) __attribute__((always_inline)) {
    return static_cast<Integer<A>>((2 * (i / kEntries<A>)+second) * kEntries<A> + i % kEntries<A>);
  });
}

// A square of lanes × lanes: first each block of kEntries rows within its quarters, then the quarters.
template <class A> BK_HD void transpose(Vec<A> (&square)[Vec<A>::kLanes]) {
  constexpr int kLanes = Vec<A>::kLanes, kSide = kEntries<A>, kQuarters = kLanes / kSide;
  Vec<A> block[kLanes];
#pragma GCC unroll 16
  for (int row = 0; row < kLanes; row += kSide) {
    Vec<A>* r = square + row;
    Vec<A>* q = block + row;
    if constexpr (kSide == 2) {
      q[0] = interleave<1>(r[0], r[1], false);
      q[1] = interleave<1>(r[0], r[1], true);
    } else {
      const Vec<A> low = interleave<1>(r[0], r[1], false), high = interleave<1>(r[0], r[1], true);
      const Vec<A> low2 = interleave<1>(r[2], r[3], false), high2 = interleave<1>(r[2], r[3], true);
      q[0] = interleave<2>(low, low2, false);
      q[1] = interleave<2>(low, low2, true);
      q[2] = interleave<2>(high, high2, false);
      q[3] = interleave<2>(high, high2, true);
    }
  }
#pragma GCC unroll 4
  for (int c = 0; c < kSide; ++c) {
    const Vec<A>* q = block + c;
    Vec<A>* to = square + c;
    if constexpr (kQuarters == 1) {
      to[0] = q[0];
    } else if constexpr (kQuarters == 2) {
      to[0] = every_other(q[0], q[kSide], false);
      to[kSide] = every_other(q[0], q[kSide], true);
    } else {
      const Vec<A> even = every_other(q[0], q[kSide], false), odd = every_other(q[0], q[kSide], true);
      const Vec<A> even2 = every_other(q[2 * kSide], q[3 * kSide], false);
      const Vec<A> odd2 = every_other(q[2 * kSide], q[3 * kSide], true);
      to[0] = every_other(even, even2, false);
      to[kSide] = every_other(odd, odd2, false);
      to[2 * kSide] = every_other(even, even2, true);
      to[3 * kSide] = every_other(odd, odd2, true);
    }
  }
}

}  // namespace bk::cpu::BK_SIMD_LEVEL
