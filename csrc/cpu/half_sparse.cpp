#include "half_sparse.h"

#include <new>

#include "../model/half_sparse.h"
#include "gate.h"
#include "tasks.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

template <class A> BK_HD void copy(A* to, const A* from, std::int64_t size) {
  for (std::int64_t k = 0; k < size; ++k) to[k] = from[k];
}

template <class A> BK_HD void fill(A* to, std::int64_t size, A value) {
  for (std::int64_t k = 0; k < size; ++k) to[k] = value;
}

template <class A> BK_HD void add(A* sum, const A* term, std::int64_t size) {
  for (std::int64_t k = 0; k < size; ++k) sum[k] += term[k];
}

// g += c w in whole registers.
template <class A> BK_HD void add_multiple(A* g, A c, const A* w, std::int64_t size) {
  using V = Vec<A>;
  const V factor = V::broadcast(c);
  for (std::int64_t k = 0; k < size; k += V::kLanes) (V::load(g + k) + factor * V::load(w + k)).store(g + k);
}

// w_j, to be read in whole registers: where it lies, or in `buffer`. `left`: numbers of W from w_j to its end.
template <class A>
BK_HD const A* weight_row(const A* w, std::int64_t dim, std::int64_t stretch, std::int64_t left, A* buffer) {
  if (left >= stretch) return w;
  copy(buffer, w, dim);
  return buffer;
}
BK_HD const float* weight_row(const BFloat16* w, std::int64_t dim, std::int64_t, std::int64_t, float* buffer) {
  for (std::int64_t k = 0; k < dim; ++k) buffer[k] = widen(w[k]);
  return buffer;
}

// One neuron of a tile at one sample.
struct Flip {
  std::uint16_t neuron, sample;
};

BK_HD std::uint16_t first_bit(std::uint64_t bits) {
  return static_cast<std::uint16_t>(__builtin_ctzll(bits | std::uint64_t(1) << 63));
}

}  // namespace

template <class T>
HalfSparse<T>::HalfSparse(PanelEvaluation<T>& evaluation, std::int64_t count, bool together)
    : evaluation_(evaluation),
      count_(count),
      together_(together),
      slope_(visit_activation(evaluation.layer.activation, [](auto phi) { return phi.first(A(-1)); })),
      samples_(~std::uint64_t(0) >> (64 - count)),
      stale_(samples_) {
  static_assert(kMaxWidth<A> <= 64, "the gates of a neuron are the bits of one word");
}

// ---- memory: every piece is a whole number of registers, so that what follows it is aligned -------------------------

template <class T> std::int64_t HalfSparse<T>::scratch_size() const {
  return kWidenedBlock<T> + (kTileNeurons + layer().size()) * width() + FewSamples<A>::kScratch + share_size() +
         stretch();
}

template <class T> std::int64_t HalfSparse<T>::memory() const {
  const std::int64_t slabs = evaluation_.slabs.count, gates = layer().patches * layer().neurons;
  return static_cast<std::int64_t>((slabs * sizeof(Share) + gates * sizeof(std::uint64_t)) / sizeof(A)) +
         (slabs + 1) * share_size() + (together_ ? slabs : 1) * scratch_size();
}

template <class T> Compute<T>* HalfSparse<T>::attach(A* memory) {
  const std::int64_t slabs = evaluation_.slabs.count;
  shares_ = reinterpret_cast<Share*>(memory);
  closed_ = reinterpret_cast<std::uint64_t*>(shares_ + slabs);
  rows_ = reinterpret_cast<A*>(closed_ + layer().patches * layer().neurons);
  sum_ = rows_ + slabs * share_size();
  scratch_ = sum_ + share_size();
  return memory + this->memory();
}

template <class T> auto HalfSparse<T>::scratch(std::int64_t slab) const -> Scratch {
  Scratch scratch;
  scratch.widened = scratch_ + (together_ ? slab : 0) * scratch_size();
  scratch.H = scratch.widened + kWidenedBlock<T>;
  scratch.few = scratch.H + kTileNeurons * width();
  scratch.panel = scratch.few + FewSamples<A>::kScratch;
  scratch.rows = scratch.panel + layer().size() * width();
  scratch.weight = scratch.rows + share_size();
  return scratch;
}

