// The rows of one chunk of an attack.
#pragma once

#include "chunks.h"
#include "pgd_rows.cuh"

namespace bk::cuda {

// memory: of the algorithm, which has its x (null: the iterate lives in the result), good, delta, f and cotangent.
template <class T, class Memory>
AttackRows<Compute<T>> rows_of_chunk(const Network<T>& network, const Samples<Compute<T>>& x0,
                                     const Attack<Compute<T>>& attack, const AttackResult<Compute<T>>& result,
                                     const Chunk& chunk, const Memory& memory) {
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
  rows.result = {part(result.x, dim), part(result.logits, heads), part(result.margin, 1), part(result.trajectory, dim)};
  rows.trajectory_stride = network.networks * samples * dim;
  rows.x = memory.x != nullptr ? memory.x : rows.result.x;
  rows.good = memory.good;
  rows.delta = memory.delta;
  rows.f = memory.f;
  rows.cotangent = memory.cotangent;
  return rows;
}

}  // namespace bk::cuda
