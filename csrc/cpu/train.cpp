// Networks in training: one for each thread where there are enough of them, else all threads in each that is worth it.
#include "layer.h"
#include "training_network.h"

namespace bk::cpu::BK_SIMD_LEVEL {

template <class A> void train(const Training<A>& task, Parallel run) {
  const Parallel serial{run.for_each, 1};
  const std::int64_t networks = task.shape.networks;
  const double rows = static_cast<double>(task.samples.count * task.shape.patches);
  const double m = static_cast<double>(task.shape.neurons), d = static_cast<double>(task.shape.dim);
  const bool small = rows * m * (3 * d + m) < kParallelWork;  // multiply-adds of an iteration
  const bool apart = networks >= run.threads;
  for_each_task(apart ? run : serial, networks,
                [&](std::int64_t index) { NetworkTraining<A>(task, index, apart || small ? serial : run).run(); });
}

template void train<float>(const Training<float>&, Parallel);
template void train<double>(const Training<double>&, Parallel);

}  // namespace bk::cpu::BK_SIMD_LEVEL