// ---- a slab ---------------------------------------------------------------------------------------------------------

// body(tile, its gates) for the slab's tiles, patch by patch.
template <class T>
template <class Body>
void HalfSparse<T>::for_each_tile(std::int64_t slab, const Scratch& scratch, const Body& body) const {
  const std::int64_t end = evaluation_.slabs.end(slab);
  for (std::int64_t begin = evaluation_.slabs.begin(slab); begin < end; begin += kTileNeurons) {
    const std::int64_t rows = end - begin < kTileNeurons ? end - begin : kTileNeurons;
    for (std::int64_t patch = 0; patch < layer().patches; ++patch) {
      body(Tile<T>{layer(), begin, rows, patch, evaluation_.vectors, scratch.widened},
           closed_ + begin * layer().patches + patch * rows);
    }
  }
}

template <class T> void HalfSparse<T>::run_slab(std::int64_t slab, bool value, bool with_gradient) {
  const bool fresh = with_gradient && !begun_, follow = with_gradient && begun_ && slope_ != A(1);
  const Scratch scratch = this->scratch(slab);
  Share& share = shares_[slab];
  Lanes<A, A> bound;
  if (value) fill(share.f.lane, width(), A(0));
  if (fresh) begin_fresh(scratch, bound);
  if (!value && !fresh && !follow) return;
  for_each_tile(slab, scratch, [&](const Tile<T>& tile, std::uint64_t* closed) {
    const A* head = layer().head + tile.begin;
    either_hidden(tile, evaluation_.few(), evaluation_.x, scratch.H, scratch.few);
    if (value)
      gate<A>(layer().activation, {scratch.H, tile.rows, tile.vectors, head, nullptr, head, share.f.lane, nullptr});
    if (follow) follow_gates(tile, scratch, closed, share, rows_ + slab * share_size());
    if (!fresh) return;
    find_closed(scratch.H, tile.rows, tile.vectors, closed);
    add_fresh(tile, scratch, closed, bound);
  });
  if (fresh) take_fresh(slab, scratch, bound);
}

template <class T> void HalfSparse<T>::refresh_slab(std::int64_t slab) {
  if (!stale()) return;
  const Scratch scratch = this->scratch(slab);
  Lanes<A, A> bound;
  begin_fresh(scratch, bound);
  for_each_tile(slab, scratch,
                [&](const Tile<T>& tile, const std::uint64_t* closed) { add_fresh(tile, scratch, closed, bound); });
  take_fresh(slab, scratch, bound);
}

// ---- a gradient from the gates of all neurons -----------------------------------------------------------------------

template <class T> void HalfSparse<T>::begin_fresh(const Scratch& scratch, Lanes<A, A>& bound) const {
  fill(scratch.panel, layer().size() * width(), A(0));
  fill(bound.lane, width(), A(0));
}

template <class T>
void HalfSparse<T>::add_fresh(const Tile<T>& tile, const Scratch& scratch, const std::uint64_t* closed,
                              Lanes<A, A>& bound) const {
  gated_head(closed, tile.rows, tile.vectors, layer().head + tile.begin, slope_, scratch.H);
  add_bound(scratch.H, tile.rows, tile.vectors, layer().norms + tile.begin, bound.lane);
  either_gradient(tile, evaluation_.few(), scratch.H, scratch.panel, true, scratch.few);
}

// For the rows that need it, and only for them.
template <class T> void HalfSparse<T>::take_fresh(std::int64_t slab, const Scratch& scratch, const Lanes<A, A>& bound) {
  const std::int64_t size = layer().size(), dim = layer().dim;
  const A* rows = scratch.panel;
  if (!evaluation_.few().count) {
    store_panel(scratch.panel, evaluation_.vectors, size, count_, scratch.rows, size);
    rows = scratch.rows;
  }
  Share& share = shares_[slab];
  for (std::int64_t i = 0; i < count_; ++i) {
    if (!(stale_ >> i & 1)) continue;
    share.bound[i] = bound[i];
    share.drift[i] = 0;
    A* to = rows_ + slab * share_size() + i * row_size();
    for (std::int64_t p = 0; p < layer().patches; ++p) copy(to + p * stretch(), rows + i * size + p * dim, dim);
  }
}

// ---- a gradient from the gates that flipped -------------------------------------------------------------------------

