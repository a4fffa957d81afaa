// Networks in training: one for each thread where there are enough of them, else all threads in each.
#include "training_network.h"

namespace bk::cpu::BK_SIMD_LEVEL {

template <class A> void train(const Training<A>& task, Parallel run) {
  const Parallel serial{run.for_each, 1};
  const std::int64_t networks = task.shape.networks;
  const bool apart = networks >= run.threads;
  for_each_task(apart ? run : serial, networks,
                [&](std::int64_t index) { NetworkTraining<A>(task, index, apart ? serial : run).run(); });
}

template void train<float>(const Training<float>&, Parallel);
template void train<double>(const Training<double>&, Parallel);

}  // namespace bk::cpu::BK_SIMD_LEVEL
