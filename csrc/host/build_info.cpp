#include "build_info.h"

#include <build_config.h>

#include <sstream>
#include <utility>

#include "../model/macros.h"

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
  std::vector<std::string> levels = words(BK_BUILD_SIMD_LEVELS);
#if defined(BK_HAS_TILES)
  levels.insert(levels.begin(), "amx");  // the kernels of v4, which ask for tiles at run time
#endif
  return {BK_BUILD_TORCH_TARGET, BK_BUILD_TORCH_BUILT, BK_BUILD_NVCC,    words(BK_BUILD_ARCHITECTURES),
          std::move(levels),     BK_BUILD_COMPILER,    BK_BUILD_REVISION};
}

}  // namespace bk
