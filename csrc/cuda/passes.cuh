// The passes over a network that the ops are made of, for one chunk of samples: all neurons, range by range.
#pragma once

#include "chunks.h"
#include "hidden.cuh"

namespace bk::cuda {

// Workspace of a pass, laid out for the largest chunk and good for all. An array is null when the pass does not need
// it.
template <class A> struct PassMemory {
  int64_t neurons;  // most neurons per range
  A* gated;         // U of a neuron range, or H where U is not wanted and a library makes H
  A* value_parts;
  A* scale_parts;
  A* head_parts;
  A* bias_parts;
  A* split_parts;  // parts of whatever product is being split
};

// What a pass computes.
struct PassKind {
  bool values, input_grad, scale, parameter_grad;
};

template <class T>
PassMemory<Compute<T>> take_pass_memory(Arena& arena, const Network<T>& network, const Chunk& chunk, PassKind kind);

// f (networks, n, k), or null. gx (networks, n, P·d), or null. scale (networks, n) = Σ_p Σ_j |U_pj| ‖w_j‖, or null.
template <class T> struct InputPass {
  using A = Compute<T>;
  Network<T> network;
  Samples<A> samples;
  const A* cotangent;
  const A* weight_norm;  // with scale only
  A* f;
  A* gx;
  A* scale;
  Arithmetic arithmetic;
};

template <class T>
int run_input_pass(const InputPass<T>& pass, const PassMemory<Compute<T>>& memory, cudaStream_t stream);

}  // namespace bk::cuda
