// The SIMD level for Python, which has no other way into a library without pybind11: tests force each level.
#include "engine.h"

#define BK_EXPORT extern "C" __attribute__((visibility("default")))

BK_EXPORT const char* benign_kernels_simd_level() { return bk::cpu::simd_level(); }

BK_EXPORT const char* benign_kernels_simd_problem() { return bk::cpu::simd_problem(); }

BK_EXPORT bool benign_kernels_set_simd_level(const char* level) { return bk::cpu::set_simd_level(level); }
