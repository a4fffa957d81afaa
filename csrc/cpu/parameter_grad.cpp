// Gradients of the parameters. A task owns a tile of neurons and meets all samples in order: nothing is left to add up.
#include "few.h"
#include "gate.h"
#include "tasks.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

template <class A> struct Gradients {
  A* gw;
  A* ga;
  A* gb;
};

template <class T> struct Problem {
  using A = Compute<T>;
  const Network<T>& network;
  const Samples<A>& samples;
  const A* cotangent;
  Gradients<A> out;
  Panels panels;
  std::int64_t tile_rows;

  BK_HD const A* rows(std::int64_t network) const { return samples.x + network * samples.network_stride; }
};

// The dimensions are the vector axis of a tile's gradient, in columns of kPanelVectors registers.
template <class A> struct Columns {
  static constexpr std::int64_t kWidth = kPanelVectors * Vec<A>::kLanes;
  std::int64_t dim;

  BK_HD std::int64_t count() const { return divide_up(dim, kWidth); }
  BK_HD std::int64_t size_of(std::int64_t c) const { return dim - c * kWidth < kWidth ? dim - c * kWidth : kWidth; }
};

// to (count, padded) from rows of x; zeros in the padding.
template <class A>
void pack_rows(const A* x, std::int64_t stride, std::int64_t count, std::int64_t size, std::int64_t padded, A* to) {
  using V = Vec<A>;
  for (std::int64_t i = 0; i < count; ++i) {
    std::int64_t k = 0;
    for (; k + V::kLanes <= size; k += V::kLanes) V::load(x + i * stride + k).store(to + i * padded + k);
    for (; k < size; ++k) to[i * padded + k] = x[i * stride + k];
    for (; k < padded; ++k) to[i * padded + k] = A(0);
  }
}

// sums (rows, lanes) += terms (rows, width) ∘ factor (width), or += terms where there is none.
template <class A> void add_rows(const A* terms, const A* factor, std::int64_t rows, std::int64_t width, A* sums) {
  using V = Vec<A>;
  for (std::int64_t j = 0; j < rows; ++j) {
    V sum = V::load(sums + j * V::kLanes);
    for (std::int64_t i = 0; i < width; i += V::kLanes) {
      const V term = V::load(terms + j * width + i);
      sum += factor ? term * V::load(factor + i) : term;
    }
    sum.store(sums + j * V::kLanes);
  }
}

// Panels that a tile meets between two visits to its gradient, which for a large dimension lies beyond L2.
constexpr std::int64_t kGroup = 4;

// What a task works in.
template <class T> struct TileMemory {
  using A = Compute<T>;
  A* widened;
  A* x;          // (P·d, width)
  A* cotangent;  // (heads, width)
  A* H;          // (kGroup, P, rows, width)
  A* other;      // (rows, width): slopes, then values
  A* packed;     // (kPanelVectors · lanes) samples of one column
  A* bias_sum;   // (rows, lanes)
  A* head_sum;   // (heads, rows, lanes)
  A* rest;       // (rows, lanes): the gradient in the dimensions that fill no register
  A* few;        // FewSamples' scratch

  static std::int64_t size(const Problem<T>& problem) {
    constexpr std::int64_t kLanes = Vec<A>::kLanes, kWidth = Columns<A>::kWidth;
    const std::int64_t rows = problem.tile_rows;
    const Network<T>& network = problem.network;
    return kWidenedBlock<T> + (network.patches * network.dim + network.heads) * kWidth +
           rows * kWidth * (kGroup * network.patches + 1) + kWidth * kWidth + rows * kLanes * (1 + network.heads) +
           rows * kLanes + FewSamples<A>::kScratch;
  }
  TileMemory(const Problem<T>& problem, A* memory) {
    constexpr std::int64_t kLanes = Vec<A>::kLanes, kWidth = Columns<A>::kWidth;
    const std::int64_t rows = problem.tile_rows;
    widened = memory;
    x = widened + kWidenedBlock<T>;
    cotangent = x + problem.network.patches * problem.network.dim * kWidth;
    H = cotangent + problem.network.heads * kWidth;
    other = H + rows * kWidth * kGroup * problem.network.patches;
    packed = other + rows * kWidth;
    bias_sum = packed + kWidth * kWidth;
    head_sum = bias_sum + rows * kLanes;
    rest = head_sum + rows * kLanes * problem.network.heads;
    few = rest + rows * kLanes;
  }
};

