#include <string>

#include "engine.h"
#include "launch.cuh"

namespace bk::cuda {
namespace {

#if defined(__CUDA_ARCH_LIST__)
constexpr int kArchitectures[] = {__CUDA_ARCH_LIST__};  // 750 for sm_75

std::string list_architectures() {
  std::string list;
  for (const int architecture : kArchitectures) {
    if (!list.empty()) list += ' ';
    list += std::to_string(architecture / 100) + '.' + std::to_string(architecture / 10 % 10);
  }
  return list;
}
#else
std::string list_architectures() { return "host"; }
#endif

}  // namespace

const char* built_architectures() {
  static const std::string list = list_architectures();
  return list.c_str();
}

int use_device(int device) {
  const int error = cudaSetDevice(device);
  if (error != cudaSuccess) cudaGetLastError();  // told here, and not once more by the next launch
  return error;
}

bool splits_floats_well(int device) {
  int major = 0, minor = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
  return (major == 8 && minor == 0) || major == 9 || major == 10;
}

int tensor_processors(int device) {
  int major = 0, processors = 0;
  cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
  cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  return major < 8 ? 0 : processors;
}

const char* error_string(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

bool is_no_kernel_image(int error) { return error == cudaErrorNoKernelImageForDevice; }

}  // namespace bk::cuda