template <class T>
void HalfSparse<T>::follow_gates(const Tile<T>& tile, const Scratch& scratch, std::uint64_t* closed, Share& share,
                                 A* rows) const {
  std::uint64_t now[kTileNeurons];
  Flip flips[kTileNeurons * kMaxWidth<A> + 1];
  find_closed(scratch.H, tile.rows, tile.vectors, now);
  std::int64_t count = 0;
  for (std::uint16_t j = 0; j < tile.rows; ++j) {
    std::uint64_t flipped = (now[j] ^ closed[j]) & samples_;
    // The first flip without a branch: whether a neuron has one cannot be predicted, but few have more.
    flips[count] = {j, first_bit(flipped)};
    count += flipped != 0;
    while (flipped &= flipped - 1) flips[count++] = {j, first_bit(flipped)};
  }
  for (std::int64_t f = 0; f < count; ++f) {
    const bool shuts = now[flips[f].neuron] >> flips[f].sample & 1;
    add_flip(tile, flips[f].neuron, flips[f].sample, shuts, scratch.weight, share, rows);
  }
  copy(closed, now, tile.rows);
}

template <class T>
BK_HD void HalfSparse<T>::add_flip(const Tile<T>& tile, std::int64_t j, std::int64_t i, bool shuts, A* buffer,
                                   Share& share, A* rows) const {
  const std::int64_t neuron = tile.begin + j, dim = layer().dim, stretch = this->stretch();
  const A* w = weight_row(layer().weight + neuron * dim, dim, stretch, (layer().neurons - neuron) * dim, buffer);
  const A a = layer().head[neuron], shut = slope_ * a, norm = layer().norms[neuron];
  const A change = shuts ? shut - a : a - shut;
  const double size = static_cast<double>(change) * norm;
  add_multiple(rows + i * row_size() + tile.patch * stretch, change, w, stretch);
  share.bound[i] += (shuts ? magnitude(shut) - magnitude(a) : magnitude(a) - magnitude(shut)) * norm;
  share.drift[i] += size * size;
}

// ---- all slabs ------------------------------------------------------------------------------------------------------

template <class T> void HalfSparse<T>::join(bool value, bool with_gradient) {
  if (value) {
    copy(evaluation_.sum.f, shares_[0].f.lane, width());
    for (std::int64_t s = 1; s < evaluation_.slabs.count; ++s) add(evaluation_.sum.f, shares_[s].f.lane, width());
  }
  if (!with_gradient) return;
  join_gradient();
  find_stale();
  begun_ = true;
}

template <class T> void HalfSparse<T>::join_gradient() {
  for (std::int64_t i = 0; i < count_; ++i) {
    A* sum = sum_ + i * row_size();
    copy(sum, rows_ + i * row_size(), row_size());
    for (std::int64_t s = 1; s < evaluation_.slabs.count; ++s) {
      add(sum, rows_ + s * share_size() + i * row_size(), row_size());
    }
  }
  for (std::int64_t p = 0; p < layer().patches; ++p) {
    load_panel(sum_ + p * stretch(), row_size(), count_, layer().dim, evaluation_.vectors,
               evaluation_.gradient + p * layer().dim * width());
  }
  for (std::int64_t i = 0; i < width(); ++i) {
    A bound = 0;
    for (std::int64_t s = 0; s < evaluation_.slabs.count; ++s) bound += shares_[s].bound[i < count_ ? i : count_ - 1];
    evaluation_.sum.bound[i] = bound;
  }
}

template <class T> void HalfSparse<T>::find_stale() {
  Lanes<A> norms;
  column_norms(evaluation_.gradient, layer().size(), evaluation_.vectors, norms);
  const std::uint64_t fresh = stale_;
  stale_ = 0;
  for (std::int64_t i = 0; i < count_; ++i) {
    if (fresh >> i & 1 || norms[i] > largest_norm_[i]) largest_norm_[i] = norms[i];
    double drift = 0;
    for (std::int64_t s = 0; s < evaluation_.slabs.count; ++s) drift += shares_[s].drift[i];
    const double bound = evaluation_.sum.bound[i], terms = static_cast<double>(layer().patches * layer().neurons);
    const bool lost = gradient_is_lost(norms[i], largest_norm_[i], drift, bound, terms);
    stale_ |= std::uint64_t(lost) << i;
  }
}

