#include "hidden_kernel.cuh"

namespace bk::cuda {

template int hidden(const Hidden<BFloat16>&, float*, float*, cudaStream_t);
template int hidden_and_gates(const Hidden<BFloat16>&, const GateBits&, float*, float*, cudaStream_t);

}  // namespace bk::cuda
