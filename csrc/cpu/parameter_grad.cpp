// Gradients of the parameters. A task owns a tile of neurons and meets all samples in order: nothing is left to add up.
#include "gate.h"
#include "hidden.h"
#include "panel.h"
#include "tasks.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

template <class A> struct Gradients {
  A* gw;
  A* ga;
  A* gb;
};

// The samples of one network as panels: x (P·d, width) and the cotangent (heads, width) of each, one after the other.
template <class A> struct PanelSamples {
  const A* rows;  // (n, P·d)
  const A* x;
  const A* cotangent;
};

template <class T> struct Problem {
  using A = Compute<T>;
  const Network<T>& network;
  const Samples<A>& samples;
  const A* cotangent;
  Gradients<A> out;
  Panels panels;
  std::int64_t tile_rows;
};

// The tile's dimensions are the vector axis of its gradient: columns of kPanelVectors registers, (column, rows, width).
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

// What a task works in.
template <class T> struct TileMemory {
  using A = Compute<T>;
  A* widened;
  A* H;         // (rows, width)
  A* other;     // (rows, width): slopes, then values
  A* packed;    // (kPanelVectors · lanes) samples of one column
  A* bias_sum;  // (rows, lanes)
  A* head_sum;  // (heads, rows, lanes)
  A* gradient;  // (columns, rows, column width)

  static std::int64_t size(const Problem<T>& problem) {
    constexpr std::int64_t kLanes = Vec<A>::kLanes, kWidth = Columns<A>::kWidth;
    const std::int64_t rows = problem.tile_rows;
    return kWidenedBlock<T> + rows * kWidth * 2 + kWidth * kWidth + rows * kLanes * (1 + problem.network.heads) +
           Columns<A>{problem.network.dim}.count() * rows * kWidth;
  }
  TileMemory(const Problem<T>& problem, A* memory) {
    constexpr std::int64_t kLanes = Vec<A>::kLanes, kWidth = Columns<A>::kWidth;
    const std::int64_t rows = problem.tile_rows;
    widened = memory;
    H = widened + kWidenedBlock<T>;
    other = H + rows * kWidth;
    packed = other + rows * kWidth;
    bias_sum = packed + kWidth * kWidth;
    head_sum = bias_sum + rows * kLanes;
    gradient = head_sum + rows * kLanes * problem.network.heads;
  }
};

template <class A> void zero(A* to, std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i) to[i] = A(0);
}

// Adds what one panel of samples gives to the tile.
template <class T>
void add_panel(const Problem<T>& problem, const PanelSamples<Compute<T>>& samples, std::int64_t panel,
               const Tile<T>& tile, const TileMemory<T>& memory) {
  using A = Compute<T>;
  const Layer<T>& layer = tile.layer;
  const std::int64_t width = tile.width(), size = layer.size(), lanes = Vec<A>::kLanes, rows = tile.rows;
  const std::int64_t first = problem.panels.first_sample(panel), count = problem.panels.samples_of(panel);
  const A* cotangent = samples.cotangent + first * layer.heads;
  const A* head = layer.head + tile.begin;
  hidden(tile, samples.x + first * size, memory.H);
  if (problem.out.ga) {
    gate_elements<A>(layer.activation, memory.H, rows, tile.vectors, memory.other, nullptr);
    for (std::int64_t c = 0; c < layer.heads; ++c) {
      add_rows(memory.other, cotangent + c * width, rows, width, memory.head_sum + c * rows * lanes);
    }
  }
  if (!problem.out.gw && !problem.out.gb) return;
  transposed_product(head, layer.neurons, rows, layer.heads, cotangent, memory.other, tile.vectors, false);
  gate_elements<A>(layer.activation, memory.H, rows, tile.vectors, nullptr, memory.other);
  if (problem.out.gb) add_rows<A>(memory.H, nullptr, rows, width, memory.bias_sum);
  if (!problem.out.gw) return;
  const Columns<A> columns{layer.dim};
  const A* x = samples.rows + first * size + tile.patch * layer.dim;
  for (std::int64_t c = 0; c < columns.count(); ++c) {
    const std::int64_t vectors = divide_up(columns.size_of(c), lanes);
    pack_rows(x + c * columns.kWidth, size, count, columns.size_of(c), vectors * lanes, memory.packed);
    product(memory.H, width, rows, count, memory.packed, memory.gradient + c * rows * columns.kWidth, vectors, true);
  }
}

template <class T>
void store_tile(const Problem<T>& problem, std::int64_t network, const Tile<T>& tile, const TileMemory<T>& memory) {
  using A = Compute<T>;
  using V = Vec<A>;
  const Layer<T>& layer = tile.layer;
  const Columns<A> columns{layer.dim};
  const std::int64_t row = network * layer.neurons + tile.begin;
  for (std::int64_t j = 0; j < tile.rows; ++j) {
    for (std::int64_t c = 0; problem.out.gw && c < columns.count(); ++c) {
      const std::int64_t size = columns.size_of(c), width = divide_up(size, V::kLanes) * V::kLanes;
      const A* from = memory.gradient + c * tile.rows * columns.kWidth + j * width;
      A* to = problem.out.gw + (row + j) * layer.dim + c * columns.kWidth;
      for (std::int64_t k = 0; k < size; ++k) to[k] = from[k];
    }
    if (problem.out.gb) problem.out.gb[row + j] = sum_lanes(V::load(memory.bias_sum + j * V::kLanes));
    for (std::int64_t c = 0; problem.out.ga && c < layer.heads; ++c) {
      const A* from = memory.head_sum + (c * tile.rows + j) * V::kLanes;
      problem.out.ga[(network * layer.heads + c) * layer.neurons + tile.begin + j] = sum_lanes(V::load(from));
    }
  }
}

