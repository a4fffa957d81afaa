#include <algorithm>

#include "../model/half_sparse.h"
#include "half_sparse_rows.cuh"
#include "step.cuh"

namespace bk::cuda {
namespace {

// ---- the flips ------------------------------------------------------------------------------------------------------

// One warp for each slab, line and span.
template <class T> __global__ void __launch_bounds__(kThreads) follow_kernel(const HalfSparse<T> p) {
  using A = Compute<T>;
  constexpr int kNumbers = static_cast<int>(kSpan / kWarp);
  const Team<kWarp> team;
  const int64_t dim = p.network.dim, spans = ceil_div(dim, kSpan), lines = p.lines();
  const int64_t span = team.row() % spans, line = team.row() / spans % lines, slab = team.row() / spans / lines;
  if (slab >= p.slabs || p.crowded(line / p.network.patches)) return;  // g is not read any more
  const int64_t network = line / p.lines_per_network(), words = gate_words(p.network.neurons);
  const int64_t first = slab * p.words_per_slab, after = first + p.words_per_slab, end = after < words ? after : words;
  const T* weight = p.network.weight + network * p.network.neurons * dim;
  const A* head = p.network.head + network * p.network.neurons;
  const A* norms = p.norms + network * p.network.neurons;

  A sum[kNumbers] = {};
  double changes = 0;
  for (int64_t begin = first; begin < end; begin += kWarp) {
    const int64_t mine = line * words + begin + team.lane();
    const bool inside = begin + team.lane() < end;
    const std::uint32_t my_flips = inside ? p.bits.flips[mine] : 0, my_open = inside ? p.bits.open[mine] : 0;
    unsigned some = __ballot_sync(kFullWarp, my_flips != 0);
    while (some != 0) {
      const int source = __ffs(some) - 1;
      some &= some - 1;
      std::uint32_t flips = __shfl_sync(kFullWarp, my_flips, source);
      const std::uint32_t open = __shfl_sync(kFullWarp, my_open, source);
      for (; flips != 0; flips &= flips - 1) {
        const int bit = __ffs(flips) - 1;
        const int64_t neuron = (begin + source) * kWordBits + bit;
        const A a = head[neuron], shut = p.slope * a, change = open >> bit & 1u ? a - shut : shut - a;
        const T* w = weight + neuron * dim;
#pragma unroll
        for (int i = 0; i < kNumbers; ++i) {
          const int64_t k = span * kSpan + i * kWarp + team.lane();
          if (k < dim) sum[i] += change * widen(w[k]);
        }
        if (span != 0) continue;
        const double size = static_cast<double>(change) * static_cast<double>(norms[neuron]);
        changes += size * size;
      }
    }
  }
#pragma unroll
  for (int i = 0; i < kNumbers; ++i) {
    const int64_t k = span * kSpan + i * kWarp + team.lane();
    if (k < dim) p.parts[(slab * lines + line) * dim + k] = sum[i];
  }
  if (span == 0 && team.lane() == 0) p.change_parts[slab * lines + line] = changes;
}

// ---- the rows -------------------------------------------------------------------------------------------------------

template <class A, class Team> __device__ double norm_of(const Team& team, int64_t dim, const A* g) {
  const auto value = [=](int64_t i) { return g[i]; };
  const A peak = peak_of<A>(team, dim, value);
  return peak > A(0) && is_finite(peak) ? peak * norm_over_peak(team, dim, peak, value) : peak;
}

template <class T, int kSize>
__global__ void __launch_bounds__(kThreads, kTeamBlocks) settle_kernel(const HalfSparse<T> p) {
  const Team<kSize> team;
  const int64_t row = team.row(), dim = p.rows.dim, patches = p.network.patches;
  if (row >= p.rows.rows()) return;
  bool lost = p.crowded(row);
  if (!lost) {
    Sum<double> changes = {0};
    team.for_each(p.slabs * patches, [&](int64_t part) {
      changes.value += p.change_parts[part / patches * p.lines() + row * patches + part % patches];
    });
    changes = team.reduce(changes);
    const double norm = norm_of(team, dim, p.g + row * dim);
    if (team.lane() != 0) return;
    p.changes[row] += changes.value;
    if (norm > p.most[row]) p.most[row] = norm;
    lost = gradient_is_lost(norm, p.most[row], p.changes[row], p.rows.scale[row], static_cast<double>(p.gates()));
  }
  if (team.lane() == 0) p.stale[row] = lost;
}

template <class T, int kSize>
__global__ void __launch_bounds__(kThreads, kTeamBlocks) finish_kernel(const HalfSparse<T> p, const int splits) {
  const Team<kSize> team;
  const int64_t row = team.row(), dim = p.rows.dim;
  if (row >= p.rows.rows()) return;
  auto* g = p.g + row * dim;
  if (p.is_stale(row)) {
    team.for_each(dim, [&](int64_t i) {
      const auto* part = p.parts + row * dim + i;
      auto sum = *part;
      for (int split = 1; split < splits; ++split) sum += *(part += p.lines() * p.network.dim);
      g[i] = sum;
    });
    const double norm = norm_of(team, dim, g);
    if (team.lane() == 0) {
      p.most[row] = norm;
      p.changes[row] = 0;
    }
  }
  const auto R = p.rows.cotangent[row];
  team.for_each(dim, [&](int64_t i) { p.rows.gradient[row * dim + i] = R * g[i]; });
  if (team.lane() != 0) return;
  p.rows.scale[row] *= magnitude(R);
  p.bits.counts[row] = 0;
}

// ---- a gradient from the gates of all neurons -----------------------------------------------------------------------

// U at R = 1, from the gates; used as PanelLoader is, and with its places: two pairs of neighbouring terms per thread.
template <class T> class GateLoader {
 public:
  using A = Compute<T>;

  __device__ GateLoader(const HalfSparse<T>& p, const Place& at)
      : p_(p),
        first_((at.network * p.lines_per_network() + at.row + line(0)) * gate_words(p.network.neurons)),
        head_(p.network.head + at.network * p.network.neurons),
        next_(term()) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) inside_[i] = at.row + line(i) < p.lines_per_network();
  }

