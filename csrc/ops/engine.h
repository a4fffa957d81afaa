// Where an op runs. Both engines have the same methods, so that every op is written once, as a template over them.
#pragma once

#include "../cpu/engine.h"
#ifdef BK_WITH_CUDA
#include "../cuda/engine.h"
#endif
#include "library.h"
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
  template <class A> void train(const Training<A>& task) const { cpu::train<A>(task, torch_pool()); }
};

#ifdef BK_WITH_CUDA
// Everything goes to torch's current stream on x's device; the workspace comes from torch's allocator, so that calls
// can be captured in a graph: those with products by torch once the thread has made one, as torch's own.
class CudaEngine {
 public:
  explicit CudaEngine(const Tensor& x);

  template <class T>
  void two_layer(const Network<T>& network, const Samples<Compute<T>>& samples, Compute<T>* f) const {
    launch(cuda::two_layer_workspace<T>(network, samples),
           [&](cuda::Launch run) { return cuda::two_layer<T>(network, samples, f, run); });
  }
  template <class T>
  void two_layer_value_and_grad(const Network<T>& network, const Samples<Compute<T>>& samples,
                                const Compute<T>* cotangent, Compute<T>* f, Compute<T>* gx) const {
    launch(cuda::two_layer_value_and_grad_workspace<T>(network, samples), [&](cuda::Launch run) {
      return cuda::two_layer_value_and_grad<T>(network, samples, cotangent, f, gx, run);
    });
  }
  template <class T>
  void two_layer_parameter_grad(const Network<T>& network, const Samples<Compute<T>>& samples,
                                const Compute<T>* cotangent, Compute<T>* gw, Compute<T>* ga, Compute<T>* gb) const {
    launch(cuda::two_layer_parameter_grad_workspace<T>(network, samples), [&](cuda::Launch run) {
      return cuda::two_layer_parameter_grad<T>(network, samples, cotangent, gw, ga, gb, run);
    });
  }
  template <class A> void pgd_step(Norm norm, const PgdStep<A>& step) const {
    check(norm == Norm::l2 ? cuda::l2_pgd_step<A>(step, stream_) : cuda::linf_pgd_step<A>(step, stream_));
  }
  template <class T>
  void pgd(const Network<T>& network, const Samples<Compute<T>>& x0, const Attack<Compute<T>>& attack,
           const AttackResult<Compute<T>>& result) const {
    launch(cuda::pgd_workspace<T>(network, x0, attack, result),
           [&](cuda::Launch run) { return cuda::pgd<T>(network, x0, attack, result, run); });
  }

 private:
  template <class Call> void launch(std::size_t workspace_bytes, Call&& call) const {
    const Tensor workspace = allocate({static_cast<std::int64_t>(workspace_bytes)}, ScalarType::Byte, like_);
    check(call(cuda::Launch{stream_, workspace.mutable_data_ptr(), arithmetic()}));
  }
  cuda::Arithmetic arithmetic() const;
  void check(int error) const;

  const Tensor& like_;
  const Device device_;
  torch::stable::accelerator::DeviceGuard guard_;
  cudaStream_t stream_;
};
#endif

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
