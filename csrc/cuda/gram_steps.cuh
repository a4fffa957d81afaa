// The walk for smooth φ, step by step. Included by one .cu per storage type, which compile side by side.
#pragma once

#include "gram_state.cuh"

namespace bk::cuda {
namespace {

template <class A> constexpr int kStepBlocks = sizeof(A) == sizeof(float) ? 4 : 3;  // per multiprocessor

// A row between two products with G. φ is called through a switch: a kernel for each would take many times as long to
// compile, and be no faster, as it waits for memory.
template <class T, int kSize> class RowStep : WalkedRow<T, kSize> {
 public:
  using typename WalkedRow<T, kSize>::A;

  __device__ RowStep(const GramWalk<T>& walk, const AnyActivation& activation, const Team<kSize>& members,
                     WalkMemory<A, kSize>& shared)
      : WalkedRow<T, kSize>(walk, members, shared), phi(activation) {}

  __device__ void run(int64_t k) {
    const Threat<A>& threat = p.rows.threat;
    const bool worst = threat.keep == Keep::worst, end = k == threat.steps;
    const bool follows = !p.rows.fixed_cotangent() || worst || threat.stop_early;
    WalkProgress& saved = p.progress[team.row()];
    bool good;
    if (k == 0) {
      good = this->begin(false);
    } else {
      if (!this->resume(saved)) return;
      good = measure();
    }
    if (good && state.next == Next::move) move();
    A margin = A(0);
    good = good && (!(end || follows) || see(margin));
    const bool rests = end || (threat.stop_early && !(margin > A(0)));
    const bool kept = good && (worst ? k == 0 || margin < saved.least : rests);
    const double least = kept ? margin : k == 0 ? 0 : saved.least;
    if (!good) this->spoil();
    if (kept) this->keep(margin);
    const bool walks = good && !rests;
    if (walks) turn(k == 0);
    team.sync();  // all have read what was saved
    if (team.lane() == 0) saved = this->progress(walks, least);
  }

 private:
  using Base = WalkedRow<T, kSize>;
  using Base::head_of, Base::heads, Base::m, Base::mix, Base::norm, Base::of, Base::p, Base::state, Base::team, Base::V;

  const AnyActivation& phi;

  // visit(i, neuron), i among the row's numbers.
  template <class Visit> __device__ void each(Visit visit) const {
    each_neuron(team, p.network.patches, m(), [&](int64_t i, int64_t j) { visit(i, static_cast<int>(j)); });
  }
  __device__ A hidden(int64_t i) const { return of(p.hidden)[i] + state.hidden_scale * of(p.moved)[i]; }

  // The step that follows from V; V afresh where it has cancelled. False where something is not finite.
  __device__ bool measure() {
#pragma unroll 1
    do {
      const A *U = of(p.slopes), *g = of(V(0)), *C = of(p.coefficients), *D = of(p.moved);
      Measures<A> sums = {};
      each([&](int64_t i, int neuron) {
        double d = D[i];
        if (p.start_hidden != nullptr) d += state.start_share * static_cast<double>(of(p.start_hidden)[i]);
        sums.add(g[i], U[i], C[i], magnitude(U[i]) * norm(neuron));
        sums.add_way(C[i], U[i], d);
      });
      this->choose_step(sums, {0}, [] { return 1.0; });
      if (state.next == Next::refresh) {
        this->refresh(0, [&](int64_t i, int) { return U[i]; });
      }
    } while (state.next == Next::refresh);
    return state.next != Next::spoil;
  }

  __device__ void move() {
    A *C = of(p.coefficients), *D = of(p.moved);
    const A *U = of(p.slopes), *g = of(V(0)), rate = state.rate, absorbed = state.absorbed;
    each([&](int64_t i, int) {
      D[i] = absorbed * (D[i] + rate * g[i]);
      C[i] = absorbed * (C[i] + rate * U[i]);
    });
  }

  // f, the margin and R of this iterate; false where one is not finite.
  __device__ bool see(A& margin) {
    bool finite = true;
#pragma unroll 1
    for (int64_t c = 0; c < heads(); ++c) {
      Sum<A> sum = {A(0)};
      each([&](int64_t i, int neuron) { sum.value += head_of(c, neuron) * phi.value(hidden(i)); });
      finite = this->set_value(c, team.reduce(sum).value) && finite;
    }
    return this->judge(finite, margin);
  }

  // U, and what changes it.
  __device__ void turn(bool first) {
    A *U = of(p.slopes), *change = of(p.change);
    const A scale = first || p.gram_scale == nullptr ? A(1) : p.gram_scale[state.network];
    Sum<double> drift = {0};
    each([&](int64_t i, int neuron) {
      A mixed = A(0);
#pragma unroll 1
      for (int64_t c = 0; c < heads(); ++c) mixed += mix(c) * head_of(c, neuron);
      const A turned = phi.first(hidden(i)) * mixed, by = first ? turned : turned - U[i];
      U[i] = turned;
      change[i] = scale * by;
      const double size = static_cast<double>(by) * static_cast<double>(norm(neuron));
      drift.value += size * size;
    });
    drift = team.reduce(drift);
    if (team.lane() == 0 && (!first || p.summed)) state.drift += drift.value;
  }
};

template <class T, int kSize>
__global__ void __launch_bounds__(kThreads, kStepBlocks<Compute<T>>)
    step_kernel(const GramWalk<T> p, const AnyActivation phi, const int64_t k) {
  using Memory = WalkMemory<Compute<T>, kSize>;
  BK_SHARED(Memory, memory);
  const Team<kSize> team;
  if (team.row() < p.rows.rows()) RowStep<T, kSize>(p, phi, team, memory).run(k);
}

}  // namespace

template <class T> int step_rows(const GramWalk<T>& walk, int64_t k, cudaStream_t stream) {
  if (!can_count(walk)) return cudaErrorInvalidValue;
  return launch_teams(walk.rows.rows(), walk.size(), step_kernel<T, kWarp>, step_kernel<T, kThreads>, stream, walk,
                      AnyActivation{walk.network.activation}, k);
}

}  // namespace bk::cuda