template <class A> void zero(A* to, std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i) to[i] = A(0);
}

// Loads a panel of samples. Lanes without a sample get a zero cotangent.
template <class T>
void load(const Problem<T>& problem, std::int64_t network, std::int64_t panel, const TileMemory<T>& memory) {
  using A = Compute<T>;
  const Panels& panels = problem.panels;
  const std::int64_t size = problem.network.patches * problem.network.dim, heads = problem.network.heads;
  const std::int64_t first = panels.first_sample(panel), count = panels.samples_of(panel);
  const std::int64_t vectors = panels.vectors_of(panel), width = vectors * panels.lanes;
  load_panel(problem.rows(network) + first * size, size, count, size, vectors, memory.x);
  const A* cotangent = problem.cotangent + (network * problem.samples.count + first) * heads;
  load_panel(cotangent, heads, count, heads, vectors, memory.cotangent);
  for (std::int64_t c = 0; c < heads; ++c) {
    for (std::int64_t i = count; i < width; ++i) memory.cotangent[c * width + i] = A(0);
  }
}

// U (rows, width) of the loaded panel; adds its sums over samples to the gradients of bias and head.
template <class T>
void add_gates(const Problem<T>& problem, const Tile<T>& tile, const FewSamples<Compute<T>>& few,
               const TileMemory<T>& memory, Compute<T>* U) {
  using A = Compute<T>;
  const Layer<T>& layer = tile.layer;
  const std::int64_t width = tile.width(), lanes = Vec<A>::kLanes, rows = tile.rows;
  if (few.count) {
    hidden(tile, few, U, memory.few);
  } else {
    hidden(tile, memory.x, U);
  }
  if (problem.out.ga) {
    gate_elements<A>(layer.activation, U, rows, tile.vectors, memory.other, nullptr);
    for (std::int64_t c = 0; c < layer.heads; ++c) {
      add_rows(memory.other, memory.cotangent + c * width, rows, width, memory.head_sum + c * rows * lanes);
    }
  }
  if (!problem.out.gw && !problem.out.gb) return;
  transposed_product<A>(layer.head + tile.begin, layer.neurons, rows, layer.heads, memory.cotangent, memory.other,
                        tile.vectors, false);
  gate_elements<A>(layer.activation, U, rows, tile.vectors, nullptr, memory.other);
  if (problem.out.gb) add_rows<A>(U, nullptr, rows, width, memory.bias_sum);
}

// Adds what panels [begin, end), at most kGroup, give to the tile.
template <class T>
void add_panels(const Problem<T>& problem, std::int64_t network, std::int64_t begin, std::int64_t end, Tile<T>& tile,
                const TileMemory<T>& memory) {
  using A = Compute<T>;
  const Layer<T>& layer = tile.layer;
  const std::int64_t size = layer.size(), lanes = Vec<A>::kLanes, rows = tile.rows;
  const Columns<A> columns{layer.dim};
  const auto U = [&](std::int64_t panel, std::int64_t patch) {
    return memory.H + ((panel - begin) * layer.patches + patch) * rows * columns.kWidth;
  };
  for (std::int64_t panel = begin; panel < end; ++panel) {
    tile.vectors = problem.panels.vectors_of(panel);
    load(problem, network, panel, memory);
    const std::int64_t count = problem.panels.samples_of(panel);
    const A* x = problem.rows(network) + problem.panels.first_sample(panel) * size;
    const FewSamples<A> few{FewSamples<A>::applies(count, tile.vectors, layer.dim) ? count : 0, x};
    for (tile.patch = 0; tile.patch < layer.patches; ++tile.patch) {
      add_gates(problem, tile, few, memory, U(panel, tile.patch));
    }
  }
  for (std::int64_t c = 0; problem.out.gw && c < columns.count(); ++c) {
    const std::int64_t full = columns.size_of(c) / lanes, width = divide_up(columns.size_of(c), lanes) * lanes;
    A* gw = problem.out.gw + (network * layer.neurons + tile.begin) * layer.dim + c * columns.kWidth;
    for (std::int64_t panel = begin; panel < end; ++panel) {
      const std::int64_t count = problem.panels.samples_of(panel), stride = problem.panels.vectors_of(panel) * lanes;
      const A* x = problem.rows(network) + problem.panels.first_sample(panel) * size + c * columns.kWidth;
      for (std::int64_t patch = 0; patch < layer.patches; ++patch) {
        const bool accumulate = panel > 0 || patch > 0;
        pack_rows(x + patch * layer.dim, size, count, columns.size_of(c), width, memory.packed);
        strided_product<A>(U(panel, patch), stride, rows, count, memory.packed, width, gw, layer.dim, full, accumulate);
        if (full * lanes == width) continue;
        strided_product<A>(U(panel, patch), stride, rows, count, memory.packed + full * lanes, width, memory.rest,
                           lanes, 1, accumulate);
      }
    }
  }
}

