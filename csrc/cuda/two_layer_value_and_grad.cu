#include "engine.h"
#include "passes.cuh"

namespace bk::cuda {
namespace {

constexpr PassKind kPass = {true, true, false, false};

}  // namespace

template <class T>
std::size_t two_layer_value_and_grad_workspace(const Network<T>& network, const Samples<Compute<T>>& samples) {
  Arena arena(nullptr);
  take_pass_memory(arena, network, largest_chunk(network, samples.count), kPass);
  return arena.bytes();
}

template <class T>
int two_layer_value_and_grad(const Network<T>& network, const Samples<Compute<T>>& samples, const Compute<T>* cotangent,
                             Compute<T>* f, Compute<T>* gx, Launch run) {
  const Chunk most = largest_chunk(network, samples.count);
  Arena arena(run.workspace);
  const auto memory = take_pass_memory(arena, network, most, kPass);

  return for_each_chunk(network.networks, samples.count, most, [&](const Chunk& chunk) {
    const int64_t row_size = network.patches * network.dim;
    InputPass<T> pass = {};
    pass.network = part_of(network, chunk);
    pass.samples = part_of(samples, chunk, row_size);
    pass.arithmetic = run.arithmetic;
    pass.cotangent = rows_of(cotangent, chunk, samples.count, network.heads);
    pass.f = rows_of(f, chunk, samples.count, network.heads);
    pass.gx = rows_of(gx, chunk, samples.count, row_size);
    return run_input_pass(pass, memory, run.stream);
  });
}

#define BK_INSTANTIATE(T)                                                                                              \
  template std::size_t two_layer_value_and_grad_workspace(const Network<T>&, const Samples<Compute<T>>&);              \
  template int two_layer_value_and_grad(const Network<T>&, const Samples<Compute<T>>&, const Compute<T>*, Compute<T>*, \
                                        Compute<T>*, Launch);
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)
BK_INSTANTIATE(BFloat16)
#undef BK_INSTANTIATE

}  // namespace bk::cuda
