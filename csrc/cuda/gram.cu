#include "attack_chunk.cuh"
#include "gram.cuh"
#include "gram_walk.cuh"
#include "product.cuh"

namespace bk::cuda {
namespace {

// Chunks whose arrays of n·P·m numbers are as large as U may be in a pass over the network.
template <class T> Chunk gram_chunk(const Network<T>& network, int64_t samples) {
  const int64_t neurons = at_least_one(network.patches * network.neurons);
  const int64_t points = at_least_one(network.patches * network.dim);
  const int64_t most = at_least_one(std::min(chunk_limits.gated / neurons, chunk_limits.state / points));
  if (samples >= most) return {0, std::min<int64_t>(network.networks, 1), 0, most};
  const int64_t networks =
      std::min(most / at_least_one(samples), chunk_limits.gated / at_least_one(network.neurons * network.neurons));
  return {0, std::min(network.networks, at_least_one(networks)), 0, samples};
}

template <class T> struct GramMemory {
  using A = Compute<T>;
  A *norms, *weight_unit, *weight_scale, *head_unit, *gram_scale;
  A *gram, *hidden, *start_hidden, *slopes, *moved, *coefficients, *kept, *V, *change;
  Turn<A>* turns;
  WalkProgress* progress;
  double *start_scales, *coefficient_scales;
  A *x, *delta, *f, *cotangent, *parts;
  std::int32_t* good;
};

template <class T>
GramMemory<T> take_gram_memory(Arena& arena, const Network<T>& network, const Chunk& most,
                               const Attack<Compute<T>>& attack, const AttackResult<Compute<T>>& result) {
  using A = Compute<T>;
  const int64_t networks = most.networks, rows = networks * most.samples, m = network.neurons, d = network.dim;
  const int64_t size = network.patches * m, points = rows * network.patches * d;
  GramMemory<T> memory = {};
  memory.norms = arena.take<A>(networks * m);
  memory.weight_unit = arena.take<A>(networks);
  memory.weight_scale = arena.take<A>(networks);
  memory.head_unit = arena.take<A>(networks);
  if (attack.gram == nullptr) {
    memory.gram = arena.take<A>(networks * m * m);
  } else {
    memory.gram_scale = arena.take<A>(networks);
  }
  memory.hidden = arena.take<A>(rows * size);
  if (attack.start != nullptr) memory.start_hidden = arena.take<A>(rows * size);
  memory.slopes = arena.take<A>(rows * size);
  memory.moved = arena.take<A>(rows * size);
  memory.coefficients = arena.take<A>(rows * size);
  memory.kept = arena.take<A>(rows * size);
  if (piecewise_linear(network.activation)) {
    memory.V = arena.take<A>(network.heads * rows * size);
    memory.turns = arena.take<Turn<A>>(rows * turn_room(size));
  } else {
    memory.V = arena.take<A>(rows * size);
    memory.change = arena.take<A>(rows * size);
    memory.progress = arena.take<WalkProgress>(rows);
  }
  memory.start_scales = arena.take<double>(rows);
  memory.coefficient_scales = arena.take<double>(rows);
  if (result.x == nullptr) memory.x = arena.take<A>(points);
  memory.delta = arena.take<A>(points);
  memory.f = arena.take<A>(rows * network.heads);
  memory.cotangent = arena.take<A>(rows * network.heads);
  memory.good = arena.take<std::int32_t>(rows);
  const int64_t lines = most.samples * network.patches;
  memory.parts =
      arena.take<A>(std::max({symmetric_workspace<T>(networks, m, d), product_workspace(networks, lines, m, d),
                              product_workspace(networks, lines, d, m), product_workspace(networks, lines, m, m)}));
  return memory;
}

// The products of one chunk. Lines: (network, sample, patch).
template <class T> class GramChunk {
 public:
  using A = Compute<T>;

  GramChunk(const Network<T>& network, const AttackRows<A>& rows, const GramMemory<T>& memory, const A* known_gram,
            Launch run)
      : memory_(memory), stream_(run.stream), arithmetic_(run.arithmetic), lines_(rows.samples * network.patches) {
    walk_.network = network;
    walk_.rows = rows;
    walk_.weight_unit = memory.weight_unit;
    walk_.weight_scale = memory.weight_scale;
    walk_.head_unit = memory.head_unit;
    walk_.norms = memory.norms;
    walk_.gram = known_gram != nullptr ? known_gram : memory.gram;
    walk_.gram_scale = memory.gram_scale;
    walk_.hidden = memory.hidden;
    walk_.start_hidden = memory.start_hidden;
    walk_.slopes = memory.slopes;
    walk_.moved = memory.moved;
    walk_.coefficients = memory.coefficients;
    walk_.kept = memory.kept;
    walk_.V = memory.V;
    walk_.change = memory.change;
    walk_.turns = memory.turns;
    walk_.progress = memory.progress;
    walk_.start_scales = memory.start_scales;
    walk_.coefficient_scales = memory.coefficient_scales;
    walk_.summed = m() <= 2 * d();  // the cheaper product
  }

  // What depends on the network alone.
  int prepare() const {
    const Network<T>& network = walk_.network;
    BK_TRY(weight_norms(network.weight, network.networks * m(), d(), memory_.norms, stream_));
    BK_TRY(find_units(network, memory_.norms, memory_.weight_unit, memory_.weight_scale, memory_.head_unit,
                      memory_.gram_scale, stream_));
    if (memory_.gram == nullptr) return cudaSuccess;
    return multiply_ww(SymmetricProduct<T>{weights(), network.networks, m(), d(), memory_.gram, arithmetic_},
                       memory_.parts, stream_);
  }

  int attack() const {
    const AttackRows<A>& rows = walk_.rows;
    BK_TRY(begin_attack(rows, stream_));
    BK_TRY(multiply_weights({rows.x0, rows.x0_network_stride, d()}, memory_.hidden));
    if (memory_.start_hidden != nullptr) BK_TRY(multiply_weights(points(rows.delta), memory_.start_hidden));
    BK_TRY(look_first(walk_, stream_));
    BK_TRY(piecewise_linear(walk_.network.activation) ? walk() : step());
    if (rows.result.x == nullptr) return cudaSuccess;
    BK_TRY(sum_weights(memory_.kept));
    return write_points(walk_, stream_);
  }

 private:
  GramWalk<T> walk_ = {};
  const GramMemory<T>& memory_;
  cudaStream_t stream_;
  Arithmetic arithmetic_;
  int64_t lines_;

  int64_t m() const { return walk_.network.neurons; }
  int64_t d() const { return walk_.network.dim; }
  Operand<T> weights() const { return {walk_.network.weight, m() * d(), d(), memory_.weight_scale}; }
  Operand<A> points(const A* all) const { return {all, lines_ * d(), d()}; }
  Operand<A> neurons(const A* all) const { return {all, lines_ * m(), m()}; }

  // out (lines, m) = points wᵀ
  int multiply_weights(const Operand<A>& points, A* out) const {
    const Product<A, T> product{points, weights(), walk_.network.networks, lines_, m(),
                                d(),    out,       lines_ * m(),           false,  arithmetic_};
    return multiply_xw(product, memory_.parts, stream_);
  }
  // rows.x (lines, d) = coefficients w
  int sum_weights(const A* coefficients) const {
    const Product<A, T> product{neurons(coefficients),
                                weights(),
                                walk_.network.networks,
                                lines_,
                                d(),
                                m(),
                                walk_.rows.x,
                                lines_ * d(),
                                false,
                                arithmetic_};
    return multiply_uw(product, memory_.parts, stream_);
  }
  // V (+)= U G, of one direction.
  int multiply_gram(const A* U, const A* gram_scale, bool accumulate, A* V) const {
    const Operand<A> gram{walk_.gram, m() * m(), m(), gram_scale};
    const Product<A, A> product{neurons(U), gram, walk_.network.networks, lines_,     m(),
                                m(),        V,    lines_ * m(),           accumulate, arithmetic_};
    return multiply_xw(product, memory_.parts, stream_);
  }
  // The first V: U G where that is the cheaper product, else (U w) wᵀ.
  int find_direction(const A* U, A* V) const {
    if (walk_.summed) return multiply_gram(U, walk_.gram_scale, false, V);
    BK_TRY(sum_weights(U));
    return multiply_weights(points(walk_.rows.x), V);
  }

  int walk() const {
    for (int64_t c = 0; walk_.rows.threat.steps > 0 && c < walk_.rows.heads; ++c) {
      BK_TRY(write_direction(walk_, c, stream_));
      BK_TRY(find_direction(memory_.kept, walk_.V + c * walk_.all()));
    }
    return walk_rows(walk_, stream_);
  }
  int step() const {
    for (int64_t k = 0; k < walk_.rows.threat.steps; ++k) {
      BK_TRY(step_rows(walk_, k, stream_));
      BK_TRY(k == 0 ? find_direction(walk_.change, walk_.V) : multiply_gram(walk_.change, nullptr, true, walk_.V));
    }
    return step_rows(walk_, walk_.rows.threat.steps, stream_);
  }
};

}  // namespace

template <class T>
std::size_t gram_workspace(const Network<T>& network, const Samples<Compute<T>>& x0, const Attack<Compute<T>>& attack,
                           const AttackResult<Compute<T>>& result) {
  Arena arena(nullptr);
  take_gram_memory(arena, network, gram_chunk(network, x0.count), attack, result);
  return arena.bytes();
}

template <class T>
int gram_attack(const Network<T>& network, const Samples<Compute<T>>& x0, const Attack<Compute<T>>& attack,
                const AttackResult<Compute<T>>& result, Launch run) {
  const Chunk most = gram_chunk(network, x0.count);
  Arena arena(run.workspace);
  const auto memory = take_gram_memory(arena, network, most, attack, result);
  const int64_t gram_size = network.neurons * network.neurons;

  return for_each_chunk(network.networks, x0.count, most, [&](const Chunk& chunk) -> int {
    auto rows = rows_of_chunk(network, x0, attack, result, chunk, memory);
    const GramChunk<T> gram(part_of(network, chunk), rows, memory,
                            attack.gram == nullptr ? nullptr : attack.gram + chunk.network * gram_size, run);
    if (chunk.sample == 0) BK_TRY(gram.prepare());
    return gram.attack();
  });
}

#define BK_INSTANTIATE(T)                                                                                       \
  template std::size_t gram_workspace(const Network<T>&, const Samples<Compute<T>>&, const Attack<Compute<T>>&, \
                                      const AttackResult<Compute<T>>&);                                         \
  template int gram_attack(const Network<T>&, const Samples<Compute<T>>&, const Attack<Compute<T>>&,            \
                           const AttackResult<Compute<T>>&, Launch);
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)
BK_INSTANTIATE(BFloat16)
#undef BK_INSTANTIATE

}  // namespace bk::cuda
