#include "cost.h"

#include <algorithm>

namespace bk::plan {
namespace {

// The gates of piecewise-linear φ that flip in a step: measured 0.1 to 2 % on random and on trained networks.
constexpr double kFlips = 0.005;

// What work other than large products costs, in flops of a large product that take as long; measured, see
// bench/planner.py. Per element and step:
constexpr double kPiecewiseLinearGate = 8;  // φ and φ' of a pre-activation, in a tile that is at hand
constexpr double kSmoothGate = 100;
constexpr double kScan = 22;    // a pre-activation, looking for gates that have flipped
constexpr double kUpdate = 40;  // a coordinate of x: norms of g and of δ, the move, the projection, x0 + δ
constexpr double kWalk = 60;    // a pre-activation in the gram walk: three passes over five rows in the nearest cache
constexpr double kFlipW = 12;   // a coordinate of g per gate that flips: a row of W that is at hand,
constexpr double kFlip = 100;   // and what it takes to come to it
constexpr double kFlipG = 14;   // an entry of V per gate that flips: a row of G from the last cache
// Per call, and per sample and step, whatever the sizes.
constexpr double kCall = 2e5;
constexpr double kDenseStep = 2e3, kWalkStep = 3e3;
constexpr double kWalkSample = 3e4;  // per call and sample, what a walk begins and ends with
// CUDA, from what launches and caches are known to take; no device has been asked yet. A launch of 4 µs beside products
// at 40 TFLOP/s; launches of a dense and of a half-sparse step, of the gram walk around its steps, and what one of its
// steps waits for.
constexpr double kLaunch = 1.6e8;
constexpr double kDenseLaunches = 6, kHalfSparseLaunches = 10, kGramLaunches = 14;
constexpr double kGramStepLaunches = 1, kSmoothGramStepLaunches = 3;
constexpr double kCudaScan = 8;    // a pre-activation whose gate becomes a bit, in the tile that it is made in
constexpr double kCudaFlipW = 32;  // a coordinate of g per gate that flips: a row of W from the second cache
constexpr double kCudaFlipG = 32;  // an entry of V per gate that flips: a row of G from there
// Products of whole matrices, whose results leave the cache, against those of a panel.
constexpr double kMatrixProduct = 1.3;
// Products of a few samples wait for W, or G: per entry of it, beside the flops.
constexpr double kFewWeight = 12;
// Half-sparse steps of a few samples, whose W comes from afar.
constexpr double kFewFlips = 1.4;

// The lanes of a register of samples, which panels are rounded up to; rows of the gram walk are not.
constexpr double kLanes = 16;

// What stays on chip between two passes over it: a server core's share of its last-level cache, an A100's L2.
constexpr double kCpuCache = 8.0 * (1 << 20);
constexpr double kCudaCache = 40.0 * (1 << 20);

// Balance of fp32 arithmetic and main memory: a core with two 512-bit FMA units at about 100 GFLOP/s and 10 GB/s,
// cards of 20 to 67 TFLOP/s and 1.5 to 4.8 TB/s.
constexpr double kCpuFlopsPerByte = 10;
constexpr double kCudaFlopsPerByte = 14;

// A problem in the letters of the formulas, for one network.
struct Sizes {
  double n, d, m, P, k, K, networks;
  double product;  // n·P·m·d multiply-adds, in flops
  bool few;        // samples: products wait for the matrix
  double pass;     // effort of that product
  double gate;     // effort of φ and φ' of one pre-activation

