#include "gram_row.cuh"
#include "objective.cuh"

namespace bk::cuda {
namespace {

constexpr double kLeastShrink = 9.313225746154785e-10;  // 2^-30
constexpr int kWalkBlocks = 1;                          // per multiprocessor: two would leave 128 registers, and spill

// Loops are not unrolled: they are many, wait for memory, and would take ptxas two minutes for each architecture.

struct Measures {
  double square, bound;  // ‖g‖², and Σ |U_j| ‖w_j‖
  double drift;          // Σ (ΔS_j influence_j)² of the gates that have just turned
  __device__ void merge(const Measures& other) {
    square += other.square;
    bound += other.bound;
    drift += other.drift;
  }
  __device__ Measures from_lane(int distance) const {
    return {__shfl_xor_sync(kFullWarp, square, distance), __shfl_xor_sync(kFullWarp, bound, distance),
            __shfl_xor_sync(kFullWarp, drift, distance)};
  }
};

struct TurnCounts {
  int v[kThreads / kWarp];
};

template <class T, int kSize> class RowWalk {
 public:
  using A = Compute<T>;

  __device__ RowWalk(const GramWalk<T>& walk, const Gate<A>& activation, const Team<kSize>& members)
      : p(walk), phi(activation), team(members), row(walk, members.row()) {
    start_norm_ = start_norm(p, team, row.row);
    unit_ = row_unit(p, row.row, start_norm_);
    if (p.summed) drift_ = drift_of_sum();
  }

  __device__ void run() {
    const Threat<A>& threat = p.rows.threat;
    const bool worst = threat.keep == Keep::worst;
    const bool follows = !p.rows.fixed_cotangent() || worst || threat.stop_early;
    bool good = p.rows.good[row.row] != 0 && is_finite(start_norm_);
    for (int64_t k = 0; good; ++k) {
      const bool end = k == threat.steps;
      find_turns();
      if ((end || follows) && !see()) break;
      const bool rests = end || (threat.stop_early && !(margin_ > A(0)));
      if (worst ? k == 0 || margin_ < least_ : rests) keep();
      if (rests) return;
      follow_turns();
      good = measure() && move();
    }
    spoil();
  }

 private:
  static constexpr int kWarps = kSize / kWarp;

  const GramWalk<T>& p;
  const Gate<A>& phi;
  const Team<kSize>& team;
  const Row<T> row;
  double start_norm_, unit_, shrink_ = 1, start_ = 1, drift_ = 0;
  double turned_ = 0;  // the thread's share of Measures::drift
  int turns_ = 0;      // how many gates the thread's warp has found turned
  Measures measures_ = {};
  A margin_ = A(0), least_ = A(0);  // of this iterate, and of the one that is kept

  __device__ int64_t heads() const { return p.network.heads; }
  __device__ A cotangent(int64_t c) const { return p.rows.cotangent[row.row * heads() + c]; }
  // One head: V and U are at R = 1, and R is a factor of its own, which may be tiny.
  __device__ A mix(int64_t c) const { return heads() == 1 ? A(1) : cotangent(c); }
  __device__ double factor() const { return heads() == 1 ? static_cast<double>(cotangent(0)) : 1; }
  __device__ A* V(int64_t c) const { return p.V + c * p.all() + row.row * row.size; }
  __device__ double gradient_unit() const {
    return static_cast<double>(row.weight_unit) * static_cast<double>(p.head_unit[row.network]);
  }
  __device__ A hidden_scale() const { return static_cast<A>(row.weight_unit * unit_ * shrink_); }
  __device__ A hidden(int64_t i) const { return row.of(p.hidden)[i] + hidden_scale() * row.of(p.moved)[i]; }
  __device__ Turn<A>* turns_of(int warp) const {
    return p.turns + row.row * turn_room(row.size) + warp * ceil_div(row.size, kSize) * kWarp;
  }

  // What a change of 1 in the slope of a neuron changes g by.
  __device__ double influence(int64_t neuron) const {
    double square = 0;
#pragma unroll 1
    for (int64_t c = 0; c < heads(); ++c) {
      const double a = row.head_of(c, neuron);
      square += a * a;
    }
    return ::sqrt(square) * static_cast<double>(row.norm(neuron));
  }
  __device__ double drift_of_sum() const {
    Sum<double> sum = {0};
    each_neuron(team, p.network.patches, row.m, [&](int64_t i, int64_t neuron) {
      const double change = row.of(p.slopes)[i] * influence(neuron);
      sum.value += change * change;
    });
    return team.reduce(sum).value;
  }

  // U and g wᵀ of a neuron, at R.
  __device__ A direction(int64_t i, int64_t neuron) const {
    A mixed = A(0);
#pragma unroll 1
    for (int64_t c = 0; c < heads(); ++c) mixed += mix(c) * row.head_of(c, neuron);
    return row.of(p.slopes)[i] * mixed;
  }
  __device__ A gradient(int64_t i) const {
    A mixed = A(0);
#pragma unroll 1
    for (int64_t c = 0; c < heads(); ++c) mixed += mix(c) * V(c)[i];
    return mixed;
  }

  // The slopes of this iterate; each warp lists the gates it finds turned, in the order of its neurons.
  __device__ void find_turns() {
    const int warp = team.lane() / kWarp, lane = team.lane() % kWarp;
    A* S = row.of(p.slopes);
    Turn<A>* list = turns_of(warp);
    turned_ = 0;
    turns_ = 0;
    team.sync();  // all have read the lists of the step before
#pragma unroll 1
    for (int64_t first = warp * kWarp; first < row.size; first += kSize) {
      const int64_t i = first + lane;
      A change = A(0);
      if (i < row.size) {
        const A slope = phi.first(hidden(i));
        change = slope - S[i];
        if (change != A(0)) S[i] = slope;
      }
      const unsigned turned = __ballot_sync(kFullWarp, change != A(0));
      if (change != A(0)) {
        list[turns_ + __popc(turned & ((1u << lane) - 1))] = {i, change};
        const double by = change * influence(i % row.m);
        turned_ += by * by;
      }
      turns_ += __popc(turned);
    }
  }

  // f, the margin and R of this iterate; false where one is not finite.
  __device__ bool see() {
    bool finite = true;
#pragma unroll 1
    for (int64_t c = 0; c < heads(); ++c) {
      Sum<A> sum = {A(0)};
      each_neuron(team, p.network.patches, row.m,
                  [&](int64_t i, int64_t neuron) { sum.value += row.head_of(c, neuron) * phi.value(hidden(i)); });
      const A bias = p.network.head_bias == nullptr ? A(0) : p.network.head_bias[row.network * heads() + c];
      const A f = team.reduce(sum).value * p.head_unit[row.network] + bias;
      finite = finite && is_finite(f);
      if (team.lane() == 0) p.rows.f[row.row * heads() + c] = f;
    }
    team.sync();
    margin_ = margin_of(p.rows, team, row.row);
    if (team.lane() == 0 && finite && !p.rows.fixed_cotangent()) set_cotangent(p.rows, row.row);
    team.sync();
    return finite;
  }

  __device__ void keep() {
    least_ = margin_;
    const AttackRows<A>& rows = p.rows;
    team.for_each(heads(),
                  [&](int64_t c) { rows.result.logits[row.row * heads() + c] = rows.f[row.row * heads() + c]; });
    team.for_each(row.size, [&](int64_t i) { row.of(p.kept)[i] = row.of(p.coefficients)[i]; });
    if (team.lane() != 0) return;
    rows.result.margin[row.row] = margin_;
    p.start_scales[row.row] = shrink_ * start_;
    p.coefficient_scales[row.row] = shrink_ * unit_;
  }

  // V += Σ ΔS_j a_j G_j, and what is measured of the new V.
  __device__ void follow_turns() {
    BK_SHARED(TurnCounts, counts);
    const int first_warp = static_cast<int>(threadIdx.x) / kSize * kWarps;
    if (team.lane() % kWarp == 0) counts.v[threadIdx.x / kWarp] = turns_;
    team.sync();
    const A* G = p.gram + row.network * row.m * row.m;
    const A scale = p.gram_scale == nullptr ? A(1) : p.gram_scale[row.network];
#pragma unroll 1
    for (int64_t c = 0; c < heads(); ++c) {
      each_neuron(team, p.network.patches, row.m, [&](int64_t i, int64_t neuron) {
        const int64_t first = i - neuron;  // of the patch
        A change = A(0);
#pragma unroll 1
        for (int warp = 0; warp < kWarps; ++warp) {
          const Turn<A>* list = turns_of(warp);
#pragma unroll 1
          for (int k = 0; k < counts.v[first_warp + warp]; ++k) {
            const int64_t turned = list[k].at - first;
            if (turned < 0 || turned >= row.m) continue;
            change += list[k].change * row.head_of(c, turned) * G[turned * row.m + neuron];
          }
        }
        V(c)[i] += scale * change;
      });
    }
  }

  __device__ void sum_measures() {
    measures_ = {0, 0, turned_};
    each_neuron(team, p.network.patches, row.m, [&](int64_t i, int64_t neuron) {
      const A U = direction(i, neuron);
      measures_.square += static_cast<double>(gradient(i)) * static_cast<double>(U);
      measures_.bound += static_cast<double>(magnitude(U)) * static_cast<double>(row.norm(neuron));
    });
    measures_ = team.reduce(measures_);
    if (measures_.square < 0) measures_.square = 0;
  }

  // ‖g‖ and the bound of its rounding; V afresh where it has cancelled. False where they are not finite.
  __device__ bool measure() {
    sum_measures();
    drift_ += measures_.drift;
    double largest = 0;
#pragma unroll 1
    for (int64_t c = 0; c < heads(); ++c) {
      const double size = magnitude(mix(c));
      if (size > largest) largest = size;
    }
    if (drift_ * largest * largest > 16 * measures_.square) {
#pragma unroll 1
      for (int64_t c = 0; c < heads(); ++c) refresh(c);
      drift_ = 0;
      turned_ = 0;
      sum_measures();
    }
    return is_finite(measures_.square) && is_finite(factor());
  }

  // V of one head as (U w) wᵀ.
  __device__ void refresh(int64_t c) {
    const int64_t d = p.network.dim;
    const T* weight = p.network.weight + row.network * row.m * d;
    const A* S = row.of(p.slopes);
    A* g = p.rows.x + row.row * p.rows.dim;
#pragma unroll 1
    for (int64_t first = 0; first < row.size; first += row.m) {
      team.sync();
      team.for_each(d, [&](int64_t k) {
        A sum = A(0);
#pragma unroll 1
        for (int64_t j = 0; j < row.m; ++j) {
          sum += S[first + j] * row.head_of(c, j) * (widen(weight[j * d + k]) * row.weight_scale);
        }
        g[k] = sum;
      });
      team.sync();
#pragma unroll 1
      for (int64_t j = team.lane() / kWarp; j < row.m; j += kWarps) {
        Sum<A> sum = {A(0)};
#pragma unroll 1
        for (int64_t k = team.lane() % kWarp; k < d; k += kWarp) {
          sum.value += g[k] * (widen(weight[j * d + k]) * row.weight_scale);
        }
        sum = Team<kWarp>().reduce(sum);
        if (team.lane() % kWarp == 0) V(c)[first + j] = sum.value;
      }
    }
    team.sync();
  }

  // The step and the projection; false where δ is not finite.
  __device__ bool move() {
    const Threat<A>& threat = p.rows.threat;
    const double radius = threat.radius[row.row], step = threat.step[row.row];
    const double norm = gradient_unit() * ::sqrt(measures_.square), bound = gradient_unit() * measures_.bound;
    if (!is_finite(norm)) return false;
    constexpr double kRoundoff = sizeof(A) == sizeof(float) ? 5.9604644775390625e-8 : 1.1102230246251565e-16;
    const bool exact = threat.direction == Direction::exact;
    if (norm == 0 || step == 0 || radius == 0 || factor() == 0) return true;
    if (exact && norm <= 8 * kRoundoff * bound) return true;
    // In this order: neither η/‖g‖ nor the quotient of the units need be in range.
    const double scale = unit_ * shrink_, size = ::fabs(factor()) * norm;
    const double by = exact ? factor() * (step / scale) / ::sqrt(measures_.square)
                            : factor() * step / floored(threat, size) * (gradient_unit() / scale);
    const double start = start_ / unit_;
    const A rate = static_cast<A>(by);
    const A* first = p.start_hidden == nullptr ? nullptr : row.of(p.start_hidden);
    A *D = row.of(p.moved), *C = row.of(p.coefficients);
    Sum<double> products = {0};
    each_neuron(team, p.network.patches, row.m, [&](int64_t i, int64_t neuron) {
      const A d = D[i] + rate * gradient(i), c = C[i] + rate * direction(i, neuron);
      D[i] = d;
      C[i] = c;
      products.value += static_cast<double>(c) * static_cast<double>(d);
      if (first != nullptr) products.value += start * static_cast<double>(c) * static_cast<double>(first[i]);
    });
    const double square = team.reduce(products).value + start * start_norm_ * start * start_norm_;
    const double length = shrink_ * unit_ * ::sqrt(square > 0 ? square : 0);
    if (length > radius) shrink_ *= radius / length;
    if (shrink_ < kLeastShrink) absorb_shrink();
    return is_finite(square);
  }

  __device__ void absorb_shrink() {
    const A scale = static_cast<A>(shrink_);
    each_neuron(team, p.network.patches, row.m, [&](int64_t i, int64_t) {
      row.of(p.moved)[i] *= scale;
      row.of(p.coefficients)[i] *= scale;
    });
    start_ *= shrink_;
    shrink_ = 1;
  }

  __device__ void spoil() {
    const A bad = not_a_number<A>();
    team.for_each(heads(), [&](int64_t c) { p.rows.result.logits[row.row * heads() + c] = bad; });
    team.for_each(row.size, [&](int64_t i) { row.of(p.kept)[i] = A(0); });
    if (team.lane() != 0) return;
    p.rows.result.margin[row.row] = bad;
    p.rows.good[row.row] = 0;
    p.start_scales[row.row] = p.coefficient_scales[row.row] = 0;
  }
};

template <class T, int kSize>
__global__ void __launch_bounds__(kThreads, kWalkBlocks) walk_kernel(const GramWalk<T> p, const Gate<Compute<T>> phi) {
  const Team<kSize> team;
  if (team.row() < p.rows.rows()) RowWalk<T, kSize>(p, phi, team).run();
}

}  // namespace

template <class T> int walk_rows(const GramWalk<T>& walk, cudaStream_t stream) {
  return launch_teams<kShortWalk>(walk.rows.rows(), walk.size(), walk_kernel<T, kWarp>, walk_kernel<T, kThreads>,
                                  stream, walk, gate_of<Compute<T>>(walk.network.activation));
}

template int walk_rows(const GramWalk<float>&, cudaStream_t);
template int walk_rows(const GramWalk<double>&, cudaStream_t);
template int walk_rows(const GramWalk<BFloat16>&, cudaStream_t);

}  // namespace bk::cuda
