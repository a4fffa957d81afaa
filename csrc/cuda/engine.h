// The CUDA engine: any shape, any device from sm_75 on. Needs no CUDA header to include.
//
// Everything is enqueued on the caller's stream and nothing else happens: no synchronisation, no allocation, no read
// by the host, so that every call can be captured in a graph. The caller brings `workspace`, device memory of as many
// bytes as the _workspace function beside each function says, and a library that large products are left to, if it has
// one: what that allocates, and what it needs before its first product can be captured, is its own matter. Results are the
// same bits from run to run.
//
// The n×m matrix of pre-activations never exists: samples and neurons are taken in chunks, and the workspace stays
// below kWorkspaceElements numbers of the compute type (64 MB in float32), or what a single sample and one number per
// neuron need; Algorithm::half_sparse keeps the gates as bits, of 64 rows at least, for which it takes up to eight numbers
// per neuron. In neuron space (Algorithm::gram) it is m² numbers for G, unless that is given, and for a chunk of at most
// kWorkspaceElements / 4 pre-activations 7 + k arrays of their size, one more with a start.
//
// All pointers are device pointers; shapes and meanings are those of csrc/model. T: float, double, BFloat16 (how W is
// stored); A: float, double. A function returns 0 or a cudaError_t.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../model/network.h"
#include "../model/threat.h"
#include "library.h"

struct CUstream_st;
using cudaStream_t = CUstream_st*;

namespace bk::cuda {

constexpr std::int64_t kWorkspaceElements = std::int64_t{1} << 24;

struct Launch {
  cudaStream_t stream;
  void* workspace;  // aligned to 256 bytes; null where none is needed
  Arithmetic arithmetic = {};
};

// f (networks, n, k)
template <class T>
int two_layer(const Network<T>& network, const Samples<Compute<T>>& samples, Compute<T>* f, Launch run);
template <class T> std::size_t two_layer_workspace(const Network<T>& network, const Samples<Compute<T>>& samples);

// f (networks, n, k), or null; gx (networks, n, P·d): the gradient of Σ cotangent·f.
// cotangent (networks, n, k); null: all ones.
template <class T>
int two_layer_value_and_grad(const Network<T>& network, const Samples<Compute<T>>& samples, const Compute<T>* cotangent,
                             Compute<T>* f, Compute<T>* gx, Launch run);
template <class T>
std::size_t two_layer_value_and_grad_workspace(const Network<T>& network, const Samples<Compute<T>>& samples);

// gw (networks, m, d), ga (networks, k, m), gb (networks, m): each null when not wanted.
template <class T>
int two_layer_parameter_grad(const Network<T>& network, const Samples<Compute<T>>& samples, const Compute<T>* cotangent,
                             Compute<T>* gw, Compute<T>* ga, Compute<T>* gb, Launch run);
template <class T>
std::size_t two_layer_parameter_grad_workspace(const Network<T>& network, const Samples<Compute<T>>& samples);

// One projected step on rows of any model. These need no workspace.
template <class A> int l2_pgd_step(const PgdStep<A>& step, cudaStream_t stream);
template <class A> int linf_pgd_step(const PgdStep<A>& step, cudaStream_t stream);

// The whole attack: a fixed sequence of launches. Algorithm::dense and gram; for piecewise-linear φ and one head
// half_sparse too.
template <class T>
int pgd(const Network<T>& network, const Samples<Compute<T>>& x0, const Attack<Compute<T>>& attack,
        const AttackResult<Compute<T>>& result, Launch run);
template <class T>
std::size_t pgd_workspace(const Network<T>& network, const Samples<Compute<T>>& x0, const Attack<Compute<T>>& attack,
                          const AttackResult<Compute<T>>& result);

// Makes `device` the calling thread's device for what is above, which cannot tell it from a stream. Nothing is put back:
// the caller chooses a device before every call.
int use_device(int device);

// Whether six products of bfloat16 on the device's tensor cores take less time than one of float without them: where they
// are more than about ten times as fast, as on cards for data centres. On others half of that, or there are none.
bool splits_floats_well(int device);

// Multiprocessors with tensor cores for bfloat16; 0 where they have none.
int tensor_processors(int device);

// What the library was compiled for, as in "7.5 8.0 9.0 10.0".
const char* built_architectures();

// CUDA's own sentence for a code returned above.
const char* error_string(int error);
bool is_no_kernel_image(int error);

}  // namespace bk::cuda
