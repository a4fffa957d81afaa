#include "row_norms.h"

#include "squares.h"
#include "tasks.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

template <class A> double weight_norm(const A* row, std::int64_t size) { return row_norm(row, size); }
double weight_norm(const BFloat16* row, std::int64_t size) {
  double sum = 0;
  for (std::int64_t begin = 0; begin < size; begin += 64) {
    float wide[64];
    const std::int64_t count = size - begin < 64 ? size - begin : 64;
    for (std::int64_t k = 0; k < count; ++k) wide[k] = widen(row[begin + k]);
    for (std::int64_t k = 0; k < count; ++k) sum += static_cast<double>(wide[k]) * wide[k];
  }
  return __builtin_sqrt(sum);
}

}  // namespace

template <class T> void row_norms(const Network<T>& network, Compute<T>* norms, const Parallel& run) {
  constexpr std::int64_t kChunk = 1024;
  const std::int64_t rows = network.networks * network.neurons;
  for_each_task(run, (rows + kChunk - 1) / kChunk, [&](std::int64_t task) {
    const std::int64_t end = (task + 1) * kChunk < rows ? (task + 1) * kChunk : rows;
    for (std::int64_t j = task * kChunk; j < end; ++j) {
      norms[j] = static_cast<Compute<T>>(weight_norm(network.weight + j * network.dim, network.dim));
    }
  });
}

template void row_norms<float>(const Network<float>&, float*, const Parallel&);
template void row_norms<double>(const Network<double>&, double*, const Parallel&);
template void row_norms<BFloat16>(const Network<BFloat16>&, float*, const Parallel&);

}  // namespace bk::cpu::BK_SIMD_LEVEL
