// The CPU engine. Nothing here knows torch: pointers and PODs in, results written in place, workspace allocated inside.
//
// Results are bitwise independent of the number of threads and of how a batch is split into calls; they differ in
// rounding between SIMD levels. Sizes of zero are allowed everywhere: empty sums are zero.
#pragma once

#include <cstdint>

#include "../model/network.h"
#include "../model/threat.h"
#include "../model/training.h"

namespace bk::cpu {

class Crew;

// The caller's thread pool. for_each runs body(context, task) for each task in [0, tasks), and returns when all are
// done.
struct Parallel {
  void (*for_each)(std::int64_t tasks, void (*body)(void* context, std::int64_t task), void* context);
  std::int64_t threads = 1;  // how many tasks it runs at a time; only the speed depends on it
  Crew* crew = nullptr;      // runs them instead, where there is one
};

// f (networks, n, k).
template <class T>
void two_layer(const Network<T>& network, const Samples<Compute<T>>& samples, Compute<T>* f, Parallel run);

// f (networks, n, k), or null when not wanted. gx (networks, n, P·d): the gradient of Σ cotangent·f.
// cotangent (networks, n, k); null means all ones.
template <class T>
void two_layer_value_and_grad(const Network<T>& network, const Samples<Compute<T>>& samples,
                              const Compute<T>* cotangent, Compute<T>* f, Compute<T>* gx, Parallel run);

// gw (networks, m, d), ga (networks, k, m), gb (networks, m): gradients of Σ cotangent·f; each null when not wanted.
template <class T>
void two_layer_parameter_grad(const Network<T>& network, const Samples<Compute<T>>& samples,
                              const Compute<T>* cotangent, Compute<T>* gw, Compute<T>* ga, Compute<T>* gb,
                              Parallel run);

// One projected step on rows of any model. A = float, double.
template <class A> void l2_pgd_step(const PgdStep<A>& step, Parallel run);
template <class A> void linf_pgd_step(const PgdStep<A>& step, Parallel run);

// The whole attack, all steps in one call.
template <class T>
void pgd(const Network<T>& network, const Samples<Compute<T>>& x0, const Attack<Compute<T>>& attack,
         const AttackResult<Compute<T>>& result, Parallel run);

// Many iterations of adversarial training in one call. A = float, double.
template <class A> void train(const Training<A>& task, Parallel run);

// The instruction set in use: "amx" (v4, and products of float32 matrices on tiles), "v4" (AVX-512), "v3" (AVX2 and
// FMA) or "base". Chosen at first use: the best that the machine has, or what the environment variable
// BENIGN_KERNELS_SIMD names. Null when that is no level of this machine: then everything above throws
// std::invalid_argument with simd_problem().
const char* simd_level();
const char* simd_problem();
// Makes later calls use `level`; false, and no change, when this machine or build does not have it.
bool set_simd_level(const char* level);

}  // namespace bk::cpu
