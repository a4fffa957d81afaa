#include "gram_steps.cuh"

namespace bk::cuda {

template int step_rows(const GramWalk<BFloat16>&, int64_t, cudaStream_t);

}  // namespace bk::cuda
