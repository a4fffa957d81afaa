#include "engine.h"

#ifdef BK_WITH_CUDA
#include <dlfcn.h>

#include <stdexcept>

#include "precision.h"
#endif

namespace bk::ops {

cpu::Parallel torch_pool() {
  const auto for_each = [](std::int64_t tasks, void (*body)(void*, std::int64_t), void* context) {
    torch::stable::parallel_for(0, tasks, 1, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t task = begin; task < end; ++task) body(context, task);
    });
  };
  return {for_each, torch::stable::get_num_threads()};
}

#ifdef BK_WITH_CUDA
namespace {

// The one symbol of torch's CUDA half that is needed. It is looked up in the library that torch has loaded already,
// so that the same binary also loads where torch has no CUDA.
cudaStream_t current_stream(std::int32_t device) {
  using Lookup = AOTITorchError (*)(std::int32_t, void**);
  static const auto lookup = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_LAZY | RTLD_NOLOAD);
    return library ? reinterpret_cast<Lookup>(dlsym(library, "aoti_torch_get_current_cuda_stream")) : nullptr;
  }();
  if (!lookup) throw std::runtime_error("this torch has CUDA tensors but no aoti_torch_get_current_cuda_stream");
  void* stream = nullptr;
  TORCH_ERROR_CODE_CHECK(lookup(device, &stream));
  return static_cast<cudaStream_t>(stream);
}

}  // namespace

CudaEngine::CudaEngine(const Tensor& x)
    : like_(x), device_(x.device()), guard_(x.get_device_index()), stream_(current_stream(x.get_device_index())) {
  // guard_ is for torch's runtime. Ours is linked in, and has a current device of its own: it takes over torch's only
  // where a context has been made current already. Both make the same (primary) context current, and guard_ puts back
  // the previous one.
  check(cuda::use_device(x.get_device_index()));
}

cuda::Arithmetic CudaEngine::arithmetic() const {
  const int device = like_.get_device_index();
  cuda::Arithmetic arithmetic = {allows_tf32() ? cuda::Precision::tf32 : cuda::Precision::exact, torch_library(device_),
                                 cuda::tensor_processors(device)};
  arithmetic.library.exact_floats = !cuda::splits_floats_well(device);
  return arithmetic;
}

void CudaEngine::check(int error) const {
  if (error == 0) return;
  std::string problem = cuda::error_string(error);
  if (cuda::is_no_kernel_image(error)) {
    problem += " (this build has kernels for compute capabilities " + std::string(cuda::built_architectures()) +
               " and newer; reinstall benign_kernels on this machine to build for its device)";
  }
  throw std::runtime_error("benign_kernels on cuda:" + std::to_string(like_.get_device_index()) + ": " + problem);
}
#endif

}  // namespace bk::ops
