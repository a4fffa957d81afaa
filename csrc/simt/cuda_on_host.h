// The part of CUDA C++ that our kernels use, for g++: the same .cu sources run on a CPU under sanitizers. README.md says
// how, block.h what is watched. Kernels are launched through bk::cuda::launch and declare shared memory with BK_SHARED;
// all else is plain CUDA.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "block.h"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __restrict__
#define __launch_bounds__(...)

struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x_ = 1, unsigned y_ = 1, unsigned z_ = 1) : x(x_), y(y_), z(z_) {}
};

#define threadIdx (::bk::simt::coordinates.thread)
#define blockIdx (::bk::simt::coordinates.block)
#define blockDim (::bk::simt::coordinates.block_dim)
#define gridDim (::bk::simt::coordinates.grid_dim)
constexpr int warpSize = ::bk::simt::kWarpSize;

// ---- the runtime API ------------------------------------------------------------------------------------------------

struct CUstream_st;
using cudaStream_t = CUstream_st*;
enum cudaError {
  cudaSuccess = 0,
  cudaErrorInvalidValue = 1,
  cudaErrorInvalidDevice = 101,
  cudaErrorNoKernelImageForDevice = 209,
  cudaErrorLaunchFailure = 719,
};
using cudaError_t = cudaError;

inline const char* cudaGetErrorString(cudaError_t error) {
  switch (error) {
    case cudaSuccess: return "no error";
    case cudaErrorInvalidValue: return "invalid argument";
    case cudaErrorInvalidDevice: return "invalid device ordinal";
    case cudaErrorNoKernelImageForDevice: return "no kernel image is available for execution on the device";
    case cudaErrorLaunchFailure: break;
  }
  return "launch failure";
}

// There is one device, and every error is told by the call that makes it.
inline cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
enum cudaDeviceAttr {
  cudaDevAttrMultiProcessorCount = 16,
  cudaDevAttrComputeCapabilityMajor = 75,
  cudaDevAttrComputeCapabilityMinor = 76,
};
// One multiprocessor of sm_80, as tensor_core.h.
inline cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int) {
  *value = attribute == cudaDevAttrMultiProcessorCount ? 1 : attribute == cudaDevAttrComputeCapabilityMajor ? 8 : 0;
  return cudaSuccess;
}
inline cudaError_t cudaGetLastError() { return cudaSuccess; }

namespace bk::simt {

template <class Kernel, class... Arguments>
cudaError_t launch(Kernel kernel, dim3 grid, dim3 block, std::size_t dynamic_shared_bytes,
                   const Arguments&... arguments) {
  const bool clean = run_grid({grid.x, grid.y, grid.z}, {block.x, block.y, block.z}, dynamic_shared_bytes,
                              [&] { kernel(arguments...); });
  return clean ? cudaSuccess : cudaErrorLaunchFailure;
}

// A shared variable; Key is a type of its own for each declaration (BK_SHARED makes one).
template <class T, class Key> T& shared() {
  static_assert(std::is_trivially_default_constructible_v<T>, "shared memory is not initialised");
  static const char key = 0;
  return *static_cast<T*>(shared_object(&key, sizeof(T), alignof(T)));
}

// ---- warp operations ------------------------------------------------------------------------------------------------

template <class T> struct ShuffleLane {
  T value;
  int source;
  T received;
};

template <class T> const char* complete_shuffle(void* const* payloads, unsigned mask) {
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if ((mask >> lane & 1u) == 0) continue;
    auto* mine = static_cast<ShuffleLane<T>*>(payloads[lane]);
    if ((mask >> mine->source & 1u) == 0) return "a shuffle reads a lane outside its mask";
    mine->received = static_cast<ShuffleLane<T>*>(payloads[mine->source])->value;
  }
  return nullptr;
}

