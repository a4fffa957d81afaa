// The whole attack: for each chunk of rows, K times a pass over the network and a step of the rows.
#include "engine.h"
#include "passes.cuh"
#include "pgd_rows.cuh"

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
AttackRows<Compute<T>> rows_of_chunk(const Network<T>& network, const Samples<Compute<T>>& x0,
                                     const Attack<Compute<T>>& attack, const AttackResult<Compute<T>>& result,
                                     const AttackMemory<Compute<T>>& memory, const Chunk& chunk) {
  using A = Compute<T>;
  const int64_t dim = network.patches * network.dim, heads = network.heads, samples = x0.count;
  const auto part = [&](auto* all, int64_t size) { return rows_of(all, chunk, samples, size); };
  const Samples<A> origin = part_of(x0, chunk, dim);

  AttackRows<A> rows = {};
  rows.threat = attack.threat;
  rows.threat.radius.values = part(attack.threat.radius.values, 1);
  rows.threat.step.values = part(attack.threat.step.values, 1);
  rows.networks = chunk.networks;
  rows.samples = chunk.samples;
  rows.dim = dim;
  rows.heads = heads;
  rows.x0 = origin.x;
  rows.x0_network_stride = origin.network_stride;
  rows.target = part(attack.target, attack.threat.loss == Loss::squared ? heads : 1);
  rows.label = part(attack.label, 1);
  rows.start = part(attack.start, dim);
  rows.good = memory.good;
  rows.delta = memory.delta;
  rows.f = memory.f;
  rows.cotangent = memory.cotangent;
  rows.gradient = memory.gradient;
  rows.scale = memory.scale;
  rows.result = {part(result.x, dim), part(result.logits, heads), part(result.margin, 1), part(result.trajectory, dim)};
  rows.x = memory.x != nullptr ? memory.x : rows.result.x;
  rows.trajectory_stride = network.networks * samples * dim;
  return rows;
}

template <class T>
int attack_chunk(const Network<T>& network, const AttackRows<Compute<T>>& rows, const AttackMemory<Compute<T>>& memory,
                 cudaStream_t stream) {
  using A = Compute<T>;
  const bool exact = rows.threat.direction == Direction::exact;
  if (exact) {
    BK_TRY(weight_norms(network.weight, network.networks * network.neurons, network.dim, memory.weight_norm, stream));
  }
  BK_TRY(begin_attack(rows, stream));

  InputPass<T> pass = {};
  pass.network = network;
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
  Arena arena(nullptr);
  take_attack_memory(arena, network, largest_chunk(network, x0.count, true), attack, result);
  return arena.bytes();
}

template <class T>
int pgd(const Network<T>& network, const Samples<Compute<T>>& x0, const Attack<Compute<T>>& attack,
        const AttackResult<Compute<T>>& result, Launch run) {
  const Chunk most = largest_chunk(network, x0.count, true);
  Arena arena(run.workspace);
  const auto memory = take_attack_memory(arena, network, most, attack, result);

  return for_each_chunk(network.networks, x0.count, most, [&](const Chunk& chunk) {
    return attack_chunk(part_of(network, chunk), rows_of_chunk(network, x0, attack, result, memory, chunk), memory,
                        run.stream);
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
