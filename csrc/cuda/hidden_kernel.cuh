// The kernel of hidden.cuh. Included by one .cu per storage type, which compile side by side.
#pragma once

#include "hidden.cuh"

namespace bk::cuda {
namespace {

// The activations known at compile time cost a few instructions, so that all 16 of a thread's numbers are unrolled.
// Of the others one copy of the code is kept: the tile turns through it, one number at a time (a loop index into
// registers would move the tile to local memory).
template <class A, class Map> __device__ void map_unrolled(Tile<A>& tile, Map map) {
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) tile.v[i][j] = map(tile.v[i][j]);
  }
}

template <class A, class Map> __device__ void map_turning(Tile<A>& tile, Map map) {
#pragma unroll 1
  for (int turn = 0; turn < kPerThread * kPerThread; ++turn) {
    const A mapped = map(tile.v[0][0]);
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
      for (int j = 0; j + 1 < kPerThread; ++j) tile.v[i][j] = tile.v[i][j + 1];
      tile.v[i][kPerThread - 1] = i + 1 < kPerThread ? tile.v[i + 1][0] : mapped;
    }
  }
}

// tile = map(φ, tile), with one φ for the whole tile: what a run-time φ computes from its parameters, it computes once.
template <class Phi, class A, class Map> __device__ void map_tile(const Phi& phi, Tile<A>& tile, Map map) {
  if constexpr (Phi::kPiecewiseLinear) {
    map_unrolled(tile, [&](A h) { return map(phi, h); });
  } else {
    visit_activation(phi.activation, [&](auto one) { map_turning(tile, [&](A h) { return map(one, h); }); });
  }
}

// The sum over the 16 threads that hold a row of the tile; all of them get it.
template <class A> __device__ A sum_along_row(A value) {
#pragma unroll
  for (int distance = kLanes / 2; distance > 0; distance /= 2) {
    value += __shfl_xor_sync(kFullWarp, value, distance, kLanes);
  }
  return value;
}

template <class A> struct ColumnSums {
  A v[kThreads / kWarp][kTile];
};

// One tile, and the thread's place in it.
template <class T> struct TileOfLayer {
  using A = Compute<T>;
  const Hidden<T>& layer;
  int64_t network;
  int64_t first_row, first_column;  // of the thread; the column counts from layer.first_neuron
  int64_t row_tile, neuron_tile;

  __device__ bool row_inside(int i) const { return first_row + i < layer.rows(); }
  __device__ bool column_inside(int j) const { return first_column + j < layer.neurons; }
  __device__ int64_t sample(int i) const { return (first_row + i) / layer.network.patches; }
  __device__ int64_t patch(int i) const { return (first_row + i) % layer.network.patches; }

  // Outside the matrix: zero, so that sums need no further test.
  __device__ A head(int64_t c, int j) const {
    const int64_t neuron = layer.first_neuron + first_column + j;
    const Network<T>& net = layer.network;
    return column_inside(j) ? net.head[(network * net.heads + c) * net.neurons + neuron] : A(0);
  }
  __device__ A cotangent(int64_t c, int i) const {
    if (!row_inside(i)) return A(0);
    return layer.cotangent ? layer.cotangent[(network * layer.samples + sample(i)) * layer.network.heads + c] : A(1);
  }
  __device__ A neuron_value(const A* values, int j) const {
    return column_inside(j) ? values[network * layer.network.neurons + layer.first_neuron + first_column + j] : A(0);
  }
  // Index of the row's number in (neuron tiles, P, networks, n).
  __device__ int64_t part(int i) const {
    return ((neuron_tile * layer.network.patches + patch(i)) * layer.network.networks + network) * layer.samples +
           sample(i);
  }
};

// Writes the sum over the rows of the tile for each of its columns: column(j) is the thread's own contribution.
template <class T, class Column>
__device__ void sum_along_columns(const TileOfLayer<T>& at, ColumnSums<Compute<T>>& sums, Compute<T>* out,
                                  Column column) {
  const int t = static_cast<int>(threadIdx.x);
#pragma unroll
  for (int j = 0; j < kPerThread; ++j) {
    Compute<T> value = column(j);
    value += __shfl_xor_sync(kFullWarp, value, kLanes);  // the two rows of threads in this warp
    if (t % kWarp < kLanes) sums.v[t / kWarp][tile_column() + j] = value;
  }
  __syncthreads();
  const int64_t neuron = at.neuron_tile * kTile + t;
  if (t < kTile && neuron < at.layer.neurons) {
    Compute<T> total = sums.v[0][t];
#pragma unroll
    for (int warp = 1; warp < kThreads / kWarp; ++warp) total += sums.v[warp][t];
    out[neuron] = total;
  }
  __syncthreads();
}

