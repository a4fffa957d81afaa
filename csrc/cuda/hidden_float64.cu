#include "hidden_kernel.cuh"

namespace bk::cuda {

template int hidden(const Hidden<double>&, double*, double*, cudaStream_t);
template int hidden_and_gates(const Hidden<double>&, const GateBits&, double*, double*, cudaStream_t);

}  // namespace bk::cuda
