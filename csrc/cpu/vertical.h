// Operations of the attack on a panel (size, width): every sample is a column, worked on in its own lane. What is done
// to one column never depends on another, so a row's result does not depend on the batch it came in.
#pragma once

#include <cstdint>

#include "panel.h"

namespace bk::cpu::BK_SIMD_LEVEL {

template <class A> constexpr std::int64_t kMaxWidth = kPanelVectors * Vec<A>::kLanes;

// One number per column.
template <class A, class Number = double> struct Lanes {
  Number lane[kMaxWidth<A>];
  BK_HD Number& operator[](std::int64_t i) { return lane[i]; }
  BK_HD Number operator[](std::int64_t i) const { return lane[i]; }
};

// norms = ‖column‖₂, scale-free and to about a unit in the last place of A: sums in double for float, compensated for
// double. Infinite or NaN where the column has such an entry.
template <class A> void column_norms(const A* panel, std::int64_t size, std::int64_t vectors, Lanes<A>& norms);

// delta += (g · before) · after, and its norms. `before` is a power of two that keeps g · before and `after` in range.
template <class A>
void move_columns(A* delta, const A* g, const Lanes<A, A>& before, const Lanes<A, A>& after, std::int64_t size,
                  std::int64_t vectors, Lanes<A>& norms);

// delta = clamp(delta + step · sign(g), ±radius).
template <class A>
void move_columns_by_sign(A* delta, const A* g, const Lanes<A, A>& step, const Lanes<A, A>& radius, std::int64_t size,
                          std::int64_t vectors);

template <class A> struct Box {
  A lo, hi;
};

// Where `moved` is not 0: delta *= scale, x = origin + delta; with a box, x = clamp(x) and delta = x − origin.
template <class A>
void place_columns(A* x, A* delta, const A* origin, const Lanes<A, A>& scale, const Lanes<A, A>& moved,
                   const Box<A>* box, std::int64_t size, std::int64_t vectors);

// finite = 0 for each column with an infinite or NaN entry; others are left as they are.
template <class A> void check_columns(const A* panel, std::int64_t size, std::int64_t vectors, Lanes<A, A>& finite);

}  // namespace bk::cpu::BK_SIMD_LEVEL
