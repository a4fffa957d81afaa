#include "gate.h"

#include "vector_math.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

// Sums over neurons are kept in four interleaved chains: one would wait for the latency of the addition.
constexpr int kChains = 4;

template <bool kValue, bool kSlope, class Phi, class A>
BK_HD void gate_element(Phi phi, const GateTile<A>& tile, std::int64_t j, A* H, Vec<A> cotangent, Vec<A>& f,
                        Vec<A>& bound) {
  using V = Vec<A>;
  const V h = V::load(H);
  const V a = V::broadcast(tile.head[j]);
  if constexpr (kValue) f += phi.value(h) * a;
  if constexpr (kSlope) {
    const V u = phi.first(h) * (a * cotangent);
    u.store(H);
    bound += absolute(u) * V::broadcast(tile.norms[j]);
  }
}

template <bool kValue, bool kSlope, class Phi, class A> BK_HD void gate_tile(Phi phi, const GateTile<A>& tile) {
  using V = Vec<A>;
  const std::int64_t width = tile.vectors * V::kLanes;
  for (std::int64_t column = 0; column < width; column += V::kLanes) {
    const V cotangent = kSlope ? V::load(tile.cotangent + column) : V(0);
    V f[kChains], bound[kChains];
    for (int c = 0; c < kChains; ++c) f[c] = bound[c] = V(0);
    A* H = tile.H + column;
    std::int64_t j = 0;
    for (; j + kChains <= tile.rows; j += kChains) {
#pragma GCC unroll 4
      for (int c = 0; c < kChains; ++c) {
        gate_element<kValue, kSlope>(phi, tile, j + c, H + (j + c) * width, cotangent, f[c], bound[c]);
      }
    }
    for (; j < tile.rows; ++j) {
      gate_element<kValue, kSlope>(phi, tile, j, H + j * width, cotangent, f[0], bound[0]);
    }
    if constexpr (kValue) (V::load(tile.f + column) + ((f[0] + f[1]) + (f[2] + f[3]))).store(tile.f + column);
    if constexpr (kSlope) {
      (V::load(tile.bound + column) + ((bound[0] + bound[1]) + (bound[2] + bound[3]))).store(tile.bound + column);
    }
  }
}

}  // namespace

template <class A> void gate(const Activation& activation, const GateTile<A>& tile) {
  visit_activation(activation, [&](auto phi) {
    if (tile.f && tile.cotangent) {
      gate_tile<true, true>(phi, tile);
    } else if (tile.f) {
      gate_tile<true, false>(phi, tile);
    } else {
      gate_tile<false, true>(phi, tile);
    }
  });
}

template <class A>
void gate_elements(const Activation& activation, A* H, std::int64_t rows, std::int64_t vectors, A* values,
                   const A* slopes) {
  using V = Vec<A>;
  const std::int64_t size = rows * vectors * V::kLanes;
  visit_activation(activation, [&](auto phi) {
    if (values) {
      for (std::int64_t i = 0; i < size; i += V::kLanes) phi.value(V::load(H + i)).store(values + i);
    }
    if (slopes) {
      for (std::int64_t i = 0; i < size; i += V::kLanes) {
        (phi.first(V::load(H + i)) * V::load(slopes + i)).store(H + i);
      }
    }
  });
}

template <class A> void add_bound(const A* U, std::int64_t rows, std::int64_t vectors, const A* norms, A* bound) {
  using V = Vec<A>;
  const std::int64_t width = vectors * V::kLanes;
  for (std::int64_t column = 0; column < width; column += V::kLanes) {
    V sum = V(0);
    for (std::int64_t j = 0; j < rows; ++j) {
      sum += absolute(V::load(U + j * width + column)) * V::broadcast(norms[j]);
    }
    (V::load(bound + column) + sum).store(bound + column);
  }
}

namespace {

template <class A, int kVectors> void find_closed_of(const A* H, std::int64_t rows, std::uint64_t* closed) {
  using V = Vec<A>;
  for (std::int64_t j = 0; j < rows; ++j) {
    std::uint64_t word = 0;
#pragma GCC unroll 4
    for (int v = 0; v < kVectors; ++v)
      word |= std::uint64_t{bits(V::load(H + v * V::kLanes) <= V(0))} << (v * V::kLanes);
    closed[j] = word;
    H += kVectors * V::kLanes;
  }
}

}  // namespace

template <class A> void find_closed(const A* H, std::int64_t rows, std::int64_t vectors, std::uint64_t* closed) {
  switch (vectors) {
    case 1: return find_closed_of<A, 1>(H, rows, closed);
    case 2: return find_closed_of<A, 2>(H, rows, closed);
    case 3: return find_closed_of<A, 3>(H, rows, closed);
    default: return find_closed_of<A, 4>(H, rows, closed);
  }
}

template <class A>
void gated_head(const std::uint64_t* closed, std::int64_t rows, std::int64_t vectors, const A* head, A slope, A* U) {
  using V = Vec<A>;
  for (std::int64_t j = 0; j < rows; ++j) {
    const V open = V::broadcast(head[j]), shut = V::broadcast(slope * head[j]);
    for (std::int64_t v = 0; v < vectors; ++v) {
      select(mask_of<A>(closed[j] >> (v * V::kLanes)), shut, open).store(U + (j * vectors + v) * V::kLanes);
    }
  }
}

#define BK_INSTANTIATE(A)                                                                          \
  template void gate<A>(const Activation&, const GateTile<A>&);                                    \
  template void gate_elements<A>(const Activation&, A*, std::int64_t, std::int64_t, A*, const A*); \
  template void add_bound<A>(const A*, std::int64_t, std::int64_t, const A*, A*);                  \
  template void find_closed<A>(const A*, std::int64_t, std::int64_t, std::uint64_t*);              \
  template void gated_head<A>(const std::uint64_t*, std::int64_t, std::int64_t, const A*, A, A*);
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)

}  // namespace bk::cpu::BK_SIMD_LEVEL
