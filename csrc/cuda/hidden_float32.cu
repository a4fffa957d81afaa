#include "hidden_kernel.cuh"

namespace bk::cuda {

template int hidden(const Hidden<float>&, float*, float*, cudaStream_t);
template int hidden_and_gates(const Hidden<float>&, const GateBits&, float*, float*, cudaStream_t);

}  // namespace bk::cuda
