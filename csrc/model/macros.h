// What lets one source serve g++, nvcc and the host emulation of CUDA.
#pragma once

// Always inlined: a CPU source is compiled once per SIMD level, and an out-of-line copy of a shared inline function
// would be merged by the linker across levels, leaking AVX-512 into the baseline or stripping it from v4.
#if defined(__CUDACC__)
#define BK_HD __host__ __device__ __forceinline__
#else
#define BK_HD __attribute__((always_inline)) inline
#endif

// Where float32 products can run on AMX tiles: the compiler knows the instructions, and the system lends the registers.
#if defined(__x86_64__) && defined(__linux__) && !defined(__CUDACC__) && (defined(__clang__) || __GNUC__ >= 11)
#define BK_HAS_TILES 1
#endif
