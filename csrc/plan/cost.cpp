#include "cost.h"

#include <algorithm>

namespace bk::plan {
namespace {

// φ and φ' of one pre-activation, in flops: a comparison and a product each, or an exponential and a division, which
// vectorised code evaluates in about twenty.
constexpr double kPiecewiseLinearFlops = 4;
constexpr double kSmoothFlops = 40;

// Elementwise work on x per coordinate and step: the norms of g and of δ (2 + 2), the move (2), the projection (1) and
// x0 + δ (1).
constexpr double kUpdateFlops = 8;

// What stays on chip between two passes over it: a server core's share of its last-level cache, an A100's L2.
constexpr double kCpuCache = 8.0 * (1 << 20);
constexpr double kCudaCache = 40.0 * (1 << 20);

// Balance of fp32 arithmetic and main memory: a core with two 512-bit FMA units at about 100 GFLOP/s and 10 GB/s,
// cards of 20 to 67 TFLOP/s and 1.5 to 4.8 TB/s.
constexpr double kCpuFlopsPerByte = 10;
constexpr double kCudaFlopsPerByte = 14;

}  // namespace

Cost dense_cost(const Problem& p) {
  const double n = static_cast<double>(p.samples), d = static_cast<double>(p.dim), m = static_cast<double>(p.neurons);
  const double patches = static_cast<double>(p.patches), heads = static_cast<double>(p.heads);
  const double steps = static_cast<double>(p.steps), networks = static_cast<double>(p.networks);
  const double activation = p.piecewise_linear ? kPiecewiseLinearFlops : kSmoothFlops;

  // Every step evaluates f and g, and f is evaluated once more at the last iterate. Per pre-activation: its product
  // over d (2d), φ and φ', the heads' sum (2k); in a step also U (2k) and its product with W (2d).
  const double preactivations = n * patches * m * networks;
  const double forward = preactivations * (2 * d + activation + 2 * heads);
  const double backward = preactivations * (2 * d + 2 * heads);
  const double update = kUpdateFlops * n * patches * d * networks;

  // W is read twice per step; x, x0 and δ are read and x and δ written. What fits on chip is moved once.
  const double compute_size = static_cast<double>(std::max<std::int64_t>(p.item_size, 4));
  const double weights = networks * m * d * static_cast<double>(p.item_size);
  const double iterates = networks * n * patches * d * compute_size;
  const double cache = p.device == Device::cpu ? kCpuCache : kCudaCache;
  const double weight_passes = weights / std::max(networks, 1.0) <= cache ? 1 : 2 * steps + 1;
  const double iterate_passes = 3 * iterates <= cache ? 2 : 5 * steps + 2;
  return {(steps + 1) * forward + steps * (backward + update), weight_passes * weights + iterate_passes * iterates};
}

double flops_per_byte(Device device) { return device == Device::cpu ? kCpuFlopsPerByte : kCudaFlopsPerByte; }

}  // namespace bk::plan
