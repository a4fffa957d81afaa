#include "gram_steps.cuh"

namespace bk::cuda {

template int step_rows(const GramWalk<double>&, int64_t, cudaStream_t);

}  // namespace bk::cuda