template <class T>
void tile_gradient(const Problem<T>& problem, const PanelSamples<Compute<T>>& samples, std::int64_t network,
                   std::int64_t begin) {
  using A = Compute<T>;
  const Layer<T> layer(problem.network, network);
  const std::int64_t rows = layer.neurons - begin < problem.tile_rows ? layer.neurons - begin : problem.tile_rows;
  const Numbers<A> numbers(TileMemory<T>::size(problem));
  const TileMemory<T> memory(problem, numbers.data());
  zero(memory.bias_sum, rows * Vec<A>::kLanes);
  zero(memory.head_sum, rows * Vec<A>::kLanes * layer.heads);
  if (problem.out.gw) zero(memory.gradient, Columns<A>{layer.dim}.count() * rows * Columns<A>::kWidth);
  Tile<T> tile{layer, begin, rows, 0, 0, memory.widened};
  for (std::int64_t panel = 0; panel < problem.panels.count; ++panel) {
    tile.vectors = problem.panels.vectors_of(panel);
    for (tile.patch = 0; tile.patch < layer.patches; ++tile.patch) add_panel(problem, samples, panel, tile, memory);
  }
  store_tile(problem, network, tile, memory);
}

template <class T>
void load_inputs(const Problem<T>& problem, std::int64_t network, std::int64_t panel, Compute<T>* x) {
  const Panels& panels = problem.panels;
  const std::int64_t size = problem.network.patches * problem.network.dim, first = panels.first_sample(panel);
  load_panel(problem.samples.x + network * problem.samples.network_stride + first * size, size,
             panels.samples_of(panel), size, panels.vectors_of(panel), x + first * size);
}

// Lanes without a sample get a zero cotangent.
template <class T>
void load_cotangent(const Problem<T>& problem, std::int64_t network, std::int64_t panel, Compute<T>* cotangent) {
  using A = Compute<T>;
  const Panels& panels = problem.panels;
  const std::int64_t heads = problem.network.heads, first = panels.first_sample(panel);
  const std::int64_t count = panels.samples_of(panel), width = panels.vectors_of(panel) * panels.lanes;
  A* to = cotangent + first * heads;
  load_panel(problem.cotangent + (network * problem.samples.count + first) * heads, heads, count, heads,
             panels.vectors_of(panel), to);
  for (std::int64_t c = 0; c < heads; ++c) {
    for (std::int64_t i = count; i < width; ++i) to[c * width + i] = A(0);
  }
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
  // A tile's gradient should stay in L2.
  constexpr std::int64_t kTileBytes = 1 << 19;
  std::int64_t tile_rows = kTileBytes / (static_cast<std::int64_t>(sizeof(A)) * (network.dim + 1));
  tile_rows = tile_rows < 24 ? 24 : tile_rows > kTileNeurons ? kTileNeurons : tile_rows;
  const std::int64_t fair = divide_up(network.neurons * network.networks, run.threads);
  if (fair < tile_rows) tile_rows = fair < 1 ? 1 : fair;
  const Problem<T> problem{network, samples, cotangent, {gw, ga, gb}, make_panels<A>(samples.count, 1), tile_rows};
  const Panels& panels = problem.panels;

  const std::int64_t padded = panels.vectors * panels.lanes;
  const std::int64_t tiles = divide_up(network.neurons, tile_rows);
  const std::int64_t inputs = samples.network_stride ? network.networks : 1;  // one, when all networks share them
  const Numbers<A> x(inputs * padded * size);
  const Numbers<A> cotangents(network.networks * padded * network.heads);
  for_each_task(run, inputs * panels.count, [&](std::int64_t task) {
    load_inputs(problem, task / panels.count, task % panels.count, x.data() + task / panels.count * padded * size);
  });
  for_each_task(run, network.networks * panels.count, [&](std::int64_t task) {
    load_cotangent(problem, task / panels.count, task % panels.count,
                   cotangents.data() + task / panels.count * padded * network.heads);
  });
  for_each_task(run, network.networks * tiles, [&](std::int64_t task) {
    const std::int64_t index = task / tiles;
    const PanelSamples<A> panel_samples{samples.x + index * samples.network_stride,
                                        x.data() + (samples.network_stride ? index : 0) * padded * size,
                                        cotangents.data() + index * padded * network.heads};
    tile_gradient(problem, panel_samples, index, task % tiles * tile_rows);
  });
}

#define BK_INSTANTIATE(T)                                                                                     \
  template void two_layer_parameter_grad<T>(const Network<T>&, const Samples<Compute<T>>&, const Compute<T>*, \
                                            Compute<T>*, Compute<T>*, Compute<T>*, Parallel);
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)
BK_INSTANTIATE(BFloat16)

}  // namespace bk::cpu::BK_SIMD_LEVEL
