#include "engine.h"

namespace bk::ops {

cpu::Parallel torch_pool() {
  return {[](std::int64_t tasks, void (*body)(void*, std::int64_t), void* context) {
    torch::stable::parallel_for(0, tasks, 1, [=](std::int64_t begin, std::int64_t end) {
      for (std::int64_t task = begin; task < end; ++task) body(context, task);
    });
  }};
}

}  // namespace bk::ops