// f and the gradient of a: both from φ(H).
template <class T>
__device__ void emit_values(const TileOfLayer<T>& at, const Tile<Compute<T>>& value, ColumnSums<Compute<T>>& sums) {
  using A = Compute<T>;
  const Hidden<T>& layer = at.layer;
  const int64_t heads = layer.network.heads;
  for (int64_t c = 0; layer.value_parts != nullptr && c < heads; ++c) {
    A head[kPerThread];
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) head[j] = at.head(c, j);
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      A sum = A(0);
#pragma unroll
      for (int j = 0; j < kPerThread; ++j) sum += head[j] * value.v[i][j];
      sum = sum_along_row(sum);
      if (tile_column() == 0 && at.row_inside(i)) layer.value_parts[at.part(i) * heads + c] = sum;
    }
  }
  for (int64_t c = 0; layer.head_parts != nullptr && c < heads; ++c) {
    A cotangent[kPerThread];
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) cotangent[i] = at.cotangent(c, i);
    A* out = layer.head_parts + ((at.row_tile * layer.network.networks + at.network) * heads + c) * layer.neurons;
    sum_along_columns(at, sums, out, [&](int j) {
      A sum = A(0);
#pragma unroll
      for (int i = 0; i < kPerThread; ++i) sum += cotangent[i] * value.v[i][j];
      return sum;
    });
  }
}

// U = φ'(H) ∘ R a, and its sums. `gate` is φ'(H) and becomes U.
template <class T>
__device__ void emit_gated(const TileOfLayer<T>& at, Tile<Compute<T>>& gate, ColumnSums<Compute<T>>& sums) {
  using A = Compute<T>;
  const Hidden<T>& layer = at.layer;
  Tile<A> mix;  // R a
  clear(mix);
  for (int64_t c = 0; c < layer.network.heads; ++c) {
    A head[kPerThread];
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) head[j] = at.head(c, j);
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
      const A cotangent = at.cotangent(c, i);
#pragma unroll
      for (int j = 0; j < kPerThread; ++j) mix.v[i][j] += cotangent * head[j];
    }
  }
  A norm[kPerThread];
#pragma unroll
  for (int j = 0; j < kPerThread; ++j) norm[j] = layer.scale_parts ? at.neuron_value(layer.weight_norm, j) : A(0);

#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    A scale = A(0);
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) {
      const A gated = gate.v[i][j] * mix.v[i][j];
      gate.v[i][j] = gated;
      scale += magnitude(gated) * norm[j];
      if (layer.gated != nullptr && at.row_inside(i) && at.column_inside(j)) {
        layer.gated[(at.network * layer.rows() + at.first_row + i) * layer.neurons + at.first_column + j] = gated;
      }
    }
    if (layer.scale_parts == nullptr) continue;
    scale = sum_along_row(scale);
    if (tile_column() == 0 && at.row_inside(i)) layer.scale_parts[at.part(i)] = scale;
  }
  if (layer.bias_parts == nullptr) return;
  A* out = layer.bias_parts + (at.row_tile * layer.network.networks + at.network) * layer.neurons;
  sum_along_columns(at, sums, out, [&](int j) {
    A sum = A(0);
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) sum += gate.v[i][j];
    return sum;
  });
}

// H without bias, from the parts of a split product.
template <class T>
__device__ void load_preactivation(const TileOfLayer<T>& at, const Compute<T>* parts, int splits,
                                   Tile<Compute<T>>& tile) {
  const int64_t rows = at.layer.rows(), neurons = at.layer.neurons;
  clear(tile);
  for (int split = 0; split < splits; ++split) {
    const Compute<T>* part =
        parts + ((split * at.layer.network.networks + at.network) * rows + at.first_row) * neurons + at.first_column;
    Tile<Compute<T>> read;  // all of it before anything is added: it is waited for once
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
      for (int j = 0; j < kPerThread; ++j) {
        read.v[i][j] = at.row_inside(i) && at.column_inside(j) ? part[i * neurons + j] : Compute<T>(0);
      }
    }
    add(tile, read);
  }
}