template <class T>
void store_tile(const Problem<T>& problem, std::int64_t network, const Tile<T>& tile, const TileMemory<T>& memory) {
  using V = Vec<Compute<T>>;
  const Layer<T>& layer = tile.layer;
  const std::int64_t row = network * layer.neurons + tile.begin, rest = layer.dim % V::kLanes;
  for (std::int64_t j = 0; j < tile.rows; ++j) {
    if (problem.out.gw) {
      Compute<T>* last = problem.out.gw + (row + j + 1) * layer.dim - rest;
      for (std::int64_t k = 0; k < rest; ++k) last[k] = memory.rest[j * V::kLanes + k];
    }
    if (problem.out.gb) problem.out.gb[row + j] = sum_lanes(V::load(memory.bias_sum + j * V::kLanes));
    for (std::int64_t c = 0; problem.out.ga && c < layer.heads; ++c) {
      const Compute<T>* from = memory.head_sum + (c * tile.rows + j) * V::kLanes;
      problem.out.ga[(network * layer.heads + c) * layer.neurons + tile.begin + j] = sum_lanes(V::load(from));
    }
  }
}

template <class T> void tile_gradient(const Problem<T>& problem, std::int64_t network, std::int64_t begin) {
  using A = Compute<T>;
  const Layer<T> layer(problem.network, network);
  const std::int64_t rows = layer.neurons - begin < problem.tile_rows ? layer.neurons - begin : problem.tile_rows;
  const Numbers<A> numbers(TileMemory<T>::size(problem));
  const TileMemory<T> memory(problem, numbers.data());
  zero(memory.bias_sum, rows * Vec<A>::kLanes);
  zero(memory.head_sum, rows * Vec<A>::kLanes * layer.heads);
  const std::int64_t panels = problem.panels.count;
  if (problem.out.gw && panels == 0) {  // no sample: no product below writes the gradient
    zero(problem.out.gw + (network * layer.neurons + begin) * layer.dim, rows * layer.dim);
    zero(memory.rest, rows * Vec<A>::kLanes);
  }
  Tile<T> tile{layer, begin, rows, 0, 0, memory.widened};
  for (std::int64_t panel = 0; panel < panels; panel += kGroup) {
    add_panels(problem, network, panel, panel + kGroup < panels ? panel + kGroup : panels, tile, memory);
  }
  store_tile(problem, network, tile, memory);
}

}  // namespace

template <class T>
void two_layer_parameter_grad(const Network<T>& network, const Samples<Compute<T>>& samples,
                              const Compute<T>* cotangent, Compute<T>* gw, Compute<T>* ga, Compute<T>* gb,
                              Parallel run) {
  using A = Compute<T>;
  const std::int64_t size = network.patches * network.dim;
  const double work = 2.0 * static_cast<double>(samples.count) * static_cast<double>(network.neurons) *
                      static_cast<double>(size) * static_cast<double>(network.networks);
  if (work < kParallelWork) run.threads = 1;
  // Panels and tiles: the panels' cuts shape the sums over samples, so the number of threads must not enter them.
  std::int64_t tile_rows = kTileNeurons;
  const std::int64_t fair = divide_up(network.neurons * network.networks, run.threads);
  if (fair < tile_rows) tile_rows = fair < 1 ? 1 : fair;
  const Problem<T> problem{network, samples, cotangent, {gw, ga, gb}, make_panels<A>(samples.count, 1), tile_rows};
  const std::int64_t tiles = divide_up(network.neurons, tile_rows);
  for_each_task(run, network.networks * tiles,
                [&](std::int64_t task) { tile_gradient(problem, task / tiles, task % tiles * tile_rows); });
}

#define BK_INSTANTIATE(T)                                                                                     \
  template void two_layer_parameter_grad<T>(const Network<T>&, const Samples<Compute<T>>&, const Compute<T>*, \
                                            Compute<T>*, Compute<T>*, Compute<T>*, Parallel);
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)
BK_INSTANTIATE(BFloat16)

}  // namespace bk::cpu::BK_SIMD_LEVEL