  __device__ void skip(int64_t terms) { next_ += terms; }

  __device__ void fetch(int64_t terms) {
    const int64_t to_next_line = kTile / kPairs * gate_words(p_.network.neurons);
    const std::uint32_t* open = p_.bits.open + first_ + next_ / kWordBits;
    const int bit = static_cast<int>(next_ % kWordBits);
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const bool known = term() + side < terms;
      const A a = known ? head_[next_ + side] : A(0), shut = p_.slope * a;
#pragma unroll
      for (int i = 0; i < kPairs; ++i) {
        const bool is_open = known && inside_[i] && (open[i * to_next_line] >> (bit + side) & 1u) != 0;
        staged_[i].v[side] = is_open ? a : shut;
      }
    }
    skip(kDepth);
  }
  template <class Panel> __device__ void store(Panel& panel) const {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) panel.put(line(i), term(), staged_[i].v[0], staged_[i].v[1]);
  }

 private:
  static constexpr int kPairs = kTile * kDepth / kThreads / 2, kPairsOfLine = kDepth / 2;

  const HalfSparse<T>& p_;
  int64_t first_;  // the first word of the thread's line 0
  const A* head_;
  int64_t next_;         // the first neuron of the thread's pairs, an even one
  bool inside_[kPairs];  // the pair's line is one of the matrix
  Pair<A> staged_[kPairs];

  __device__ static int term() { return 2 * (static_cast<int>(threadIdx.x) % kPairsOfLine); }
  __device__ static int line(int i) {
    const int t = static_cast<int>(threadIdx.x), warp = t / kWarp;
    return warp / 2 * 8 + t % kWarp / kPairsOfLine * 2 + warp % 2 + i * (kTile / kPairs);
  }
};

// The same in every warp, so that the block returns as one.
template <class T> __device__ bool any_stale(const HalfSparse<T>& p, const Place& at) {
  bool any = false;
  for (int line = static_cast<int>(threadIdx.x) % kWarp; line < kTile; line += kWarp) {
    const int64_t inside = at.row + line;
    if (inside >= p.lines_per_network()) break;
    any = any || p.is_stale(at.network * p.samples() + inside / p.network.patches);
  }
  return __any_sync(kFullWarp, any) != 0;
}

