// How this binary was built.
#pragma once

#include <string>
#include <vector>

namespace bk {

struct BuildInfo {
  std::string torch_target;                // the oldest torch whose stable ABI the library needs
  std::string torch_built;                 // the torch whose headers it was compiled with
  std::string nvcc;                        // nvcc's version, or "none": a CPU build
  std::vector<std::string> architectures;  // of the CUDA code, "sm_80" or "compute_80" for PTX
  std::vector<std::string> simd_levels;    // of the CPU code, best first
  std::string compiler;
  std::string revision;  // git commit, "-dirty" with uncommitted changes, or "unknown"
};

BuildInfo build_info();

}  // namespace bk
