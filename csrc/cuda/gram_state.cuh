// A row on its walk, and what its team carries from step to step: in shared memory, since each thread's registers would
// hold it all. The first thread chooses the step. Here is what is done alike for every φ.
#pragma once

#include "gram_row.cuh"
#include "objective.cuh"

namespace bk::cuda {

constexpr double kLeastShrink = 9.313225746154785e-10;  // 2^-30

// Turned gates that a warp has at hand, one brought by each of its lanes; and how many of those it finds stay on chip.
constexpr int kBatch = kWarp;

// Sums over a row. After a step of ρ, ‖δ‖² = length + ρ growth + ρ² square + t²‖start‖², in units.
template <class A> struct Measures {
  double square;  // ‖g‖² = Σ V∘U
  double length;  // Σ C∘(D + t D_start)
  double growth;  // Σ C∘V + U∘(D + t D_start)
  A bound;        // Σ |U_j| ‖w_j‖
  __device__ void add(double g, double U, double c, A U_norm) {
    square += g * U;
    growth += c * g;
    bound += U_norm;
  }
  __device__ void add_way(double c, double U, double d) {  // d: D, or its start's share
    length += c * d;
    growth += U * d;
  }
  __device__ void merge(const Measures& other) {
    square += other.square;
    length += other.length;
    growth += other.growth;
    bound += other.bound;
  }
  __device__ Measures from_lane(int distance) const {
    return {__shfl_xor_sync(kFullWarp, square, distance), __shfl_xor_sync(kFullWarp, length, distance),
            __shfl_xor_sync(kFullWarp, growth, distance), __shfl_xor_sync(kFullWarp, bound, distance)};
  }
};

// A turned gate as the sweep over V wants it.
template <class A> struct Pull {
  const A* line;  // G_j
  std::int32_t at;
  A by;  // ΔS_j, times a_j where there is one head
};

enum class Next : std::int32_t { rest, move, refresh, spoil };

template <class A> struct WalkState {
  // Where the row's numbers lie. Read anew after each barrier: addresses that a compiler could work out before the
  // first step would stay in registers through all of them.
  int64_t row, network, first;
  const A *head, *norms, *gram, *cotangent;
  Turn<A>* turns;
  A weight_unit, weight_scale, head_scale;  // as in Row
  double unit, shrink, start;
  double start_norm, drift;
  double start_share;  // t = start / unit
  A rate, absorbed;    // D ← absorbed (D + rate V), and C alike
  A hidden_scale;      // H = H0 + hidden_scale D
  Next next;
};

template <class A, int kSize> struct WalkMemory {
  WalkState<A> states[Team<kSize>::kPerBlock];
  Measures<A> parts[kThreads / kWarp];
  int counts[kThreads / kWarp];  // of the gates that a warp has found turned
  Turn<A> turns[kThreads / kWarp][kBatch];
  Pull<A> pulls[kThreads / kWarp][kBatch];
};

// A row's neurons are counted in int, which a sweep overshoots by some.
template <class T> bool can_count(const GramWalk<T>& walk) { return walk.size() < (int64_t{1} << 31) - (1 << 16); }

// A row as its team sees it.
template <class T, int kSize> class WalkedRow {
 public:
  using A = Compute<T>;

  __device__ WalkedRow(const GramWalk<T>& walk, const Team<kSize>& members, WalkMemory<A, kSize>& shared)
      : p(walk), team(members), memory(shared), state(shared.states[threadIdx.x / kSize]) {}

 protected:
  static constexpr int kWarps = kSize / kWarp;

  const GramWalk<T>& p;
  const Team<kSize>& team;
  WalkMemory<A, kSize>& memory;
  WalkState<A>& state;

  __device__ int64_t row() const { return state.row; }
  __device__ int m() const { return static_cast<int>(p.network.neurons); }
  __device__ int size() const { return static_cast<int>(p.size()); }
  __device__ int64_t heads() const { return p.network.heads; }
  __device__ int lane() const { return static_cast<int>(threadIdx.x) % kWarp; }
  __device__ int warp() const { return static_cast<int>(threadIdx.x) / kWarp; }  // of the block
  __device__ int first_warp() const { return static_cast<int>(threadIdx.x) / kSize * kWarps; }

  template <class Number> __device__ Number* of(Number* all) const { return all + state.first; }
  __device__ A* V(int64_t c) const { return p.V + c * p.all(); }  // of all rows
  __device__ const A* head(int64_t c) const { return state.head + c * m(); }
  __device__ A head_of(int64_t c, int neuron) const { return __ldg(head(c) + neuron) * state.head_scale; }
  __device__ A norm(int neuron) const { return __ldg(state.norms + neuron) * state.weight_scale; }
  // One head: V and U are at R = 1, and R is a factor of its own, which may be tiny.
  __device__ A mix(int64_t c) const { return heads() == 1 ? A(1) : state.cotangent[c]; }
  __device__ double factor() const { return heads() == 1 ? static_cast<double>(state.cotangent[0]) : 1; }
  __device__ double gradient_unit() const {
    return static_cast<double>(state.weight_unit) * static_cast<double>(p.head_unit[state.network]);
  }

  // The k-th gate that a warp has found turned. Outside of the chip a warp has as much room as it has gates.
  __device__ Turn<A>& turn(int warp, int k) const {
    if (k < kBatch) return memory.turns[warp][k];
    const int before = (warp - first_warp()) * kWarp, rest = m() % kSize;  // neurons of the warps before
    const int neurons = m() / kSize * before + (rest < before ? rest : before);
    return state.turns[p.network.patches * neurons + k];
  }

  // What a change of 1 in the slope of a neuron changes g by.
  __device__ double influence(int neuron) const {
    double square = 0;
#pragma unroll 1
    for (int64_t c = 0; c < heads(); ++c) {
      const double a = head_of(c, neuron);
      square += a * a;
    }
    return ::sqrt(square) * static_cast<double>(norm(neuron));
  }

  // `summed`: V has been taken as a sum over the slopes that are there. False where the row cannot be walked.
  __device__ bool begin(bool summed) {
    locate();
    const double start = start_norm(p, team, row()), drift = summed ? drift_of_sum() : 0;
    if (team.lane() == 0) {
      state.unit = row_unit(p, row(), start);
      state.shrink = state.start = 1;
      state.start_norm = start;
      state.drift = drift;
      state.next = Next::rest;
      set_scales();
    }
    team.sync();  // all is there
    return p.rows.good[row()] != 0 && is_finite(start);
  }

  // What begin() and the steps so far have made; false where the row rests.
  __device__ bool resume(const WalkProgress& saved) {
    locate();
    if (team.lane() == 0) {
      state.unit = saved.unit;
      state.shrink = saved.shrink;
      state.start = saved.start;
      state.start_norm = saved.start_norm;
      state.drift = saved.drift;
      state.next = Next::rest;
      set_scales();
    }
    team.sync();  // all is there
    return saved.walks;
  }
  __device__ WalkProgress progress(bool walks, double least) const {
    return {state.unit, state.shrink, state.start, state.start_norm, state.drift, least, walks};
  }

  __device__ void locate() {
    if (team.lane() == 0) {
      const Row<T> known(p, team.row());
      state.row = known.row;
      state.network = known.network;
      state.first = known.row * known.size;
      state.head = known.head;
      state.norms = known.norms;
      state.gram = p.gram + known.network * known.m * known.m;
      state.cotangent = p.rows.cotangent + known.row * heads();
      state.turns = p.turns + known.row * turn_room(known.size);
      state.weight_unit = known.weight_unit;
      state.weight_scale = known.weight_scale;
      state.head_scale = known.head_scale;
    }
    team.sync();  // the row can be found
  }

  __device__ void set_scales() {
    state.start_share = state.start / state.unit;
    state.hidden_scale = static_cast<A>(state.weight_unit * state.unit * state.shrink);
  }

  // f of head c; false where it is not finite.
  __device__ bool set_value(int64_t c, A sum) const {
    const A bias = p.network.head_bias == nullptr ? A(0) : p.network.head_bias[state.network * heads() + c];
    const A f = sum * p.head_unit[state.network] + bias;
    if (team.lane() == 0) p.rows.f[row() * heads() + c] = f;
    return is_finite(f);
  }

  // The margin and R, once f is set; false where f is not finite.
  __device__ bool judge(bool finite, A& margin) const {
    team.sync();  // f is there
    margin = margin_of(p.rows, team, row());
    if (p.rows.fixed_cotangent()) return finite;
    if (team.lane() == 0 && finite) set_cotangent(p.rows, row());
    team.sync();  // R is there
    return finite;
  }

  __device__ void keep(A margin) const {
    const AttackRows<A>& rows = p.rows;
    team.for_each(heads(), [&](int64_t c) { rows.result.logits[row() * heads() + c] = rows.f[row() * heads() + c]; });
    team.for_each(size(), [&](int64_t i) { of(p.kept)[i] = of(p.coefficients)[i]; });
    if (team.lane() != 0) return;
    rows.result.margin[row()] = margin;
    p.start_scales[row()] = state.shrink * state.start;
    p.coefficient_scales[row()] = state.shrink * state.unit;
  }

  __device__ void spoil() const {
    const A bad = not_a_number<A>();
    team.for_each(heads(), [&](int64_t c) { p.rows.result.logits[row() * heads() + c] = bad; });
    team.for_each(size(), [&](int64_t i) { of(p.kept)[i] = A(0); });
    if (team.lane() != 0) return;
    p.rows.result.margin[row()] = bad;
    p.rows.good[row()] = 0;
    p.start_scales[row()] = p.coefficient_scales[row()] = 0;
  }

  // From the sums of each thread. largest(): of what U is multiplied by to be at R.
  template <class Largest> __device__ void choose_step(Measures<A> sums, Sum<double> drift, Largest largest) {
    const Team<kWarp> lanes;
    sums = lanes.reduce(sums);
    if (warp() == first_warp()) drift = lanes.reduce(drift);
    if (lane() == 0) memory.parts[warp()] = sums;
    team.sync();  // the sums of all warps are there
    if (team.lane() == 0) {
#pragma unroll 1
      for (int w = 1; w < kWarps; ++w) sums.merge(memory.parts[w]);
      if (sums.square < 0) sums.square = 0;
      state.drift += drift.value;
      state.next = step_of(sums, largest());
    }
    team.sync();  // the step is known
  }

  // V of direction c afresh, as (U w) wᵀ; direction(i, neuron) is U.
  template <class Direction> __device__ void refresh(int64_t c, Direction direction) {
#pragma unroll 1
    for (int64_t first = 0; first < size(); first += m()) refresh(c, first, direction);
    team.sync();  // V is there
  }

 private:
  // At one patch.
  template <class Direction> __device__ void refresh(int64_t c, int64_t first, Direction direction) {
    const int64_t d = p.network.dim;
    const T* weight = p.network.weight + state.network * m() * d;
    A* g = p.rows.x + row() * p.rows.dim;
    team.sync();  // all have read g of the patch before
    team.for_each(d, [&](int64_t k) {
      A sum = A(0);
#pragma unroll 1
      for (int j = 0; j < m(); ++j) {
        sum += direction(first + j, j) * (widen(weight[j * d + k]) * state.weight_scale);
      }
      g[k] = sum;
    });
    team.sync();  // g is there
#pragma unroll 1
    for (int64_t j = team.lane() / kWarp; j < m(); j += kWarps) {
      Sum<A> sum = {A(0)};
#pragma unroll 1
      for (int64_t k = lane(); k < d; k += kWarp) {
        sum.value += g[k] * (widen(weight[j * d + k]) * state.weight_scale);
      }
      sum = Team<kWarp>().reduce(sum);
      if (lane() == 0) V(c)[state.first + first + j] = sum.value;
    }
  }

  // The step and the projection, from what has been measured; by the first thread.
  __device__ Next step_of(const Measures<A>& sums, double largest) {
    if (state.drift * largest * largest > 16 * sums.square) {
      state.drift = 0;
      return Next::refresh;
    }
    const Threat<A>& threat = p.rows.threat;
    const double radius = threat.radius[row()], step = threat.step[row()], root = ::sqrt(sums.square);
    const double norm = gradient_unit() * root, bound = gradient_unit() * static_cast<double>(sums.bound);
    if (!is_finite(sums.square) || !is_finite(factor()) || !is_finite(norm)) return Next::spoil;
    constexpr double kRoundoff = sizeof(A) == sizeof(float) ? 5.9604644775390625e-8 : 1.1102230246251565e-16;
    const bool exact = threat.direction == Direction::exact;
    if (norm == 0 || step == 0 || radius == 0 || factor() == 0) return Next::rest;
    if (exact && norm <= 8 * kRoundoff * bound) return Next::rest;
    // In this order: neither η/‖g‖ nor the quotient of the units need be in range.
    const double scale = state.unit * state.shrink, size = ::fabs(factor()) * norm;
    const double by =
        exact ? factor() * (step / scale) / root : factor() * step / floored(threat, size) * (gradient_unit() / scale);
    state.rate = static_cast<A>(by);
    const double rate = static_cast<double>(state.rate), start = state.start_share * state.start_norm;
    const double square = sums.length + rate * (sums.growth + rate * sums.square) + start * start;
    if (!is_finite(square)) return Next::spoil;
    const double length = scale * ::sqrt(square > 0 ? square : 0);
    if (length > radius) state.shrink *= radius / length;
    const bool absorbs = state.shrink < kLeastShrink;
    state.absorbed = absorbs ? static_cast<A>(state.shrink) : A(1);
    if (absorbs) {
      state.start *= state.shrink;
      state.shrink = 1;
    }
    set_scales();
    return Next::move;
  }

  __device__ double drift_of_sum() const {
    const A* S = of(p.slopes);
    Sum<double> sum = {0};
    each_neuron(team, p.network.patches, m(), [&](int64_t i, int64_t neuron) {
      const double change = S[i] * influence(static_cast<int>(neuron));
      sum.value += change * change;
    });
    return team.reduce(sum).value;
  }
};

}  // namespace bk::cuda
