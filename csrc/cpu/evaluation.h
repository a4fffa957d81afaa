// f and its input gradient for one panel of samples, slab by slab. What two_layer and the attack share.
#pragma once

#include <cstdint>

#include "few.h"
#include "workspace.h"

namespace bk::cpu::BK_SIMD_LEVEL {

// What a slab of neurons adds to the panel.
template <class A> struct Part {
  A* f;      // (heads, width)
  A* g;      // (P·d, width), or rows (samples, P·d) when they are few
  A* bound;  // (width): Σ |U_j| ‖w_j‖, given the layer's norms
};

// H of all neurons of the panel may be kept by the pass that finds f for the pass that finds the gradient.
enum class HiddenUse : int { compute, compute_and_keep, reuse };

// One panel. Slabs either run in turn, each added to the sum at once, or at the same time, each into a part of its own,
// added up by join() in the same order: the sums have the same bits.
template <class T> struct PanelEvaluation {
  using A = Compute<T>;
  Layer<T> layer;
  Slabs slabs;
  std::int64_t vectors;
  bool together;  // slabs at the same time
  A* x;           // (P·d, width)
  A* cotangent;   // (heads, width)
  A* hidden;      // (P · neurons, width), or null: never kept
  Part<A> sum;    // f and the bound
  A* gradient;    // (P·d, width)

  BK_HD PanelEvaluation(const Network<T>& network, std::int64_t index, const Panels& panels, std::int64_t panel,
                        bool together)
      : layer(network, index),
        slabs(network.neurons, network.dim, network.patches),
        vectors(panels.vectors_of(panel)),
        together(together),
        few_{FewSamples<A>::applies(panels.samples_of(panel), vectors, network.dim) ? panels.samples_of(panel) : 0,
             nullptr} {}

  BK_HD std::int64_t width() const { return vectors * Vec<A>::kLanes; }
  BK_HD const FewSamples<A>& few() const { return few_; }

  // Numbers of memory that attach() takes.
  std::int64_t memory(bool keep_hidden) const;
  // Points the fields into `memory`; returns what follows.
  A* attach(A* memory, bool keep_hidden);

  // To be called when x has been written.
  void set_x();
  // f into sum.f if `value`, the gradient at `cotangent` into `gradient` and sum.bound if `with_gradient`.
  void run(bool value, bool with_gradient, HiddenUse use = HiddenUse::compute);
  // The same in two steps, with `together`: all slabs, in any order or at once; then join.
  void run_slab(std::int64_t slab, bool value, bool with_gradient, HiddenUse use = HiddenUse::compute);
  void join(bool value, bool with_gradient);

 private:
  FewSamples<A> few_;  // with few samples the slabs work on rows: few_.x, and sum.g (samples, P·d)
  A* few_x_;
  A* scratch_;

  BK_HD std::int64_t part_size() const { return (layer.size() + layer.heads + 1) * width(); }
  Part<A> part(std::int64_t slab) const;
  void evaluate(std::int64_t slab, const Part<A>& to, A* memory, bool value, bool with_gradient, HiddenUse use);
  void add_to_sum(const Part<A>& term, bool value, bool with_gradient);
  void finish_gradient();
  std::int64_t scratch_size() const;
};

// How the panels of a batch of networks are shared among threads.
struct Sharing {
  Panels panels;
  bool together;  // slabs of a panel run at once: there are too few panels
  Parallel run;
};
// `passes`: how often each sample meets each weight.
template <class T> Sharing share(const Network<T>& network, std::int64_t samples, double passes, Parallel run);

}  // namespace bk::cpu::BK_SIMD_LEVEL
