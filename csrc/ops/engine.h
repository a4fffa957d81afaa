// Where an op runs. Both engines have the same methods, so that every op is written once, as a template over them.
#pragma once

#include "../cpu/engine.h"
#ifdef BK_WITH_CUDA
#include "../cuda/engine.h"
#endif
#include "tensor.h"

namespace bk::ops {

// torch's thread pool, as the CPU kernels see it.
cpu::Parallel torch_pool();

struct CpuEngine {
  explicit CpuEngine(const Tensor&) {}

  template <class T, class... Rest> void two_layer(const Network<T>& network, Rest... rest) const {
    cpu::two_layer<T>(network, rest..., torch_pool());
  }
  template <class T, class... Rest> void two_layer_value_and_grad(const Network<T>& network, Rest... rest) const {
    cpu::two_layer_value_and_grad<T>(network, rest..., torch_pool());
  }
  template <class T, class... Rest> void two_layer_parameter_grad(const Network<T>& network, Rest... rest) const {
    cpu::two_layer_parameter_grad<T>(network, rest..., torch_pool());
  }
  template <class A> void pgd_step(Norm norm, const PgdStep<A>& step) const {
    norm == Norm::l2 ? cpu::l2_pgd_step<A>(step, torch_pool()) : cpu::linf_pgd_step<A>(step, torch_pool());
  }
  template <class T>
  void pgd(const Network<T>& network, const Samples<Compute<T>>& x0, const Attack<Compute<T>>& attack,
           const AttackResult<Compute<T>>& result) const {
    cpu::pgd<T>(network, x0, attack, result, torch_pool());
  }
};

}  // namespace bk::ops

// Registers `function<Engine>` as the op `name` on every engine of this build.
#define BK_REGISTER_ON(key, Engine, name, ...) \
  STABLE_TORCH_LIBRARY_IMPL(benign_kernels, key, m) { m.impl(name, TORCH_BOX((&__VA_ARGS__<Engine>))); }
#ifdef BK_WITH_CUDA
#define BK_REGISTER(name, ...)                      \
  BK_REGISTER_ON(CPU, CpuEngine, name, __VA_ARGS__) \
  BK_REGISTER_ON(CUDA, CudaEngine, name, __VA_ARGS__)
#else
#define BK_REGISTER(name, ...) BK_REGISTER_ON(CPU, CpuEngine, name, __VA_ARGS__)
#endif
