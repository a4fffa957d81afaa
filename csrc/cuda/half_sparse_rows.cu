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

// U at R = 1, from the gates; used as PanelLoader is.
template <class T> class GateLoader {
 public:
  using A = Compute<T>;

  __device__ GateLoader(const HalfSparse<T>& p, const Place& at)
      : p_(p),
        open_(p.bits.open +
              (at.network * p.lines_per_network() + at.row() + Mine::line(0)) * gate_words(p.network.neurons)),
        head_(p.network.head + at.network * p.network.neurons),
        inside_(at.row() + Mine::line(0) < p.lines_per_network()),
        next_(kQuad * Mine::quad()) {}

  __device__ void skip(int64_t terms) { next_ += terms; }

  __device__ void fetch(int terms) {
    const int left = terms - kQuad * Mine::quad();
    const std::uint32_t open = inside_ && left > 0 ? open_[next_ / kWordBits] >> next_ % kWordBits : 0;
#pragma unroll
    for (int term = 0; term < kQuad; ++term) {
      const A a = left > term ? head_[next_ + term] : A(0);
      staged_.v[term] = open >> term & 1u ? a : p_.slope * a;
    }
    skip(kDepth);
  }
  template <class Panel> __device__ void store(Panel& panel) const { panel.put(Mine::line(0), Mine::quad(), staged_); }

 private:
  using Mine = QuadsOfThread<true, kTile>;
  static_assert(Mine::kCount == 1, "a thread brings one quad");

  const HalfSparse<T>& p_;
  const std::uint32_t* open_;  // of the thread's line
  const A* head_;
  bool inside_;   // the line is one of the matrix
  int64_t next_;  // the first neuron of the thread's quad, a multiple of 4
  Quad<A> staged_;
};

// The same in every warp, so that the block returns as one.
template <class T> __device__ bool any_stale(const HalfSparse<T>& p, const Place& at) {
  bool any = false;
  for (int line = static_cast<int>(threadIdx.x) % kWarp; line < kTile; line += kWarp) {
    const int64_t inside = at.row() + line;
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
  using Memory = TileMemory<Sums, NoEpilogue>;
  BK_SHARED(Memory, memory);
  const int64_t rows = p.lines_per_network(), dim = p.network.dim, neurons = p.network.neurons;
  const Place at = place_of<kTile>(p.network.networks, rows, dim);
  if (!any_stale(p, at)) return;
  const int64_t first = at.split * split_terms, last = first + split_terms < neurons ? first + split_terms : neurons;
  const Operand<T> weight{p.network.weight, neurons * dim, dim};
  Sums sums(rows - at.row());
  multiply(GateLoader<T>(p, at), PanelLoader<A, T, false, kTile>(weight, at.network, at.column(), dim), first, last,
           memory.panels, sums);
  A* out = p.parts + (at.split * p.network.networks + at.network) * rows * dim;
  for_each_tile(sums, memory.after.staged, at, rows, dim, [&](const Place& place, const Tile<A>& tile) {
#pragma unroll
    for (int i = 0; i < kPerThread; ++i) {
#pragma unroll
      for (int j = 0; j < kPerThread; ++j) {
        const int64_t row = place.row() + tile_row() + i, column = place.column() + tile_column() + j;
        if (row < rows && column < dim) out[row * dim + column] = tile.v[i][j];
      }
    }
  });
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
  const int64_t tiles = tiles_of(walk.network.networks, walk.lines_per_network(), walk.network.dim);
  return with_precision<Compute<T>>(walk.arithmetic.precision, [&](auto precision) {
    return launch(sum_kernel<T, precision.value>, splits * tiles, stream, walk,
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