template <class T, Precision kPrecision>
__global__ void __launch_bounds__(kThreads, kBlocksPerProcessor<Compute<T>>)
    sum_kernel(const HalfSparse<T> p, const int64_t split_terms) {
  using A = Compute<T>;
  using Sums = TileSums<A, T, kPrecision>;
  BK_SHARED(typename Sums::Panels, panels);
  const int64_t rows = p.lines_per_network(), dim = p.network.dim, neurons = p.network.neurons;
  const Place at = place_of(blockIdx.x, p.network.networks, ceil_div(rows, kTile), ceil_div(dim, kTile));
  if (!any_stale(p, at)) return;
  const int64_t first = at.split * split_terms, last = first + split_terms < neurons ? first + split_terms : neurons;
  const Operand<T> weight{p.network.weight, neurons * dim, dim};
  Tile<A> tile;
  multiply<Sums>(GateLoader<T>(p, at), PanelLoader<A, T, false>(weight, at.network, at.column, dim), first, last,
                 panels, tile);
  A* out = p.parts + (at.split * p.network.networks + at.network) * rows * dim;
#pragma unroll
  for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
    for (int j = 0; j < kPerThread; ++j) {
      const int64_t row = at.row + tile_row() + i, column = at.column + tile_column() + j;
      if (row < rows && column < dim) out[row * dim + column] = tile.v[i][j];
    }
  }
}

// Warps that occupy the 132 to 148 multiprocessors of current devices.
constexpr int64_t kWantedWarps = 8192;

}  // namespace

int64_t slab_count(int64_t lines, int64_t dim, int64_t neurons) {
  const int64_t warps = std::max<int64_t>(1, lines * ceil_div(dim, kSpan));
  const int64_t most = std::max<int64_t>(1, ceil_div(gate_words(neurons), kWarp));
  return std::min(most, ceil_div(kWantedWarps, warps));
}

int64_t slab_words(int64_t neurons, int64_t slabs) {
  return ceil_div(ceil_div(gate_words(neurons), slabs), kWarp) * kWarp;
}

template <class T> int follow_flips(const HalfSparse<T>& walk, cudaStream_t stream) {
  const int64_t warps = walk.slabs * walk.lines() * ceil_div(walk.network.dim, kSpan);
  return launch(follow_kernel<T>, ceil_div(warps, Team<kWarp>::kPerBlock), stream, walk);
}

template <class T> int settle_gradients(const HalfSparse<T>& walk, cudaStream_t stream) {
  const int64_t size = walk.lines() * walk.network.dim;
  BK_TRY(sum_parts(PartSum<Compute<T>>{walk.parts, walk.slabs, 1, size, walk.g, size, true, nullptr, 1}, stream));
  return launch_teams(walk.rows.rows(), walk.rows.dim, settle_kernel<T, kWarp>, settle_kernel<T, kThreads>, stream,
                      walk);
}

template <class T> int sum_gradients(const HalfSparse<T>& walk, int splits, cudaStream_t stream) {
  const int64_t tiles = ceil_div(walk.lines_per_network(), kTile) * ceil_div(walk.network.dim, kTile);
  return with_precision<Compute<T>>(walk.arithmetic.precision, [&](auto precision) {
    return launch(sum_kernel<T, precision.value>, splits * walk.network.networks * tiles, stream, walk,
                  terms_per_split(walk.network.neurons, splits));
  });
}

template <class T> int finish_gradients(const HalfSparse<T>& walk, int splits, cudaStream_t stream) {
  return launch_teams(walk.rows.rows(), walk.rows.dim, finish_kernel<T, kWarp>, finish_kernel<T, kThreads>, stream,
                      walk, splits);
}

#define BK_INSTANTIATE(T)                                              \
  template int follow_flips(const HalfSparse<T>&, cudaStream_t);       \
  template int settle_gradients(const HalfSparse<T>&, cudaStream_t);   \
  template int sum_gradients(const HalfSparse<T>&, int, cudaStream_t); \
  template int finish_gradients(const HalfSparse<T>&, int, cudaStream_t);
BK_INSTANTIATE(float)
BK_INSTANTIATE(double)
BK_INSTANTIATE(BFloat16)
#undef BK_INSTANTIATE

}  // namespace bk::cuda
