// The product with W that every kernel begins with, and its transpose, over one tile of neurons.
#pragma once

#include "layer.h"
#include "product.h"

namespace bk::cpu::BK_SIMD_LEVEL {

// Neurons [begin, begin + rows), rows ≤ kTileNeurons, for one patch of a panel.
template <class T> struct Tile {
  const Layer<T>& layer;
  std::int64_t begin, rows;
  std::int64_t patch;
  std::int64_t vectors;
  Compute<T>* widened;  // kWidenedBlock<T> numbers

  BK_HD std::int64_t width() const { return vectors * Vec<Compute<T>>::kLanes; }
};

// H (rows, width) = W x + b, block by block of dimensions: a block of x stays near while the tile's rows of W stream
// by.
template <class T> BK_HD void hidden(const Tile<T>& tile, const Compute<T>* x, Compute<T>* H) {
  const Layer<T>& layer = tile.layer;
  const std::int64_t width = tile.width();
  if (layer.bias) {
    for (std::int64_t j = 0; j < tile.rows; ++j) {
      for (std::int64_t i = 0; i < width; ++i) H[j * width + i] = layer.bias[tile.begin + j];
    }
  }
  const Blocks blocks(layer.dim);
  for (std::int64_t b = 0; b < blocks.count; ++b) {
    const std::int64_t k = blocks.begin(b), depth = blocks.end(b) - k;
    const auto W = widen_block(layer.weight + tile.begin * layer.dim + k, layer.dim, tile.rows, depth, tile.widened);
    product(W.data, W.stride, tile.rows, depth, x + (tile.patch * layer.dim + k) * width, H, tile.vectors,
            b > 0 || layer.bias);
  }
}

// g (P·d, width) = or += Wᵀ U, in the rows of the tile's patch.
template <class T> BK_HD void input_gradient(const Tile<T>& tile, const Compute<T>* U, Compute<T>* g, bool accumulate) {
  const Layer<T>& layer = tile.layer;
  const Blocks blocks(layer.dim);
  for (std::int64_t b = 0; b < blocks.count; ++b) {
    const std::int64_t k = blocks.begin(b), columns = blocks.end(b) - k;
    const auto W = widen_block(layer.weight + tile.begin * layer.dim + k, layer.dim, tile.rows, columns, tile.widened);
    transposed_product(W.data, W.stride, columns, tile.rows, U, g + (tile.patch * layer.dim + k) * tile.width(),
                       tile.vectors, accumulate);
  }
}

}  // namespace bk::cpu::BK_SIMD_LEVEL
