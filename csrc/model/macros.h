// What lets one source serve g++, nvcc and the host emulation of CUDA.
#pragma once

// Always inlined: a CPU source is compiled once per SIMD level, and an out-of-line copy of a shared inline function
// would be merged by the linker across levels, leaking AVX-512 into the baseline or stripping it from v4.
#if defined(__CUDACC__)
#define BK_HD __host__ __device__ __forceinline__
#else
#define BK_HD __attribute__((always_inline)) inline
#endif
