#pragma once

namespace bk::ops {

// Whether torch's own switch allows tf32 in matrix products on CUDA now: torch.backends.cuda.matmul.fp32_precision,
// allow_tf32, or torch.set_float32_matmul_precision, which set the same. False where this torch cannot be asked.
bool allows_tf32();

}  // namespace bk::ops
