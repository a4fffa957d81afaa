#include "passes.cuh"

namespace bk::cuda {

template <class T>
PassMemory<Compute<T>> take_pass_memory(Arena& arena, const Network<T>& network, const Chunk& chunk, PassKind kind) {
  using A = Compute<T>;
  const int64_t rows = chunk.samples * network.patches, all_rows = chunk.networks * rows, heads = network.heads;
  const int64_t neurons = neurons_per_range(network, chunk), tiles = ceil_div(neurons, kTile);
  const int64_t row_tiles = ceil_div(rows, kTile);

  PassMemory<A> memory = {};
  memory.neurons = neurons;
  memory.gated = arena.take<A>(all_rows * neurons);
  if (kind.values) memory.value_parts = arena.take<A>(tiles * all_rows * heads);
  if (kind.scale) memory.scale_parts = arena.take<A>(tiles * all_rows);
  if (kind.parameter_grad) {
    memory.head_parts = arena.take<A>(row_tiles * chunk.networks * heads * neurons);
    memory.bias_parts = arena.take<A>(row_tiles * chunk.networks * neurons);
  }

  int64_t split = product_workspace(chunk.networks, rows, neurons, network.dim);
  if (kind.input_grad) split = std::max(split, product_workspace(chunk.networks, rows, network.dim, neurons));
  if (kind.parameter_grad) split = std::max(split, product_workspace(chunk.networks, neurons, network.dim, rows));
  memory.split_parts = arena.take<A>(split);
  return memory;
}

template <class T>
int run_input_pass(const InputPass<T>& pass, const PassMemory<Compute<T>>& memory, cudaStream_t stream) {
  using A = Compute<T>;
  const Network<T>& net = pass.network;
  const int64_t samples = pass.samples.count, rows = samples * net.patches, heads = net.heads;

  return for_each_neuron_range(net.neurons, memory.neurons, [&](int64_t first, int64_t count) -> int {
    Hidden<T> layer = {};
    layer.network = net;
    layer.x = pass.samples.x;
    layer.x_network_stride = pass.samples.network_stride;
    layer.samples = samples;
    layer.first_neuron = first;
    layer.neurons = count;
    layer.arithmetic = pass.arithmetic;
    layer.cotangent = pass.cotangent;
    layer.weight_norm = pass.weight_norm;
    layer.gated = pass.gx != nullptr ? memory.gated : nullptr;
    layer.value_parts = pass.f != nullptr ? memory.value_parts : nullptr;
    layer.scale_parts = pass.scale != nullptr ? memory.scale_parts : nullptr;
    BK_TRY(hidden(layer, memory.gated, memory.split_parts, stream));

    const int64_t parts = layer.neuron_tiles() * net.patches;
    if (pass.f != nullptr) {
      BK_TRY(sum_parts(PartSum<A>{memory.value_parts, parts, net.networks, samples * heads, pass.f, samples * heads,
                                  first > 0, net.head_bias, heads},
                       stream));
    }
    if (pass.scale != nullptr) {
      BK_TRY(sum_parts(
          PartSum<A>{memory.scale_parts, parts, net.networks, samples, pass.scale, samples, first > 0, nullptr, 1},
          stream));
    }
    if (pass.gx == nullptr) return cudaSuccess;
    const Product<A, T> product{
        {memory.gated, rows * count, count},
        {net.weight + first * net.dim, net.neurons * net.dim, net.dim},
        net.networks,
        rows,
        net.dim,
        count,
        pass.gx,
        rows * net.dim,
        first > 0,
        pass.arithmetic,
    };
    return multiply_uw(product, memory.split_parts, stream);
  });
}

#define BK_INSTANTIATE(T)                                                                              \
  template PassMemory<Compute<T>> take_pass_memory(Arena&, const Network<T>&, const Chunk&, PassKind); \
  template int run_input_pass(const InputPass<T>&, const PassMemory<Compute<T>>&, cudaStream_t);
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)
BK_INSTANTIATE(BFloat16)
#undef BK_INSTANTIATE

}  // namespace bk::cuda
