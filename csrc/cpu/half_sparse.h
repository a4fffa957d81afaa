// The half-sparse attack: for piecewise-linear φ and one head the input gradient
//
//   g_i = Σ_j a_j φ'(h_ij) w_j
//
// changes only by the neurons whose gates flip, so a step costs the product for H, and g_i += Δφ' a_j w_j per flip.
//
// Gates with |h_ij(x0)| > ε ‖w_j‖ never flip, and need no H. Dot products for the others alone, from lists by sample, are
// faster than this product only where they are less than a quarter: 2.4 × at 8 % (x ~ N(0, I), ε = .1), 1.1 × at 24 %
// (.3), .4 × at 68 % (1); 256×100×16384, float32, a thread of a Xeon at v4, processor time, 21 November 2026.
#pragma once

#include "attack_panel.h"

namespace bk::cpu::BK_SIMD_LEVEL {

// f and the gradient of one panel along a walk: what PanelEvaluation is to the dense attack. Reads its x; writes its
// sum.f, sum.bound and gradient.
//
// Each slab keeps its own share of g for the whole walk, and shares are added up in one order: a row's bits depend
// neither on its neighbours nor on how slabs are run.
template <class T> class HalfSparse {
 public:
  using A = Compute<T>;

  // The first `count` columns of the panel are samples. `together`: slabs run at the same time.
  HalfSparse(PanelEvaluation<T>& evaluation, std::int64_t count, bool together);
  // As in PanelEvaluation.
  std::int64_t memory() const;
  A* attach(A* memory);

  // x is new: the slab's share of f if `value`, and of the gradient if `with_gradient`.
  void run_slab(std::int64_t slab, bool value, bool with_gradient);
  // All slabs have run: the sums.
  void join(bool value, bool with_gradient);

  // After join: whether a row's gradient has lost too many digits to cancellation. Then refresh all slabs, join again.
  bool stale() const { return stale_ != 0; }
  void refresh_slab(std::int64_t slab);

 private:
  struct Share {
    Lanes<A, A> f, bound;
    Lanes<A> drift;  // Σ (ΔU_j ‖w_j‖)² over the flips since the gradient was fresh
  };
  struct Scratch {
    A* widened;
    A* H;       // (kTileNeurons, width)
    A* few;     // FewSamples::kScratch
    A* panel;   // (P·d, width)
    A* rows;    // (count, P·d)
    A* weight;  // (stretch)
  };

  PanelEvaluation<T>& evaluation_;
  std::int64_t count_;
  bool together_;
  bool begun_ = false;
  A slope_;                // φ'(h) where h ≤ 0; elsewhere it is 1
  std::uint64_t samples_;  // bit i: column i is a sample
  std::uint64_t stale_;    // bit i: row i needs a fresh gradient
  Lanes<A> largest_norm_;  // of the row's gradients since it was fresh
  Share* shares_;          // (slabs)
  std::uint64_t* closed_;  // the gates of the last iterate: per tile, patch and neuron
  A* rows_;                // (slabs, count, P, stretch): the slabs' shares of g
  A* sum_;                 // (count, P, stretch)
  A* scratch_;

  const Layer<T>& layer() const { return evaluation_.layer; }
  std::int64_t width() const { return evaluation_.width(); }
  // d, rounded up to whole registers.
  std::int64_t stretch() const { return divide_up(layer().dim, Vec<A>::kLanes) * Vec<A>::kLanes; }
  std::int64_t row_size() const { return layer().patches * stretch(); }
  std::int64_t share_size() const { return count_ * row_size(); }
  std::int64_t scratch_size() const;
  Scratch scratch(std::int64_t slab) const;

  template <class Body> void for_each_tile(std::int64_t slab, const Scratch& scratch, const Body& body) const;
  void begin_fresh(const Scratch& scratch, Lanes<A, A>& bound) const;
  void add_fresh(const Tile<T>& tile, const Scratch& scratch, const std::uint64_t* closed, Lanes<A, A>& bound) const;
  void take_fresh(std::int64_t slab, const Scratch& scratch, const Lanes<A, A>& bound);
  void follow_gates(const Tile<T>& tile, const Scratch& scratch, std::uint64_t* closed, Share& share, A* rows) const;
  void add_flip(const Tile<T>& tile, std::int64_t j, std::int64_t i, bool shuts, A* buffer, Share& share,
                A* rows) const;
  void join_gradient();
  void find_stale();
};

// The whole attack.
template <class T> void half_sparse(AttackProblem<T> problem);

}  // namespace bk::cpu::BK_SIMD_LEVEL
