// Networks in training: one for each thread where there are enough of them, else all threads in each that is worth it.
#include "layer.h"
#include "training_network.h"

namespace bk::cpu::BK_SIMD_LEVEL {

template <class A> void train(const Training<A>& task, Parallel run) {
  const std::int64_t networks = task.shape.networks;
  const double rows = static_cast<double>(task.samples.count * task.shape.patches);
  const double m = static_cast<double>(task.shape.neurons), d = static_cast<double>(task.shape.dim);
  const bool small = rows * m * (3 * d + m) < kParallelWork;  // multiply-adds of an iteration
  if (networks >= run.threads || small) {
    const Parallel serial{run.for_each, 1};
    return for_each_task(networks >= run.threads ? run : serial, networks,
                         [&](std::int64_t index) { NetworkTraining<A>(task, index, serial).run(); });
  }
  with_crew(run, [&](const Parallel& crew) {
    for (std::int64_t index = 0; index < networks; ++index) NetworkTraining<A>(task, index, crew).run();
  });
}

template void train<float>(const Training<float>&, Parallel);
template void train<double>(const Training<double>&, Parallel);

}  // namespace bk::cpu::BK_SIMD_LEVEL
