#include "build_info.h"

#include <build_config.h>

#include <sstream>

namespace bk {
namespace {

std::vector<std::string> words(const char* text) {
  std::istringstream stream(text);
  std::vector<std::string> result;
  for (std::string word; stream >> word;) result.push_back(word);
  return result;
}

}  // namespace

BuildInfo build_info() {
  return {BK_BUILD_TORCH_TARGET,       BK_BUILD_TORCH_BUILT, BK_BUILD_NVCC,    words(BK_BUILD_ARCHITECTURES),
          words(BK_BUILD_SIMD_LEVELS), BK_BUILD_COMPILER,    BK_BUILD_REVISION};
}

}  // namespace bk
