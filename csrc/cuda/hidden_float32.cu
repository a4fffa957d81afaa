#include "hidden_kernel.cuh"

namespace bk::cuda {

template int hidden(const Hidden<float>&, float*, cudaStream_t);

}  // namespace bk::cuda
