#include "gram_steps.cuh"

namespace bk::cuda {

template int step_rows(const GramWalk<float>&, int64_t, cudaStream_t);

}  // namespace bk::cuda
