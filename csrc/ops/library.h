#pragma once

#include "../cuda/library.h"
#include "tensor.h"

namespace bk::ops {

using torch::stable::Device;

// torch's own products, on the current stream of `device`, which must outlive them. Without multiply where this torch has
// none that can be called.
cuda::Library torch_library(const Device& device);

}  // namespace bk::ops