template class HalfSparse<float>;
template class HalfSparse<double>;
template class HalfSparse<BFloat16>;

// ---- the attack -----------------------------------------------------------------------------------------------------

namespace {

// Panels [first, first + count) in step.
template <class T> class Walk {
 public:
  using A = Compute<T>;

  Walk(const AttackProblem<T>& problem, std::int64_t first, std::int64_t count, bool together, const Parallel& run)
      : problem_(problem),
        count_(count),
        run_(run),
        panels_(count),
        gradients_(count),
        numbers_(make(first, together)) {
    A* memory = numbers_.data();
    for (std::int64_t p = 0; p < count_; ++p) memory = gradient(p).attach(panel(p).attach(memory));
  }

  void run() {
    const bool value = problem_.follows_value();
    each([&](std::int64_t p) { panel(p).begin(); });
    for (std::int64_t step = 0; step < problem_.attack.threat.steps && !at_rest(); ++step) {
      each_slab([&](HalfSparse<T>& gradient, std::int64_t slab) { gradient.run_slab(slab, value, true); });
      each([&](std::int64_t p) { gradient(p).join(value, true); });
      if (any_stale()) {
        each_slab([](HalfSparse<T>& gradient, std::int64_t slab) { gradient.refresh_slab(slab); });
        each([&](std::int64_t p) { gradient(p).join(false, true); });
      }
      each([&](std::int64_t p) {
        panel(p).see_value();
        panel(p).move();
      });
    }
    each_slab([](HalfSparse<T>& gradient, std::int64_t slab) { gradient.run_slab(slab, true, false); });
    each([&](std::int64_t p) {
      gradient(p).join(true, false);
      panel(p).see_value();
      panel(p).end();
    });
  }

 private:
  const AttackProblem<T>& problem_;
  std::int64_t count_;
  Parallel run_;
  Numbers<AttackPanel<T>> panels_;
  Numbers<HalfSparse<T>> gradients_;
  Numbers<A> numbers_;

  AttackPanel<T>& panel(std::int64_t p) { return panels_.data()[p]; }
  HalfSparse<T>& gradient(std::int64_t p) { return gradients_.data()[p]; }

  // Makes the panels; returns the numbers they need together.
  std::int64_t make(std::int64_t first, bool together) {
    const Panels& panels = problem_.sharing.panels;
    std::int64_t memory = 0;
    for (std::int64_t p = 0; p < count_; ++p) {
      new (&panel(p)) AttackPanel<T>(problem_, first + p);
      const std::int64_t samples = panels.samples_of((first + p) % panels.count);
      new (&gradient(p)) HalfSparse<T>(panel(p).evaluation, samples, together);
      memory += panel(p).memory() + gradient(p).memory();
    }
    return memory;
  }

  template <class Body> void each(const Body& body) { for_each_task(run_, count_, body); }

  template <class Body> void each_slab(const Body& body) {
    const std::int64_t slabs = panel(0).evaluation.slabs.count;
    for_each_task(run_, count_ * slabs, [&](std::int64_t task) { body(gradient(task / slabs), task % slabs); });
  }

  bool at_rest() {
    bool rest = true;
    for (std::int64_t p = 0; p < count_; ++p) rest &= panel(p).at_rest();
    return rest;
  }

  bool any_stale() {
    bool any = false;
    for (std::int64_t p = 0; p < count_; ++p) any |= gradient(p).stale();
    return any;
  }
};

}  // namespace

template <class T> void half_sparse(AttackProblem<T> problem) {
  const std::int64_t panels = problem.sharing.panels.count * problem.network.networks;
  const Parallel run = problem.sharing.run;
  if (problem.sharing.together) {
    problem.sharing.together = false;  // the dense evaluation keeps no shares of its own
    return Walk<T>(problem, 0, panels, true, run).run();
  }
  for_each_task(run, panels, [&](std::int64_t panel) { Walk<T>(problem, panel, 1, false, Parallel{nullptr}).run(); });
}

template void half_sparse<float>(AttackProblem<float>);
template void half_sparse<double>(AttackProblem<double>);
template void half_sparse<BFloat16>(AttackProblem<BFloat16>);

}  // namespace bk::cpu::BK_SIMD_LEVEL
