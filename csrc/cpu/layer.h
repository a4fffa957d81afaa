// One network of a batch, and how its neurons are cut: into slabs that may run in parallel, slabs into tiles, and the
// dimensions of a tile into blocks. All cuts depend on the network's shape alone, so that results do too.
#pragma once

#include <cstdint>

#include "../model/network.h"
#include "simd.h"

namespace bk::cpu::BK_SIMD_LEVEL {

constexpr std::int64_t kTileNeurons = 128;  // a tile of H, 128 × 4 registers, is 32 KiB at AVX-512: it stays in L1
constexpr std::int64_t kBlockDims = 256;    // 256 × 4 registers of x, 64 KiB, stream from L2
constexpr std::int64_t kMaxSlabs = 32;
constexpr std::int64_t kSlabWork = 1 << 18;  // multiply-adds per sample: worth the start of a task, about 10 µs

constexpr double kMaxParts = 1 << 28;      // bytes of the slabs' gradients where slabs run at the same time
constexpr double kParallelWork = 1 << 21;  // multiply-adds below which a call stays on its thread

BK_HD std::int64_t divide_up(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

template <class T> struct Layer {
  using A = Compute<T>;
  const T* weight;
  const A* head;
  const A* bias;
  const A* head_bias;
  const A* norms = nullptr;  // ‖w_j‖ (neurons), where the attack's zero rule needs them
  std::int64_t neurons;
  std::int64_t dim;
  std::int64_t patches;
  std::int64_t heads;
  Activation activation;

  BK_HD Layer(const Network<T>& network, std::int64_t index)
      : weight(network.weight + index * network.neurons * network.dim),
        head(network.head + index * network.heads * network.neurons),
        bias(network.bias ? network.bias + index * network.neurons : nullptr),
        head_bias(network.head_bias ? network.head_bias + index * network.heads : nullptr),
        neurons(network.neurons),
        dim(network.dim),
        patches(network.patches),
        heads(network.heads),
        activation(network.activation) {}

  BK_HD std::int64_t size() const { return patches * dim; }
};

// Neurons [begin(s), end(s)) make slab s.
struct Slabs {
  std::int64_t neurons;
  std::int64_t height;
  std::int64_t count;

  BK_HD Slabs(std::int64_t neurons, std::int64_t dim, std::int64_t patches) : neurons(neurons) {
    const std::int64_t worth = neurons * dim * patches / kSlabWork;
    const std::int64_t wanted = worth < 1 ? 1 : worth < kMaxSlabs ? worth : kMaxSlabs;
    const std::int64_t tiles = divide_up(neurons, kTileNeurons);
    height = (tiles < 1 ? 1 : divide_up(tiles, wanted)) * kTileNeurons;
    count = neurons < 1 ? 1 : divide_up(neurons, height);
  }
  BK_HD std::int64_t begin(std::int64_t slab) const { return slab * height; }
  BK_HD std::int64_t end(std::int64_t slab) const {
    return (slab + 1) * height < neurons ? (slab + 1) * height : neurons;
  }
};

// Dimensions [begin(b), end(b)) make block b; one empty block when there are none.
struct Blocks {
  std::int64_t dim;
  std::int64_t count;

  BK_HD explicit Blocks(std::int64_t dim) : dim(dim), count(dim < 1 ? 1 : divide_up(dim, kBlockDims)) {}
  BK_HD std::int64_t begin(std::int64_t block) const { return dim * block / count; }
  BK_HD std::int64_t end(std::int64_t block) const { return dim * (block + 1) / count; }
};

// A block of rows of W in the computing type: W itself, or widened to `buffer` (rows, columns).
template <class A> struct WeightBlock {
  const A* data;
  std::int64_t stride;
};

template <class A>
BK_HD WeightBlock<A> widen_block(const A* weight, std::int64_t stride, std::int64_t, std::int64_t, A*) {
  return {weight, stride};
}
BK_HD WeightBlock<float> widen_block(const BFloat16* weight, std::int64_t stride, std::int64_t rows,
                                     std::int64_t columns, float* buffer) {
  for (std::int64_t j = 0; j < rows; ++j) {
    for (std::int64_t k = 0; k < columns; ++k) buffer[j * columns + k] = widen(weight[j * stride + k]);
  }
  return {buffer, columns};
}

// Numbers of widen_block's buffer.
template <class T>
constexpr std::int64_t kWidenedBlock = sizeof(T) < sizeof(Compute<T>) ? kTileNeurons * kBlockDims : 0;

}  // namespace bk::cpu::BK_SIMD_LEVEL
