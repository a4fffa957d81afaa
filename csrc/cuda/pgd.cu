// The whole attack. In input space: for each chunk of rows, K times a pass over the network and a step of the rows.
#include "attack_chunk.cuh"
#include "gram.cuh"
#include "half_sparse.cuh"
#include "passes.cuh"

namespace bk::cuda {
namespace {

constexpr PassKind kPass = {true, true, true, false};

template <class A> struct AttackMemory {
  PassMemory<A> pass;
  A* weight_norm;
  A* x;  // null when the iterate lives in the result
  A* delta;
  A* f;
  A* cotangent;
  A* gradient;
  A* scale;
  std::int32_t* good;
};

template <class T>
AttackMemory<Compute<T>> take_attack_memory(Arena& arena, const Network<T>& network, const Chunk& most,
                                            const Attack<Compute<T>>& attack, const AttackResult<Compute<T>>& result) {
  using A = Compute<T>;
  const int64_t rows = most.networks * most.samples, numbers = rows * network.patches * network.dim;
  AttackMemory<A> memory = {};
  memory.pass = take_pass_memory(arena, network, most, kPass);
  memory.weight_norm = arena.take<A>(most.networks * network.neurons);
  if (attack.threat.keep == Keep::worst || result.x == nullptr) memory.x = arena.take<A>(numbers);
  memory.delta = arena.take<A>(numbers);
  memory.f = arena.take<A>(rows * network.heads);
  memory.cotangent = arena.take<A>(rows * network.heads);
  memory.gradient = arena.take<A>(numbers);
  memory.scale = arena.take<A>(rows);
  memory.good = arena.take<std::int32_t>(rows);
  return memory;
}

template <class T>
int attack_chunk(const Network<T>& network, const AttackRows<Compute<T>>& rows, const AttackMemory<Compute<T>>& memory,
                 Launch run) {
  using A = Compute<T>;
  const cudaStream_t stream = run.stream;
  const bool exact = rows.threat.direction == Direction::exact;
  if (exact) {
    BK_TRY(weight_norms(network.weight, network.networks * network.neurons, network.dim, memory.weight_norm, stream));
  }
  BK_TRY(begin_attack(rows, stream));

  InputPass<T> pass = {};
  pass.network = network;
  pass.arithmetic = run.arithmetic;
  pass.samples = Samples<A>{rows.x, rows.samples, rows.samples * rows.dim};
  InputPass<T> value = pass, gradient = pass;
  value.f = rows.f;
  gradient.f = rows.fixed_cotangent() ? rows.f : nullptr;
  gradient.cotangent = rows.cotangent;
  gradient.gx = rows.gradient;
  gradient.scale = exact ? rows.scale : nullptr;
  gradient.weight_norm = memory.weight_norm;

  for (int64_t step = 0; step < rows.threat.steps; ++step) {
    if (!rows.fixed_cotangent()) {
      BK_TRY(run_input_pass(value, memory.pass, stream));
      BK_TRY(write_cotangent(rows, stream));
    }
    BK_TRY(run_input_pass(gradient, memory.pass, stream));
    BK_TRY(advance(rows, step, false, stream));
  }
  BK_TRY(run_input_pass(value, memory.pass, stream));
  return advance(rows, rows.threat.steps, true, stream);
}

}  // namespace

template <class T>
std::size_t pgd_workspace(const Network<T>& network, const Samples<Compute<T>>& x0, const Attack<Compute<T>>& attack,
                          const AttackResult<Compute<T>>& result) {
  if (attack.algorithm == Algorithm::gram) return gram_workspace(network, x0, attack, result);
  if (attack.algorithm == Algorithm::half_sparse) return half_sparse_workspace(network, x0, attack, result);
  Arena arena(nullptr);
  take_attack_memory(arena, network, largest_chunk(network, x0.count, true), attack, result);
  return arena.bytes();
}

template <class T>
int pgd(const Network<T>& network, const Samples<Compute<T>>& x0, const Attack<Compute<T>>& attack,
        const AttackResult<Compute<T>>& result, Launch run) {
  if (attack.algorithm == Algorithm::gram) return gram_attack(network, x0, attack, result, run);
  if (attack.algorithm == Algorithm::half_sparse) return half_sparse_attack(network, x0, attack, result, run);
  const Chunk most = largest_chunk(network, x0.count, true);
  Arena arena(run.workspace);
  const auto memory = take_attack_memory(arena, network, most, attack, result);

  return for_each_chunk(network.networks, x0.count, most, [&](const Chunk& chunk) {
    auto rows = rows_of_chunk(network, x0, attack, result, chunk, memory);
    rows.gradient = memory.gradient;
    rows.scale = memory.scale;
    return attack_chunk(part_of(network, chunk), rows, memory, run);
  });
}

#define BK_INSTANTIATE(T)                                                                                      \
  template std::size_t pgd_workspace(const Network<T>&, const Samples<Compute<T>>&, const Attack<Compute<T>>&, \
                                     const AttackResult<Compute<T>>&);                                         \
  template int pgd(const Network<T>&, const Samples<Compute<T>>&, const Attack<Compute<T>>&,                   \
                   const AttackResult<Compute<T>>&, Launch);
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)
BK_INSTANTIATE(BFloat16)
#undef BK_INSTANTIATE

}  // namespace bk::cuda
