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
  int64_t slabs;
  A *norms, *x, *delta, *f, *cotangent, *gradient, *scale, *g;
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
  memory.norms = arena.take<A>(networks * m);
  if (attack.threat.keep == Keep::worst || result.x == nullptr) memory.x = arena.take<A>(points);
  memory.delta = arena.take<A>(points);
  memory.f = arena.take<A>(rows);
  memory.cotangent = arena.take<A>(rows);
  memory.gradient = arena.take<A>(points);
  memory.scale = arena.take<A>(rows);
  memory.g = arena.take<A>(points);
  memory.value_parts = arena.take<A>(tiles * lines);
  memory.scale_parts = arena.take<A>(tiles * lines);
  memory.parts = arena.take<A>(std::max({memory.slabs * points, hidden_workspace(networks, lines_per_network, m, d),
                                         std::max(points, product_workspace(networks, lines_per_network, d, m))}));
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
    walk_.precision = run.precision;
    walk_.g = memory.g;
    walk_.changes = memory.changes;
    walk_.most = memory.most;
    walk_.slabs = memory.slabs;
    walk_.words_per_slab = slab_words(network.neurons, memory.slabs);
    walk_.change_parts = memory.change_parts;
    walk_.parts = memory.parts;
    splits_ = split_count(network.networks, walk_.lines_per_network(), network.dim, network.neurons);
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
    const Hidden<T> layer = values();
    BK_TRY(hidden(layer, memory_.parts, stream_));
    BK_TRY(sum_values(layer));
    return advance(rows, rows.threat.steps, true, stream_);
  }

 private:
  HalfSparse<T> walk_ = {};
  const HalfSparseMemory<A>& memory_;
  cudaStream_t stream_;
  int splits_;

  Hidden<T> values() const {
    Hidden<T> layer = {};
    layer.network = walk_.network;
    layer.x = walk_.rows.x;
    layer.x_network_stride = walk_.lines_per_network() * walk_.network.dim;
    layer.samples = walk_.samples();
    layer.neurons = walk_.network.neurons;
    layer.value_parts = memory_.value_parts;
    layer.precision = walk_.precision;
    return layer;
  }

  int sum_values(const Hidden<T>& layer) const {
    const int64_t parts = layer.neuron_tiles() * walk_.network.patches, networks = walk_.network.networks,
                  n = walk_.samples();
    return sum_parts(
        PartSum<A>{memory_.value_parts, parts, networks, n, walk_.rows.f, n, false, walk_.network.head_bias, 1},
        stream_);
  }

  // f, the gates and the size of the terms of g at the iterate.
  int look(bool first) const {
    Hidden<T> layer = values();
    layer.weight_norm = memory_.norms;
    layer.scale_parts = memory_.scale_parts;
    GateBits bits = walk_.bits;
    if (first) bits.flips = nullptr;
    BK_TRY(hidden_and_gates(layer, bits, memory_.parts, stream_));
    BK_TRY(sum_values(layer));
    const int64_t parts = layer.neuron_tiles() * walk_.network.patches, networks = walk_.network.networks,
                  n = walk_.samples();
    return sum_parts(PartSum<A>{memory_.scale_parts, parts, networks, n, walk_.rows.scale, n, false, nullptr, 1},
                     stream_);
  }

  int find_gradients(bool first) {
    walk_.all_stale = first;
    walk_.stale = first || is_constant() ? nullptr : memory_.stale;
    if (walk_.stale != nullptr) {
      BK_TRY(follow_flips(walk_, stream_));
      BK_TRY(settle_gradients(walk_, stream_));
    }
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
