#include "gram_state.cuh"

namespace bk::cuda {
namespace {

// Neurons whose numbers a thread asks for before it uses any: a sweep waits for memory, not for arithmetic.
constexpr int kAhead = 4;
// Blocks per multiprocessor: three leave 80 registers a thread, two 128. Rows of a warp each need a few more than 80.
template <class A, int kSize> constexpr int kWalkBlocks = sizeof(A) == sizeof(float) && kSize == kThreads ? 3 : 2;

// Other loops are not unrolled: they are many, and would take ptxas two minutes for each architecture.

// Calls visit(e) for each of the neurons that a thread looks at together.
template <class Visit> __device__ void each_ahead(Visit visit) {
#pragma unroll
  for (int e = 0; e < kAhead; ++e) visit(e);
}

// These neurons, of one patch: `neuron`, `neuron` + kSize, … Those beyond the last count as zeros.
template <int kSize> struct Share {
  int64_t i;  // where the first stands in the arrays of all rows: one address for them all
  int neuron, neurons;

  __device__ bool has(int e) const { return neuron + e * kSize < neurons; }
  template <class A> __device__ void load(const A* all, A (&mine)[kAhead]) const {
    each_ahead([&](int e) { mine[e] = has(e) ? all[i + e * kSize] : A(0); });
  }
  template <class A> __device__ void load_neurons(const A* numbers, A (&mine)[kAhead]) const {
    each_ahead([&](int e) { mine[e] = has(e) ? __ldg(numbers + neuron + e * kSize) : A(0); });
  }
  // Past the first cache: a line of G is read once, and would drive the row's own numbers out.
  template <class A> __device__ void load_once(const A* numbers, A (&mine)[kAhead]) const {
    each_ahead([&](int e) { mine[e] = has(e) ? __ldcg(numbers + neuron + e * kSize) : A(0); });
  }
  template <class A> __device__ void store(const A (&mine)[kAhead], A* all) const {
    each_ahead([&](int e) {
      if (has(e)) all[i + e * kSize] = mine[e];
    });
  }
};

// A step is two sweeps over the row, {move, find turns} and {follow turns, measure}, and between them the look at f
// where it is asked for. Three barriers: the turns are listed; all sums are there; the step is known.
template <class T, int kSize> class RowWalk : WalkedRow<T, kSize> {
 public:
  using typename WalkedRow<T, kSize>::A;

  __device__ RowWalk(const GramWalk<T>& walk, const Gate<A>& activation, const Team<kSize>& members,
                     WalkMemory<A, kSize>& shared)
      : WalkedRow<T, kSize>(walk, members, shared), phi(activation) {}

  __device__ void run() {
    const Threat<A>& threat = p.rows.threat;
    const bool worst = threat.keep == Keep::worst;
    const bool follows = !p.rows.fixed_cotangent() || worst || threat.stop_early;
    A least = A(0);  // margin of the iterate that is kept
    bool good = this->begin(p.summed);
    for (int64_t k = 0; good; ++k) {
      const bool end = k == threat.steps;
      move();
      A margin = A(0);
      if ((end || follows) && !see(margin)) break;
      const bool rests = end || (threat.stop_early && !(margin > A(0)));
      if (worst ? k == 0 || margin < least : rests) {
        least = margin;
        this->keep(margin);
      }
      if (rests) return;
      good = measure();
    }
    this->spoil();
  }

 private:
  using Base = WalkedRow<T, kSize>;
  using Base::first_warp, Base::head, Base::head_of, Base::heads, Base::kWarps, Base::lane, Base::m, Base::memory;
  using Base::mix, Base::of, Base::p, Base::row, Base::size, Base::state, Base::team, Base::turn, Base::V;
  using Base::warp;

  const Gate<A>& phi;

  // visit(patch, share): patch, where it begins among the row's numbers.
  template <class Visit> __device__ void each_share(Visit visit) const {
#pragma unroll 1
    for (int patch = 0; patch < size(); patch += m()) {
#pragma unroll 1
      for (int neuron = team.lane(); neuron - team.lane() < m(); neuron += kAhead * kSize) {
        visit(patch, Share<kSize>{state.first + patch + neuron, neuron, m()});
      }
    }
  }

  // The step, and the slopes after it; each warp lists the gates it finds turned, in the order of its neurons.
  __device__ void move() {
    const bool moves = state.next == Next::move;
    int found = 0;
    each_share([&](int patch, const Share<kSize>& share) {
      A h[kAhead], d[kAhead], s[kAhead];
      share.load(p.hidden, h);
      share.load(p.moved, d);
      share.load(p.slopes, s);
      if (moves) {
        A C[kAhead], v[kAhead] = {}, a[kAhead] = {};
        share.load(p.coefficients, C);
#pragma unroll 1
        for (int64_t c = 0; c < heads(); ++c) {
          A now[kAhead];
          share.load(V(c), now);
          mix_head(share, c, now, v, a);
        }
        each_ahead([&](int e) {
          d[e] = state.absorbed * (d[e] + state.rate * v[e]);
          C[e] = state.absorbed * (C[e] + state.rate * (s[e] * a[e]));
        });
        share.store(d, p.moved);
        share.store(C, p.coefficients);
      }
      each_ahead([&](int e) {
        const A slope = share.has(e) ? phi.first(h[e] + state.hidden_scale * d[e]) : s[e], change = slope - s[e];
        const unsigned turned = __ballot_sync(kFullWarp, change != A(0));
        if (change != A(0)) {
          p.slopes[share.i + e * kSize] = slope;
          const int before = __popc(turned & ((1u << lane()) - 1));
          turn(warp(), found + before) = {patch + share.neuron + e * kSize, change};
        }
        found += __popc(turned);
      });
    });
    if (lane() == 0) memory.counts[warp()] = found;
    team.sync();  // the turns are listed
  }

  // Adds a head to g wᵀ and to R A, at R.
  __device__ void mix_head(const Share<kSize>& share, int64_t c, const A (&now)[kAhead], A (&v)[kAhead],
                           A (&a)[kAhead]) const {
    const A r = mix(c);
    A a_c[kAhead];
    share.load_neurons(head(c), a_c);
    each_ahead([&](int e) {
      v[e] += r * now[e];
      a[e] += r * (a_c[e] * state.head_scale);
    });
  }

  // f, the margin and R of this iterate; false where one is not finite.
  __device__ bool see(A& margin) {
    bool finite = true;
#pragma unroll 1
    for (int64_t c = 0; c < heads(); ++c) {
      Sum<A> sum = {A(0)};
      each_share([&](int, const Share<kSize>& share) {
        A h[kAhead], d[kAhead], a[kAhead];
        share.load(p.hidden, h);
        share.load(p.moved, d);
        share.load_neurons(head(c), a);
        each_ahead([&](int e) { sum.value += a[e] * state.head_scale * phi.value(h[e] + state.hidden_scale * d[e]); });
      });
      finite = this->set_value(c, team.reduce(sum).value) && finite;
    }
    return this->judge(finite, margin);
  }

  // V follows the turns, and the next step is chosen from what is measured of it; V afresh where it has cancelled.
  // False where something is not finite.
  __device__ bool measure() {
    int turns = 0;
#pragma unroll
    for (int w = 0; w < kWarps; ++w) turns += memory.counts[first_warp() + w];
#pragma unroll 1
    do {
      Measures<A> sums = {};
      Sum<double> drift = {0};
      int first = 0;
#pragma unroll 1
      do {
        const int here = turns - first < kBatch ? turns - first : kBatch;
        if (here > 0) drift.value += bring_turns(first, here);
        first += kBatch;
        sweep(here, first >= turns, sums);
      } while (first < turns);
      this->choose_step(sums, drift, [&] { return largest_cotangent(); });
      turns = 0;
      if (state.next == Next::refresh) refresh_all();
    } while (state.next == Next::refresh);
    return state.next != Next::spoil;
  }

  __device__ double largest_cotangent() const {
    double largest = 0;
#pragma unroll 1
    for (int64_t c = 0; c < heads(); ++c) {
      const double size = magnitude(mix(c));
      if (size > largest) largest = size;
    }
    return largest;
  }

  __device__ void refresh_all() {
    const A* S = of(p.slopes);
#pragma unroll 1
    for (int64_t c = 0; c < heads(); ++c) {
      this->refresh(c, [&](int64_t i, int neuron) { return S[i] * head_of(c, neuron); });
    }
  }

  // Turns first … first + here of the row's to where their warp reads them. What the lane's turn adds to the drift,
  // which is the first warp's to sum.
  __device__ double bring_turns(int first, int here) {
    double drift = 0;
    __syncwarp();  // all lanes have read the batch before
    if (lane() < here) {
      int k = first + lane(), w = first_warp();
#pragma unroll 1
      for (; k >= memory.counts[w]; ++w) k -= memory.counts[w];
      const Turn<A> found = turn(w, k);
      const int neuron = found.at % m();
      const A by = heads() == 1 ? found.change * head_of(0, neuron) : found.change;
      memory.pulls[warp()][lane()] = {state.gram + static_cast<int64_t>(neuron) * m(), found.at, by};
      if (warp() == first_warp()) drift = found.change * this->influence(neuron);
    }
    __syncwarp();  // the batch is there
    return drift * drift;
  }

  // V += Σ ΔS_j a_j G_j over the turns at hand; after the last of them, the sums.
  __device__ void sweep(int turns, bool last, Measures<A>& sums) {
    const bool plain = heads() == 1 && p.network.patches == 1;
    each_share([&](int patch, const Share<kSize>& share) {
      A v[kAhead] = {}, a[kAhead] = {};
#pragma unroll 1
      for (int64_t c = 0; c < heads(); ++c) {
        A now[kAhead];
        share.load(V(c), now);
        if (turns > 0) {
          plain ? follow<true>(turns, c, patch, share, now) : follow<false>(turns, c, patch, share, now);
        }
        mix_head(share, c, now, v, a);
      }
      if (!last) return;
      A S[kAhead], C[kAhead], D[kAhead], norms[kAhead];
      share.load(p.slopes, S);
      share.load(p.coefficients, C);
      share.load(p.moved, D);
      share.load_neurons(state.norms, norms);
      each_ahead([&](int e) {
        const A u = S[e] * a[e];
        sums.add(v[e], u, C[e], magnitude(u) * (norms[e] * state.weight_scale));
        sums.add_way(C[e], u, D[e]);
      });
      if (p.start_hidden == nullptr) return;
      share.load(p.start_hidden, D);
      each_ahead([&](int e) { sums.add_way(C[e], S[e] * a[e], state.start_share * static_cast<double>(D[e])); });
    });
  }

  // V of one head: `now` is what it was, and becomes what it is. Where a row is plain, of one head and one patch, no
  // branch stands between two lines of G, and both are asked for at once.
  template <bool kPlain>
  __device__ void follow(int turns, int64_t c, int patch, const Share<kSize>& share, A (&now)[kAhead]) const {
    const Pull<A>* pulls = memory.pulls[warp()];
    A change[kAhead] = {};
#pragma unroll kPlain ? 2 : 1
    for (int k = 0; k < turns; ++k) {
      const Pull<A> pull = pulls[k];
      const int turned = pull.at - patch;
      if (!kPlain && (turned < 0 || turned >= m())) continue;
      const A by = kPlain || heads() == 1 ? pull.by : pull.by * head_of(c, turned);
      A line[kAhead];
      kPlain ? share.load_once(pull.line, line) : share.load_neurons(pull.line, line);
      each_ahead([&](int e) { change[e] += by * line[e]; });
    }
    const A scale = p.gram_scale == nullptr ? A(1) : p.gram_scale[state.network];
    each_ahead([&](int e) { now[e] += scale * change[e]; });
    share.store(now, V(c));
  }
};

template <class T, int kSize>
__global__ void __launch_bounds__(kThreads, kWalkBlocks<Compute<T>, kSize>)
    walk_kernel(const GramWalk<T> p, const Gate<Compute<T>> phi) {
  using Memory = WalkMemory<Compute<T>, kSize>;
  BK_SHARED(Memory, memory);
  const Team<kSize> team;
  if (team.row() < p.rows.rows()) RowWalk<T, kSize>(p, phi, team, memory).run();
}

}  // namespace

template <class T> int walk_rows(const GramWalk<T>& walk, cudaStream_t stream) {
  if (!can_count(walk)) return cudaErrorInvalidValue;
  return launch_teams<kShortWalk>(walk.rows.rows(), walk.size(), walk_kernel<T, kWarp>, walk_kernel<T, kThreads>,
                                  stream, walk, gate_of<Compute<T>>(walk.network.activation));
}

template int walk_rows(const GramWalk<float>&, cudaStream_t);
template int walk_rows(const GramWalk<double>&, cudaStream_t);
template int walk_rows(const GramWalk<BFloat16>&, cudaStream_t);

}  // namespace bk::cuda