struct NoGates {};
template <class T> __device__ void emit_gates(const TileOfLayer<T>&, const NoGates&, const Tile<Compute<T>>&) {}

// Eight neighbouring threads hold the neurons of a word, four each; each of the first four writes the word of one row.
template <class T>
__device__ void emit_gates(const TileOfLayer<T>& at, const GateBits& bits, const Tile<Compute<T>>& h) {
  constexpr int kThreadsPerWord = kWordBits / kPerThread;
  const int place = static_cast<int>(threadIdx.x) % kThreadsPerWord;
  const int64_t words = gate_words(at.layer.network.neurons);
  const int64_t word = (at.layer.first_neuron + at.first_column) / kWordBits;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
    std::uint32_t open = 0;
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) {
      const bool is_open = at.column_inside(j) && !(h.v[i][j] <= Compute<T>(0));
      open |= static_cast<std::uint32_t>(is_open) << (place * kPerThread + j);
    }
#pragma unroll
    for (int distance = kThreadsPerWord / 2; distance > 0; distance /= 2) {
      open |= __shfl_xor_sync(kFullWarp, open, distance, kThreadsPerWord);
    }
    if (place == i && at.row_inside(i)) {
      const int64_t index = (at.network * at.layer.rows() + at.first_row + i) * words + word;
      if (bits.flips != nullptr) {
        const std::uint32_t flips = bits.open[index] ^ open;
        bits.flips[index] = flips;
        if (flips != 0) {
          atomicAdd(&bits.counts[at.network * at.layer.samples + at.sample(i)],
                    static_cast<unsigned long long>(__popc(flips)));
        }
      }
      bits.open[index] = open;
    }
  }
}

// H without bias of one tile → add the bias → the gates → φ(H) and its sums → φ'(H) and its sums.
template <class T, class Phi, class Gates>
__device__ void finish_tile(const TileOfLayer<T>& at, const Phi& phi, const Gates& gates, Tile<Compute<T>>& h,
                            ColumnSums<Compute<T>>& sums) {
  using A = Compute<T>;
  const Hidden<T>& layer = at.layer;
  const A* all_bias = layer.network.bias;
  if (all_bias != nullptr) {
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) {
      const A bias = at.neuron_value(all_bias, j);
#pragma unroll
      for (int i = 0; i < kPerThread; ++i) h.v[i][j] += bias;
    }
  }
  emit_gates(at, gates, h);
  if (layer.value_parts != nullptr || layer.head_parts != nullptr) {
    Tile<A> value = h;
    map_tile(phi, value, [](const auto& one, A x) { return one.value(x); });
    emit_values(at, value, sums);
  }
  if (layer.gated != nullptr || layer.scale_parts != nullptr || layer.bias_parts != nullptr) {
    map_tile(phi, h, [](const auto& one, A x) { return one.first(x); });
    emit_gated(at, h, sums);
  }
}

template <class T> __device__ TileOfLayer<T> tile_of_layer(const Hidden<T>& layer, const Place& place) {
  return {layer,          place.network,    place.row() + tile_row(), place.column() + tile_column(),
          place.row_tile, place.column_tile};
}

template <class T, class Phi, class Gates, Precision kPrecision, int kTileSide>
__global__ void __launch_bounds__(kThreads, kBlocksPerProcessor<Compute<T>, kTileSide>)
    hidden_kernel(const Hidden<T> layer, const Phi phi, const Gates gates) {
  using A = Compute<T>;
  using Sums = TileSums<A, T, kPrecision, kTileSide>;
  using Memory = TileMemory<Sums, ColumnSums<A>>;
  constexpr int kSide = Sums::kSide;
  if (kSide != kTileSide) return;  // without tensor cores there are no large tiles, nor is one asked for
  BK_SHARED(Memory, memory);
  const Network<T>& net = layer.network;
  const Place at = place_of<kSide>(net.networks, layer.rows(), layer.neurons);
  const Operand<A> x{layer.x, layer.x_network_stride, net.dim};
  const Operand<T> w{net.weight + layer.first_neuron * net.dim, net.neurons * net.dim, net.dim};
  Sums sums(layer.rows() - at.row());
  multiply(PanelLoader<A, A, true, kSide>(x, at.network, at.row(), layer.rows()),
           PanelLoader<A, T, true, kSide>(w, at.network, at.column(), layer.neurons), 0, net.dim, memory.panels, sums);
  for_each_tile(sums, memory.after.staged, at, layer.rows(), layer.neurons, [&](const Place& place, Tile<A>& h) {
    finish_tile(tile_of_layer(layer, place), phi, gates, h, memory.after.epilogue);
  });
}

