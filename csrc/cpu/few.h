// The products of hidden.h for a few samples, which would leave most lanes of a panel idle: the lanes hold neurons,
// then dimensions, and the samples are rows. Each number is the same chain of multiply-adds as in a panel: the same bits.
#pragma once

#include "hidden.h"
#include "panel.h"
#include "transpose.h"

namespace bk::cpu::BK_SIMD_LEVEL {

// Up to kMost rows beside their panel of one register, which beyond that is faster.
template <class A> struct FewSamples {
  std::int64_t count;  // 0: a panel like any other
  const A* x;          // (count, P·d)

  static constexpr std::int64_t kMost = Vec<A>::kLanes / 2;
  static constexpr std::int64_t kScratch = kMost * (kTileNeurons + Vec<A>::kLanes);

  BK_HD static bool applies(std::int64_t samples, std::int64_t vectors, std::int64_t dim) {
    return samples <= kMost && vectors == 1 && dim >= Vec<A>::kLanes;
  }
};

// H (kSamples rows, kTileNeurons apart) = or += x · Wᵀ for one register of neurons, squares of W being transposed.
template <int kSamples, class A>
void few_products(const WeightBlock<A>& W, std::int64_t neurons, std::int64_t depth, const A* x, std::int64_t x_stride,
                  A* H, bool accumulate) {
  using V = Vec<A>;
  constexpr std::int64_t kLanes = V::kLanes, kAhead = 256 / sizeof(A);
  V sum[kSamples];
  for (int i = 0; i < kSamples; ++i) sum[i] = V(0);
  std::int64_t k = 0;
  while (k < depth) {
    const std::int64_t seen = k + kLanes <= depth ? 0 : k + kLanes - depth;  // the last square overlaps the one before
    V square[kLanes];
#pragma GCC unroll 16
    for (std::int64_t lane = 0; lane < kLanes; ++lane) {
      const A* row = W.data + (lane < neurons ? lane : neurons - 1) * W.stride + k - seen;
      square[lane] = V::load(row);
      __builtin_prefetch(row + kAhead);
    }
    transpose(square);
    const A* factor = x + k - seen;
#pragma GCC unroll 16
    for (std::int64_t c = 0; c < kLanes; ++c) {
      if (c < seen) continue;
      for (int i = 0; i < kSamples; ++i) sum[i] += V::broadcast(factor[i * x_stride + c]) * square[c];
    }
    k += kLanes - seen;
  }
  for (int i = 0; i < kSamples; ++i) {
    A* to = H + i * kTileNeurons;
    (accumulate ? sum[i] + V::load(to) : sum[i]).store(to);
  }
}

// Calls the function of `count` ≤ kSamples samples.
template <int kSamples, class A>
BK_HD void few_rows(std::int64_t count, const WeightBlock<A>& W, std::int64_t neurons, std::int64_t depth, const A* x,
                    std::int64_t x_stride, A* H, bool accumulate) {
  if constexpr (kSamples > 0) {
    if (count == kSamples) return few_products<kSamples>(W, neurons, depth, x, x_stride, H, accumulate);
    few_rows<kSamples - 1>(count, W, neurons, depth, x, x_stride, H, accumulate);
  }
}

// H (rows, width) of the panel.
template <class T>
BK_HD void hidden(const Tile<T>& tile, const FewSamples<Compute<T>>& few, Compute<T>* H, Compute<T>* scratch) {
  using A = Compute<T>;
  constexpr std::int64_t kLanes = Vec<A>::kLanes;
  const Layer<T>& layer = tile.layer;
  A* rows = scratch;  // (count, kTileNeurons)
  for (std::int64_t i = 0; layer.bias && i < few.count; ++i) {
    for (std::int64_t j = 0; j < tile.rows; ++j) rows[i * kTileNeurons + j] = layer.bias[tile.begin + j];
  }
  const Blocks blocks(layer.dim);
  for (std::int64_t j = 0; j < tile.rows; j += kLanes) {
    const std::int64_t neurons = tile.rows - j < kLanes ? tile.rows - j : kLanes;
    for (std::int64_t b = 0; b < blocks.count; ++b) {
      const std::int64_t k = blocks.begin(b), depth = blocks.end(b) - k;
      const auto W =
          widen_block(layer.weight + (tile.begin + j) * layer.dim + k, layer.dim, neurons, depth, tile.widened);
      const A* x = few.x + tile.patch * layer.dim + k;
      const bool accumulate = b > 0 || layer.bias;
      few_rows<FewSamples<A>::kMost>(few.count, W, neurons, depth, x, layer.size(), rows + j, accumulate);
    }
  }
  load_panel<A>(rows, kTileNeurons, few.count, tile.rows, tile.vectors, H);
}

// g (count, P·d) = or += Wᵀ U, in the columns of the tile's patch.
template <class T>
BK_HD void input_gradient(const Tile<T>& tile, const FewSamples<Compute<T>>& few, const Compute<T>* U, Compute<T>* g,
                          bool accumulate, Compute<T>* scratch) {
  using A = Compute<T>;
  constexpr std::int64_t kLanes = Vec<A>::kLanes;
  const Layer<T>& layer = tile.layer;
  A* rows = scratch;                                     // (count, kTileNeurons)
  A* last = rows + FewSamples<A>::kMost * kTileNeurons;  // (count, lanes)
  store_panel(U, tile.vectors, tile.rows, few.count, rows, kTileNeurons);
  const Blocks blocks(layer.dim);
  for (std::int64_t b = 0; b < blocks.count; ++b) {
    const std::int64_t k = blocks.begin(b), columns = blocks.end(b) - k, rest = columns % kLanes;
    const auto W = widen_block(layer.weight + tile.begin * layer.dim + k, layer.dim, tile.rows, columns, tile.widened);
    A* to = g + tile.patch * layer.dim + k;
    strided_product<A>(rows, kTileNeurons, few.count, tile.rows, W.data, W.stride, to, layer.size(), columns / kLanes,
                       accumulate);
    if (rest == 0) continue;
    strided_product<A>(rows, kTileNeurons, few.count, tile.rows, W.data + columns - kLanes, W.stride, last, kLanes, 1,
                       false);
    for (std::int64_t i = 0; i < few.count; ++i) {
      for (std::int64_t c = columns - rest; c < columns; ++c) {
        const A sum = last[i * kLanes + c - columns + kLanes];
        to[i * layer.size() + c] = accumulate ? sum + to[i * layer.size() + c] : sum;
      }
    }
  }
}

// Whichever the panel's samples are: few, or x (P·d, width). g is rows or a panel likewise.
template <class T>
BK_HD void either_hidden(const Tile<T>& tile, const FewSamples<Compute<T>>& few, const Compute<T>* x, Compute<T>* H,
                         Compute<T>* scratch) {
  if (few.count) return hidden(tile, few, H, scratch);
  hidden(tile, x, H);
}
template <class T>
BK_HD void either_gradient(const Tile<T>& tile, const FewSamples<Compute<T>>& few, const Compute<T>* U, Compute<T>* g,
                           bool accumulate, Compute<T>* scratch) {
  if (few.count) return input_gradient(tile, few, U, g, accumulate, scratch);
  input_gradient(tile, U, g, accumulate);
}

}  // namespace bk::cpu::BK_SIMD_LEVEL
