#include "engine.h"
#include "passes.cuh"

namespace bk::cuda {
namespace {

constexpr PassKind kPass = {false, false, false, true};

// One chunk's contribution; the chunks that follow in the same networks add to it.
template <class T> struct ParameterPass {
  using A = Compute<T>;
  Network<T> network;
  Samples<A> samples;
  const A* cotangent;
  A* gw;
  A* ga;
  A* gb;
  bool accumulate;
  Arithmetic arithmetic;
};

template <class T>
int run_parameter_pass(const ParameterPass<T>& pass, const PassMemory<Compute<T>>& memory, cudaStream_t stream) {
  using A = Compute<T>;
  const Network<T>& net = pass.network;
  const int64_t rows = pass.samples.count * net.patches;

  return for_each_neuron_range(net.neurons, memory.neurons, [&](int64_t first, int64_t count) -> int {
    Hidden<T> layer = {};
    layer.network = net;
    layer.x = pass.samples.x;
    layer.x_network_stride = pass.samples.network_stride;
    layer.samples = pass.samples.count;
    layer.first_neuron = first;
    layer.neurons = count;
    layer.arithmetic = pass.arithmetic;
    layer.cotangent = pass.cotangent;
    layer.gated = pass.gw != nullptr ? memory.gated : nullptr;
    layer.head_parts = pass.ga != nullptr ? memory.head_parts : nullptr;
    layer.bias_parts = pass.gb != nullptr ? memory.bias_parts : nullptr;
    BK_TRY(hidden(layer, memory.gated, memory.split_parts, stream));

    const int64_t parts = layer.row_tiles();
    if (pass.ga != nullptr) {
      BK_TRY(sum_parts(PartSum<A>{memory.head_parts, parts, net.networks * net.heads, count, pass.ga + first,
                                  net.neurons, pass.accumulate, nullptr, 1},
                       stream));
    }
    if (pass.gb != nullptr) {
      BK_TRY(sum_parts(PartSum<A>{memory.bias_parts, parts, net.networks, count, pass.gb + first, net.neurons,
                                  pass.accumulate, nullptr, 1},
                       stream));
    }
    if (pass.gw == nullptr) return cudaSuccess;
    const Product<A, A> product{
        {memory.gated, rows * count, count},
        {pass.samples.x, pass.samples.network_stride, net.dim},
        net.networks,
        count,
        net.dim,
        rows,
        pass.gw + first * net.dim,
        net.neurons * net.dim,
        pass.accumulate,
        pass.arithmetic,
    };
    return multiply_ux(product, memory.split_parts, stream);
  });
}

}  // namespace

template <class T>
std::size_t two_layer_parameter_grad_workspace(const Network<T>& network, const Samples<Compute<T>>& samples) {
  Arena arena(nullptr);
  take_pass_memory(arena, network, largest_chunk(network, samples.count), kPass);
  return arena.bytes();
}

template <class T>
int two_layer_parameter_grad(const Network<T>& network, const Samples<Compute<T>>& samples, const Compute<T>* cotangent,
                             Compute<T>* gw, Compute<T>* ga, Compute<T>* gb, Launch run) {
  const Chunk most = largest_chunk(network, samples.count);
  Arena arena(run.workspace);
  const auto memory = take_pass_memory(arena, network, most, kPass);

  return for_each_chunk(network.networks, samples.count, most, [&](const Chunk& chunk) {
    const auto parameters = [&](Compute<T>* all, int64_t size) {
      return all == nullptr ? nullptr : all + chunk.network * network.neurons * size;
    };
    return run_parameter_pass(
        ParameterPass<T>{part_of(network, chunk), part_of(samples, chunk, network.patches * network.dim),
                         rows_of(cotangent, chunk, samples.count, network.heads), parameters(gw, network.dim),
                         parameters(ga, network.heads), parameters(gb, 1), chunk.sample > 0, run.arithmetic},
        memory, run.stream);
  });
}

#define BK_INSTANTIATE(T)                                                                                              \
  template std::size_t two_layer_parameter_grad_workspace(const Network<T>&, const Samples<Compute<T>>&);              \
  template int two_layer_parameter_grad(const Network<T>&, const Samples<Compute<T>>&, const Compute<T>*, Compute<T>*, \
                                        Compute<T>*, Compute<T>*, Launch);
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)
BK_INSTANTIATE(BFloat16)
#undef BK_INSTANTIATE

}  // namespace bk::cuda
