// What the gram walk does to one row of `width` numbers, width a multiple of every register's lanes.
#pragma once

#include "simd.h"

namespace bk::cpu::BK_SIMD_LEVEL {

// Sums run in several chains, so that none waits for the latency of an addition.
template <class A> struct Chains {
  static constexpr int kCount = 4;
  Vec<A> sum[kCount] = {Vec<A>(0), Vec<A>(0), Vec<A>(0), Vec<A>(0)};
  BK_HD double total() const { return static_cast<double>(sum_lanes((sum[0] + sum[1]) + (sum[2] + sum[3]))); }
};

// body(j, chain) for each register of the row.
template <class A, class Body> BK_HD void each_register(std::int64_t width, const Body& body) {
  constexpr std::int64_t kLanes = Vec<A>::kLanes, kCount = Chains<A>::kCount;
  std::int64_t j = 0;
  for (; j + kCount * kLanes <= width; j += kCount * kLanes) {
#pragma GCC unroll 4
    for (int chain = 0; chain < kCount; ++chain) body(j + chain * kLanes, chain);
  }
  for (; j < width; j += kLanes) body(j, 0);
}
#define BK_EACH_REGISTER [&](std::int64_t j, [[maybe_unused]] int chain) __attribute__((always_inline))

template <class A> BK_HD void copy_row(A* to, const A* from, std::int64_t width) {
  for (std::int64_t j = 0; j < width; ++j) to[j] = from[j];
}

// to = a + by · b
template <class A> BK_HD void add_scaled(A* to, const A* a, const A* b, A by, std::int64_t width) {
  using V = Vec<A>;
  each_register<A>(width, BK_EACH_REGISTER { (V::load(a + j) + V::broadcast(by) * V::load(b + j)).store(to + j); });
}

// to = a ∘ b
template <class A> BK_HD void multiply_row(A* to, const A* a, const A* b, std::int64_t width) {
  using V = Vec<A>;
  each_register<A>(width, BK_EACH_REGISTER { (V::load(a + j) * V::load(b + j)).store(to + j); });
}

// to = Σ_c by_c · rows_c: rows and factors lie `stride` and `by_stride` apart.
template <class A>
BK_HD void combine(A* to, const A* rows, std::int64_t stride, const A* by, std::int64_t by_stride, std::int64_t count,
                   std::int64_t width) {
  using V = Vec<A>;
  each_register<A>(
      width, BK_EACH_REGISTER {
        V sum(0);
        for (std::int64_t c = 0; c < count; ++c)
          sum += V::broadcast(by[c * by_stride]) * V::load(rows + c * stride + j);
        sum.store(to + j);
      });
}

template <class A> BK_HD double dot(const A* a, const A* b, std::int64_t width) {
  using V = Vec<A>;
  Chains<A> chains;
  each_register<A>(width, BK_EACH_REGISTER { chains.sum[chain] += V::load(a + j) * V::load(b + j); });
  return chains.total();
}

// Σ (a_j b_j)²
template <class A> BK_HD double squared_products(const A* a, const A* b, std::int64_t width) {
  using V = Vec<A>;
  Chains<A> chains;
  each_register<A>(
      width, BK_EACH_REGISTER {
        const V term = V::load(a + j) * V::load(b + j);
        chains.sum[chain] += term * term;
      });
  return chains.total();
}

// change = change − old, old = the change before.
template <class A> BK_HD void replace_row(A* old, A* change, std::int64_t width) {
  using V = Vec<A>;
  each_register<A>(
      width, BK_EACH_REGISTER {
        const V now = V::load(change + j), before = V::load(old + j);
        (now - before).store(change + j);
        now.store(old + j);
      });
}

// ‖g‖² = Σ V∘U and Σ |U_j| ‖w_j‖, for U = S ∘ heads, or U = S where heads is null.
struct Measures {
  double square, bound;
};
template <class A>
BK_HD Measures measure_row(const A* now, const A* S, const A* heads, const A* norms, std::int64_t width) {
  using V = Vec<A>;
  Chains<A> square, bound;
  each_register<A>(
      width, BK_EACH_REGISTER {
        const V U = heads ? V::load(S + j) * V::load(heads + j) : V::load(S + j);
        square.sum[chain] += V::load(now + j) * U;
        bound.sum[chain] += absolute(U) * V::load(norms + j);
      });
  return {square.total(), bound.total()};
}

// D += by · V, C += by · U; returns Σ C∘D.
template <class A>
BK_HD double move_row(A* D, A* C, const A* now, const A* S, const A* heads, A by, std::int64_t width) {
  using V = Vec<A>;
  Chains<A> chains;
  each_register<A>(
      width, BK_EACH_REGISTER {
        const V U = heads ? V::load(S + j) * V::load(heads + j) : V::load(S + j);
        const V d = V::load(D + j) + V::broadcast(by) * V::load(now + j);
        const V c = V::load(C + j) + V::broadcast(by) * U;
        d.store(D + j);
        c.store(C + j);
        chains.sum[chain] += c * d;
      });
  return chains.total();
}

// to += Σ by_k · rows_k
constexpr int kRowsAtOnce = 4;
template <class A>
BK_HD void add_multiples(A* to, const A* const (&rows)[kRowsAtOnce], const A (&by)[kRowsAtOnce], std::int64_t width) {
  using V = Vec<A>;
  each_register<A>(
      width, BK_EACH_REGISTER {
        V first = V::load(to + j) + V::broadcast(by[0]) * V::load(rows[0] + j);
        const V second = V::broadcast(by[2]) * V::load(rows[2] + j) + V::broadcast(by[3]) * V::load(rows[3] + j);
        first += V::broadcast(by[1]) * V::load(rows[1] + j);
        (first + second).store(to + j);
      });
}

}  // namespace bk::cpu::BK_SIMD_LEVEL