// The same of H as it is in memory.
template <class T, class Phi, class Gates>
__global__ void __launch_bounds__(kThreads, kBlocksPerProcessor<Compute<T>>)
    finish_kernel(const Hidden<T> layer, const Phi phi, const Gates gates, const Compute<T>* parts, const int splits) {
  using A = Compute<T>;
  BK_SHARED(ColumnSums<A>, sums);
  const Place place = place_of<kTile>(layer.network.networks, layer.rows(), layer.neurons);
  const TileOfLayer<T> at = tile_of_layer(layer, place);
  Tile<A> h;
  load_preactivation(at, parts, splits, h);
  finish_tile(at, phi, gates, h, sums);
}

// With no splits H is computed, else it is the sum of as many parts.
template <class T, class Phi, class Gates>
int launch_hidden(const Hidden<T>& layer, const Phi& phi, const Gates& gates, const Compute<T>* parts, int splits,
                  cudaStream_t stream) {
  using A = Compute<T>;
  const auto tiles_of_side = [&](int side) {
    return tiles_of(layer.network.networks, layer.rows(), layer.neurons, side);
  };
  if (splits > 0) {
    return launch(finish_kernel<T, Phi, Gates>, tiles_of_side(kTile), stream, layer, phi, gates, parts, splits);
  }
  return with_precision<A>(layer.arithmetic.precision, [&](auto precision) {
    return with_side<A>(layer.arithmetic, tiles_of_side, [&](auto side, int64_t tiles) {
      return launch(hidden_kernel<T, Phi, Gates, precision.value, side.value>, tiles, stream, layer, phi, gates);
    });
  });
}

// finish(parts, splits) is called with as many parts of H, or none of them.
template <class T, class Finish>
int split_hidden(const Hidden<T>& layer, Compute<T>* preactivations, Compute<T>* parts, cudaStream_t stream,
                 Finish finish) {
  using A = Compute<T>;
  const Network<T>& net = layer.network;
  Product<A, T> product{
      {layer.x, layer.x_network_stride, net.dim},
      {net.weight + layer.first_neuron * net.dim, net.neurons * net.dim, net.dim},
      net.networks,
      layer.rows(),
      layer.neurons,
      net.dim,
      parts,
      layer.rows() * layer.neurons,
      false,
      layer.arithmetic,
  };
  if (library_makes_hidden<T>(layer.arithmetic, net.networks, layer.rows(), layer.neurons, net.dim)) {
    product.out = preactivations;  // a thread reads its numbers of H before it writes those of U
    BK_TRY(multiply_xw(product, nullptr, stream));
    return finish(preactivations, 1);
  }
  const int splits = split_count(net.networks, layer.rows(), layer.neurons, net.dim);
  if (splits == 1) return finish(nullptr, 0);
  BK_TRY(multiply_xw_parts(product, splits, stream));
  return finish(parts, splits);
}

}  // namespace

template <class T>
int hidden(const Hidden<T>& layer, Compute<T>* preactivations, Compute<T>* parts, cudaStream_t stream) {
  return split_hidden(layer, preactivations, parts, stream, [&](const Compute<T>* summed, int count) {
    return specialise_activation(layer.network.activation,
                                 [&](auto phi) { return launch_hidden(layer, phi, NoGates{}, summed, count, stream); });
  });
}

template <class T>
int hidden_and_gates(const Hidden<T>& layer, const GateBits& bits, Compute<T>* preactivations, Compute<T>* parts,
                     cudaStream_t stream) {
  using A = Compute<T>;
  return split_hidden(layer, preactivations, parts, stream, [&](const A* summed, int count) {
    return launch_hidden(layer, gate_of<A>(layer.network.activation), bits, summed, count, stream);
  });
}

}  // namespace bk::cuda
