#include "attack_chunk.cuh"
#include "half_sparse.cuh"
#include "half_sparse_rows.cuh"

namespace bk::cuda {
namespace {

// Rows of x as in the dense attack, and gates that with their flips take half the memory of its U; but a tile of rows at
// least.
template <class T> Chunk half_sparse_chunk(const Network<T>& network, int64_t samples) {
  constexpr int64_t kGatesPerNumber = 8;
  const int64_t by_gates = kGatesPerNumber * chunk_limits.gated / at_least_one(network.neurons);
  const int64_t lines = std::max<int64_t>(kTile, by_gates / kTile * kTile);
  Chunk most = largest_chunk(network, samples, true);
  most.samples = std::min(most.samples, at_least_one(lines / network.patches));
  const int64_t networks = most.samples < samples ? 1 : at_least_one(lines / at_least_one(samples * network.patches));
  most.networks = std::min(most.networks, networks);
  return most;
}

template <class A> struct HalfSparseMemory {
  int64_t slabs, neurons;  // neurons: most in a range
  A *norms, *x, *delta, *f, *cotangent, *gradient, *scale, *g;
  A* hidden;  // H of a range where a library makes it; U at the first iterate
  A *value_parts, *scale_parts, *parts;
  double *changes, *most, *change_parts;
  GateBits bits;
  std::int32_t *stale, *good;
};

template <class T>
HalfSparseMemory<Compute<T>> take_half_sparse_memory(Arena& arena, const Network<T>& network, const Chunk& most,
                                                     const Attack<Compute<T>>& attack,
                                                     const AttackResult<Compute<T>>& result) {
  using A = Compute<T>;
  const int64_t networks = most.networks, m = network.neurons, d = network.dim;
  const int64_t rows = networks * most.samples, lines = rows * network.patches, points = lines * d;
  const int64_t tiles = ceil_div(m, kTile), lines_per_network = most.samples * network.patches;
  HalfSparseMemory<A> memory = {};
  memory.slabs = slab_count(lines, d, m);
  memory.neurons = std::min(m, std::max<int64_t>(kTile, neurons_per_range(network, most)));
  memory.norms = arena.take<A>(networks * m);
  if (attack.threat.keep == Keep::worst || result.x == nullptr) memory.x = arena.take<A>(points);
  memory.delta = arena.take<A>(points);
  memory.f = arena.take<A>(rows);
  memory.cotangent = arena.take<A>(rows);
  memory.gradient = arena.take<A>(points);
  memory.scale = arena.take<A>(rows);
  memory.g = arena.take<A>(points);
  memory.hidden = arena.take<A>(lines * memory.neurons);
  memory.value_parts = arena.take<A>(tiles * lines);
  memory.scale_parts = arena.take<A>(tiles * lines);
  memory.parts =
      arena.take<A>(std::max({memory.slabs * points, points, product_workspace(networks, lines_per_network, m, d),
                              product_workspace(networks, lines_per_network, d, m)}));
  memory.changes = arena.take<double>(rows);
  memory.most = arena.take<double>(rows);
  memory.change_parts = arena.take<double>(memory.slabs * lines);
  memory.bits.open = arena.take<std::uint32_t>(lines * gate_words(m));
  memory.bits.flips = arena.take<std::uint32_t>(lines * gate_words(m));
  memory.bits.counts = arena.take<unsigned long long>(rows);
  memory.stale = arena.take<std::int32_t>(rows);
  memory.good = arena.take<std::int32_t>(rows);
  return memory;
}

template <class T> class HalfSparseChunk {
 public:
  using A = Compute<T>;

  HalfSparseChunk(const Network<T>& network, const AttackRows<A>& rows, const HalfSparseMemory<A>& memory, Launch run)
      : memory_(memory), stream_(run.stream) {
    walk_.network = network;
    walk_.rows = rows;
    walk_.slope = gate_of<A>(network.activation).slope;
    walk_.bits = memory.bits;
    walk_.norms = memory.norms;
    walk_.arithmetic = run.arithmetic;
    walk_.g = memory.g;
    walk_.changes = memory.changes;
    walk_.most = memory.most;
    walk_.slabs = memory.slabs;
    walk_.words_per_slab = slab_words(network.neurons, memory.slabs);
    walk_.change_parts = memory.change_parts;
    walk_.parts = memory.parts;
    splits_ = split_count(network.networks, walk_.lines_per_network(), network.dim, network.neurons);
    by_library_ = library_makes_hidden<T>(run.arithmetic, network.networks, walk_.lines_per_network(), memory.neurons,
                                          network.dim);
    // All ranges alike: also the last, smaller one; and all neurons together, for which there is no room.
    Library& library = walk_.arithmetic.library;
    if (by_library_) {
      library.least_flops = 0;
    } else {
      library = {};
    }
  }

  // What depends on the network alone.
  int prepare() const {
    const Network<T>& network = walk_.network;
    return weight_norms(network.weight, network.networks * network.neurons, network.dim, memory_.norms, stream_);
  }

  int attack() {
    const AttackRows<A>& rows = walk_.rows;
    BK_TRY(begin_attack(rows, stream_));
    for (int64_t step = 0; step < rows.threat.steps; ++step) {
      BK_TRY(look(step == 0));
      if (!rows.fixed_cotangent()) BK_TRY(write_cotangent(rows, stream_));
      BK_TRY(find_gradients(step == 0));
      BK_TRY(advance(rows, step, false, stream_));
    }
    BK_TRY(
        for_each_range([&](const Hidden<T>& layer) { return hidden(layer, memory_.hidden, memory_.parts, stream_); }));
    BK_TRY(sum_values());
    return advance(rows, rows.threat.steps, true, stream_);
  }

 private:
  HalfSparse<T> walk_ = {};
  const HalfSparseMemory<A>& memory_;
  cudaStream_t stream_;
  int splits_;
  bool by_library_;

  int64_t neuron_tiles() const { return ceil_div(walk_.network.neurons, kTile); }

  // Calls visit with the hidden layer of one range of neurons after another, or of all where no library is to make H.
  template <class Visit> int for_each_range(Visit visit) const {
    const int64_t most = by_library_ ? memory_.neurons : walk_.network.neurons;
    return for_each_neuron_range(walk_.network.neurons, most, [&](int64_t first, int64_t count) -> int {
      const int64_t parts = first / kTile * walk_.lines();
      Hidden<T> layer = {};
      layer.network = walk_.network;
      layer.x = walk_.rows.x;
      layer.x_network_stride = walk_.lines_per_network() * walk_.network.dim;
      layer.samples = walk_.samples();
      layer.first_neuron = first;
      layer.neurons = count;
      layer.value_parts = memory_.value_parts + parts;
      layer.arithmetic = walk_.arithmetic;
      return visit(layer);
    });
  }

  // Of the parts that the tiles of all neurons have left: (tiles, P, networks, n).
  int sum_tiles(const A* parts, const A* offset, A* out) const {
    const int64_t count = neuron_tiles() * walk_.network.patches, networks = walk_.network.networks,
                  n = walk_.samples();
    return sum_parts(PartSum<A>{parts, count, networks, n, out, n, false, offset, 1}, stream_);
  }
  int sum_values() const { return sum_tiles(memory_.value_parts, walk_.network.head_bias, walk_.rows.f); }

  // f, the gates and the size of the terms of g at the iterate; at the first one g too where a library is to sum it.
  int look(bool first) const {
    GateBits bits = walk_.bits;
    if (first) bits.flips = nullptr;
    BK_TRY(for_each_range([&](Hidden<T> layer) -> int {
      layer.weight_norm = memory_.norms;
      layer.scale_parts = memory_.scale_parts + (layer.value_parts - memory_.value_parts);
      if (first && by_library_) layer.gated = memory_.hidden;
      BK_TRY(hidden_and_gates(layer, bits, memory_.hidden, memory_.parts, stream_));
      return layer.gated != nullptr ? add_gradients(layer) : cudaSuccess;
    }));
    BK_TRY(sum_values());
    return sum_tiles(memory_.scale_parts, nullptr, walk_.rows.scale);
  }

  // U W of a range, to the first part.
  int add_gradients(const Hidden<T>& layer) const {
    const Network<T>& network = layer.network;
    const int64_t lines = walk_.lines_per_network(), d = network.dim;
    const Product<A, T> product{{layer.gated, lines * layer.neurons, layer.neurons},
                                {network.weight + layer.first_neuron * d, network.neurons * d, d},
                                network.networks,
                                lines,
                                d,
                                layer.neurons,
                                memory_.parts,
                                lines * d,
                                layer.first_neuron > 0,
                                layer.arithmetic};
    return multiply_uw<A, T>(product, nullptr, stream_);
  }

  int find_gradients(bool first) {
    walk_.all_stale = first;
    walk_.stale = first || is_constant() ? nullptr : memory_.stale;
    if (walk_.stale != nullptr) {
      BK_TRY(follow_flips(walk_, stream_));
      BK_TRY(settle_gradients(walk_, stream_));
    }
    if (first && by_library_) return finish_gradients(walk_, 1, stream_);
    if (first || walk_.stale != nullptr) BK_TRY(sum_gradients(walk_, splits_, stream_));
    return finish_gradients(walk_, splits_, stream_);
  }

  // φ is linear.
  bool is_constant() const { return walk_.slope == A(1); }
};

}  // namespace

template <class T>
std::size_t half_sparse_workspace(const Network<T>& network, const Samples<Compute<T>>& x0,
                                  const Attack<Compute<T>>& attack, const AttackResult<Compute<T>>& result) {
  Arena arena(nullptr);
  take_half_sparse_memory(arena, network, half_sparse_chunk(network, x0.count), attack, result);
  return arena.bytes();
}

template <class T>
int half_sparse_attack(const Network<T>& network, const Samples<Compute<T>>& x0, const Attack<Compute<T>>& attack,
                       const AttackResult<Compute<T>>& result, Launch run) {
  const Chunk most = half_sparse_chunk(network, x0.count);
  Arena arena(run.workspace);
  const auto memory = take_half_sparse_memory(arena, network, most, attack, result);

  return for_each_chunk(network.networks, x0.count, most, [&](const Chunk& chunk) -> int {
    auto rows = rows_of_chunk(network, x0, attack, result, chunk, memory);
    rows.gradient = memory.gradient;
    rows.scale = memory.scale;
    HalfSparseChunk<T> walk(part_of(network, chunk), rows, memory, run);
    if (chunk.sample == 0) BK_TRY(walk.prepare());
    return walk.attack();
  });
}

#define BK_INSTANTIATE(T)                                                                                              \
  template std::size_t half_sparse_workspace(const Network<T>&, const Samples<Compute<T>>&, const Attack<Compute<T>>&, \
                                             const AttackResult<Compute<T>>&);                                         \
  template int half_sparse_attack(const Network<T>&, const Samples<Compute<T>>&, const Attack<Compute<T>>&,            \
                                  const AttackResult<Compute<T>>&, Launch);
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)
BK_INSTANTIATE(BFloat16)
#undef BK_INSTANTIATE

}  // namespace bk::cuda