template <class T> T shuffle(Site site, unsigned mask, T value, int source) {
  ShuffleLane<T> lane{value, source, value};
  warp_collective(site, mask, &lane, &complete_shuffle<T>);
  return lane.received;
}

struct VoteLane {
  bool vote;
  unsigned ballot;
};

inline const char* complete_vote(void* const* payloads, unsigned mask) {
  unsigned ballot = 0;
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if (mask >> lane & 1u) ballot |= static_cast<unsigned>(static_cast<VoteLane*>(payloads[lane])->vote) << lane;
  }
  for (int lane = 0; lane < kWarpSize; ++lane) {
    if (mask >> lane & 1u) static_cast<VoteLane*>(payloads[lane])->ballot = ballot;
  }
  return nullptr;
}

inline unsigned vote(Site site, unsigned mask, bool mine) {
  VoteLane lane{mine, 0};
  warp_collective(site, mask, &lane, &complete_vote);
  return lane.ballot;
}

inline int lane_id() {
  const Index t = coordinates.thread, b = coordinates.block_dim;
  return static_cast<int>((t.x + b.x * (t.y + b.y * t.z)) % kWarpSize);
}

}  // namespace bk::simt

#define BK_SIMT_SITE const char *file = __builtin_FILE(), int line = __builtin_LINE()

inline void __syncthreads(BK_SIMT_SITE) { bk::simt::block_barrier({file, line}); }

inline void __syncwarp(unsigned mask = 0xffffffffu, BK_SIMT_SITE) { bk::simt::vote({file, line}, mask, true); }

// `width` splits the warp into segments, as in CUDA; a source outside the segment is the lane itself.
template <class T> T __shfl_sync(unsigned mask, T value, int source, int width = warpSize, BK_SIMT_SITE) {
  const int lane = bk::simt::lane_id(), first = lane - lane % width;
  return bk::simt::shuffle({file, line}, mask, value, first + (source & (width - 1)));
}
template <class T> T __shfl_xor_sync(unsigned mask, T value, int bits, int width = warpSize, BK_SIMT_SITE) {
  const int lane = bk::simt::lane_id(), end = lane - lane % width + width, source = lane ^ bits;
  return bk::simt::shuffle({file, line}, mask, value, source < end ? source : lane);
}
template <class T> T __shfl_down_sync(unsigned mask, T value, unsigned delta, int width = warpSize, BK_SIMT_SITE) {
  const int lane = bk::simt::lane_id(), source = lane % width + static_cast<int>(delta);
  return bk::simt::shuffle({file, line}, mask, value, source < width ? lane + static_cast<int>(delta) : lane);
}
template <class T> T __shfl_up_sync(unsigned mask, T value, unsigned delta, int width = warpSize, BK_SIMT_SITE) {
  const int lane = bk::simt::lane_id(), source = lane % width - static_cast<int>(delta);
  return bk::simt::shuffle({file, line}, mask, value, source >= 0 ? lane - static_cast<int>(delta) : lane);
}

inline unsigned __ballot_sync(unsigned mask, int predicate, BK_SIMT_SITE) {
  return bk::simt::vote({file, line}, mask, predicate != 0);
}
inline int __any_sync(unsigned mask, int predicate, BK_SIMT_SITE) {
  return bk::simt::vote({file, line}, mask, predicate != 0) != 0;
}
inline int __all_sync(unsigned mask, int predicate, BK_SIMT_SITE) {
  return bk::simt::vote({file, line}, mask, predicate != 0) == mask;
}

// Threads take turns: nothing comes between the reading and the writing.
template <class T> T atomicAdd(T* address, T value) {
  const T before = *address;
  *address += value;
  return before;
}

inline int __ffs(unsigned bits) { return __builtin_ffs(static_cast<int>(bits)); }
inline int __popc(unsigned bits) { return __builtin_popcount(bits); }
template <class T> T __ldg(const T* address) { return *address; }
template <class T> T __ldcg(const T* address) { return *address; }
