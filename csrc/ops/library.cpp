#include "library.h"

#include <dlfcn.h>

#include <array>
#include <string>

namespace bk::ops {
namespace {

// Below so many flops a kernel of ours is done in about the time that torch takes to find one of its own: 2.5 µs at
// 50 TFLOP/s. No device has been asked yet.
constexpr double kLeastFlops = 1.3e8;

// out = beta·self + alpha·left·right, of torch's stable C interface: one matrix, or one for each network.
using MultiplyOut = AOTITorchError (*)(AtenTensorHandle out, AtenTensorHandle self, AtenTensorHandle left,
                                       AtenTensorHandle right, double beta, double alpha);

// Of a device's half of torch: looked up by name, so that this library also loads where torch has no CUDA.
struct Functions {
  MultiplyOut one, many;

  Functions(const char* library, const std::string& device) {
    void* const loaded = dlopen(library, RTLD_LAZY | RTLD_NOLOAD);
    const auto find = [&](const char* name) {
      const std::string symbol = "aoti_torch_" + device + "_" + name + "_out";
      return loaded == nullptr ? nullptr : dlsym(loaded, symbol.c_str());
    };
    one = reinterpret_cast<MultiplyOut>(find("addmm"));
    many = reinterpret_cast<MultiplyOut>(find("baddbmm"));
  }
};

const Functions& functions_of(const Device& device) {
  if (device.is_cpu()) {
    static const Functions cpu("libtorch_cpu.so", "cpu");
    return cpu;
  }
  static const Functions cuda("libtorch_cuda.so", "cuda");
  return cuda;
}

// A tensor over memory of ours; without the dimension of networks where there is one.
Tensor view(const Device& device, ScalarType type, const void* data, std::array<std::int64_t, 3> sizes,
            std::array<std::int64_t, 3> strides) {
  const std::size_t left_out = sizes[0] == 1 ? 1 : 0;
  return torch::stable::from_blob(const_cast<void*>(data), {sizes.data() + left_out, sizes.size() - left_out},
                                  {strides.data() + left_out, strides.size() - left_out}, device, type);
}

int multiply(const void* context, const cuda::LibraryProduct& p) {
  const Device& device = *static_cast<const Device*>(context);
  const Functions& functions = functions_of(device);
  const ScalarType type = p.numbers == cuda::LibraryNumbers::float64 ? ScalarType::Double : ScalarType::Float;
  const auto matrix = [&](const cuda::LibraryMatrix& m, std::int64_t rows, std::int64_t columns) {
    return view(device, type, m.data, {p.networks, rows, columns}, {m.network_stride, m.row_stride, m.column_stride});
  };
  const Tensor left = matrix(p.left, p.rows, p.terms);
  const Tensor right = matrix(p.right, p.terms, p.columns);
  const Tensor out = matrix({p.out, p.out_network_stride, p.columns, 1}, p.rows, p.columns);
  const MultiplyOut multiply_out = p.networks == 1 ? functions.one : functions.many;
  TORCH_ERROR_CODE_CHECK(multiply_out(out.get(), out.get(), left.get(), right.get(), p.accumulate ? 1 : 0, 1));
  return 0;
}

}  // namespace

cuda::Library torch_library(const Device& device) {
  const Functions& functions = functions_of(device);
  if (functions.one == nullptr || functions.many == nullptr) return {};
  return {multiply, &device, kLeastFlops};
}

}  // namespace bk::ops

// For Python, which tests it on the CPU.
extern "C" __attribute__((visibility("default"))) int benign_kernels_multiply_by_torch(
    const bk::cuda::LibraryProduct* product) {
  const bk::ops::Device cpu(torch::headeronly::DeviceType::CPU);
  const bk::cuda::Library library = bk::ops::torch_library(cpu);
  return library.multiply == nullptr ? -1 : library.multiply(library.context, *product);
}