  explicit Sizes(const Problem& p)
      : n(static_cast<double>(p.samples)),
        d(static_cast<double>(p.dim)),
        m(static_cast<double>(p.neurons)),
        P(static_cast<double>(p.patches)),
        k(static_cast<double>(p.heads)),
        K(static_cast<double>(p.steps)),
        networks(static_cast<double>(p.networks)),
        product(2 * n * P * m * d),
        few(p.device == Device::cpu && 0 < n && n <= kLanes / 2),
        pass(product + (few ? kFewWeight * m * d : 0)),
        gate(p.piecewise_linear ? kPiecewiseLinearGate : kSmoothGate) {}
};

// To and from main memory: W `weight_passes` times, the points `point_passes` times; what fits on chip is moved once.
double traffic(const Problem& p, double weight_passes, double point_passes) {
  const Sizes s(p);
  const double compute_size = static_cast<double>(std::max<std::int64_t>(p.item_size, 4));
  const double weights = s.m * s.d * static_cast<double>(p.item_size), points = s.n * s.P * s.d * compute_size;
  const double cache = p.device == Device::cpu ? kCpuCache : kCudaCache;
  return s.networks *
         ((weights <= cache ? 1 : weight_passes) * weights + (3 * points <= cache ? 2 : point_passes) * points);
}

// `launches`: on CUDA.
Cost cost_of(const Problem& p, double flops, double effort, double bytes, double launches) {
  const double networks = static_cast<double>(p.networks);
  const double balance = p.device == Device::cpu ? kCpuFlopsPerByte : kCudaFlopsPerByte;
  const double call = p.device == Device::cpu ? kCall : kLaunch * launches;
  return {networks * flops, bytes, call + networks * effort + balance * bytes};
}

// How much more a panel of samples costs than its samples: the lanes left over work too, but for a few samples, which
// have a way of their own that costs `few`.
double panel_waste(const Problem& p, double few) {
  const double n = static_cast<double>(p.samples);
  if (p.device == Device::cuda) return 1;
  return n <= kLanes / 2 ? few : kLanes * static_cast<double>((p.samples + 15) / 16) / n;
}

}  // namespace

// Every step evaluates f and g, and f is evaluated once more at the last iterate.
Cost dense_cost(const Problem& p) {
  const Sizes s(p);
  const double heads = s.n * s.P * s.m * 2 * s.k;
  const double flops = (2 * s.K + 1) * (s.product + heads) + s.K * 8 * s.n * s.P * s.d;
  const double elements = (s.K + 1) * s.n * s.P * s.m * s.gate + s.K * s.n * (s.P * s.d * kUpdate + kDenseStep);
  return cost_of(p, flops + (s.K + 1) * s.n * s.P * s.m * (p.piecewise_linear ? 4 : 40),
                 panel_waste(p, 1) * ((2 * s.K + 1) * (s.pass + heads) + elements),
                 traffic(p, 2 * s.K + 1, 5 * s.K + 2), kDenseLaunches * (s.K + 1));
}

// The same, but that g is a product at the first iterate only.
Cost half_sparse_cost(const Problem& p) {
  const Sizes s(p);
  const bool cuda = p.device == Device::cuda;
  const double flips = kFlips * s.K * s.n * s.P * s.m;
  const double products = (s.K + 2) * s.product;
  const double elements = (s.K + 1) * s.n * s.P * s.m * (s.gate + (cuda ? kCudaScan : kScan)) +
                          s.K * s.n * (s.P * s.d * kUpdate + kDenseStep);
  return cost_of(p, products + flips * 2 * s.d + (s.K + 1) * s.n * s.P * s.m * 4 + s.K * 8 * s.n * s.P * s.d,
                 panel_waste(p, kFewFlips) *
                     ((s.K + 2) * s.pass + elements + flips * (s.d * (cuda ? kCudaFlipW : kFlipW) + kFlip)),
                 traffic(p, s.K + 2, 5 * s.K + 2), kHalfSparseLaunches * (s.K + 1));
}

// G is half a product of W with itself. V of each head is U G or (U W) Wᵀ, whichever is less; a
// smooth φ has one V.
Cost gram_cost(const Problem& p) {
  const Sizes s(p);
  const bool cuda = p.device == Device::cuda;
  const double directions = p.piecewise_linear ? s.k : 1, rows = s.n * s.P;
  const double gram = p.knows_gram || p.samples == 0 ? 0 : s.m * s.m * s.d;
  const double first = directions * std::min(2 * rows * s.m * s.m, 2 * s.product);
  const double ends = 1.0 + p.start + p.needs_x;
  const double step = p.piecewise_linear ? kFlips * rows * s.m * s.m * directions : rows * s.m * s.m;
  const double elements = (s.K + 1) * rows * s.m * ((p.piecewise_linear ? 0 : s.gate) + kWalk * (1 + directions) / 2) +
                          s.n * (kWalkSample + s.K * kWalkStep);
  const double wait = s.few && !p.piecewise_linear ? s.K * kFewWeight * s.m * s.m : 0;
  const double change = !p.piecewise_linear ? 2 : cuda ? kCudaFlipG : kFlipG;
  return cost_of(p, gram + first + ends * s.product + s.K * (2 * step + 12 * rows * s.m),
                 kMatrixProduct * (gram + first + ends * s.pass) + elements + wait + s.K * step * change,
                 traffic(p, 4, 3),
                 kGramLaunches + (p.piecewise_linear ? kGramStepLaunches : kSmoothGramStepLaunches) * s.K);
}

}  // namespace bk::plan
