// The walk of a few rows through all steps of an attack, in neuron space: x_k = x0 + t·start + C w.
//
// Carried per row: D = (x_k − x0) wᵀ, the change of the pre-activations; C; the slopes S = φ'(H0 + D); and V = U G for
// the direction U = S ∘ (R A), R the cotangent and A the heads. A step is
//
//   ρ = η / ‖g‖,  ‖g‖² = Σ V∘U;   D += ρV,  C += ρU;   then D, C, t *= min(1, ε / ‖δ‖),  ‖δ‖² from Σ C∘D
//
// For piecewise-linear φ there is one V per head (at R = 1), and only gates that flip change it: V += Σ ΔU_j G_j. For
// other φ there is one V, at the cotangent, and V += ΔU G. Every change of V adds to `drift`, Σ (ΔU_j ‖w_j‖)²: once
// that passes (4‖g‖)² much has cancelled, and V is taken afresh, as (U w) wᵀ.
//
// The shrinking and powers of two are kept aside, so that no size of ε or of W leaves the range of a float:
// δ = shrink · (t · start + unit · C w).
#pragma once

#include "attack_lanes.h"
#include "gram_network.h"

namespace bk::cpu::BK_SIMD_LEVEL {

// The arrays of a chunk of samples, which matrix products are taken of. Rows of `width` numbers: (sample, patch).
template <class A> struct GramChunk {
  std::int64_t samples;
  A* hidden;                  // H0
  A* start_hidden;            // start wᵀ, start counted from x0; null: every sample starts at x0
  const double* start_norms;  // (samples): ‖start‖, 0 without one; not finite where x0 or start is not
  A* slopes;                  // S; for smooth φ U itself
  A* V;                       // (directions, samples·P, width)
  A* coefficients;            // C of the iterate to be returned; before the walk, room for U
  double* start_scales;       // (samples): the iterate is x0 + start_scale · start + coefficient_scale · C w
  double* coefficient_scales;
};

template <class A> class GramWalk {
 public:
  // Samples [first, first + count) of the chunk, which are rows [row, row + count) of the attack.
  GramWalk(const GramNetwork<A>& network, const GramChunk<A>& chunk, const Attack<A>& attack, const A* head_bias,
           std::int64_t first, std::int64_t row, std::int64_t count);

  // How many V there are for each sample.
  static std::int64_t directions(const GramNetwork<A>& network) { return network.flips ? network.heads : 1; }

  std::int64_t memory() const;
  A* attach(A* memory);

  // x_0: its value, and its slopes.
  void begin();
  // The direction of head `head` of each sample, into the chunk's coefficients.
  void write_directions(std::int64_t head);
  // V is known, and as the sum U G where `summed`: all steps, and the results but for x.
  void run(const AttackResult<A>& result, bool summed);
  // H of the last iterate, into rows like the chunk's.
  void write_hidden(A* hidden) const;

 private:
  // A gate that has just flipped, with its ΔS.
  struct Flip {
    std::int32_t sample, patch, neuron;
    A by;
  };

  const GramNetwork<A>& network_;
  const GramChunk<A>& chunk_;
  const A* head_bias_;
  std::int64_t first_, count_, directions_;
  AttackLanes<A> lanes_;
  bool follows_;  // f is needed at every iterate

  A* logits_;     // (heads, lanes)
  A* cotangent_;  // (heads, lanes)
  A* D_;          // (count, size)
  A* C_;          // (count, size)
  A* change_;     // (count, size): H, then ΔU, where V changes densely; ΔS for piecewise-linear φ
  A* V_now_;      // (count, size): Σ_c R_c V_c, with several directions
  A* combined_;   // (width): R A of the sample at hand, with several heads
  A* values_;     // (size): φ of the sample at hand
  Flip* flips_;   // those of this step that V follows one by one
  std::int64_t flip_count_;
  Lanes<A> unit_, shrink_, start_;
  Lanes<A> square_, bound_;   // ‖g‖², and Σ |U_j| ‖w_j‖
  Lanes<A> largest_, drift_;  // max |R_c|; drift at R = 1

  std::int64_t size() const { return network_.size(); }
  template <class Number> Number* row(Number* rows, std::int64_t i) const { return rows + (first_ + i) * size(); }
  std::int64_t flips_memory() const;
  A* V(std::int64_t c, std::int64_t i) const { return chunk_.V + (c * chunk_.samples + first_ + i) * size(); }
  A hidden_scale(std::int64_t i) const { return static_cast<A>(network_.weight_unit * unit_[i] * shrink_[i]); }
  double gradient_unit() const { return network_.weight_unit * network_.head_unit; }

  void start(std::int64_t i);
  void look_first(std::int64_t i, bool value);
  bool look(std::int64_t i, bool value);
  void look_densely(std::int64_t i, bool value);
  std::int64_t find_flips(std::int64_t i, bool value);
  void sum_value(std::int64_t i);
  const A* combine_heads(std::int64_t i);
  void set_direction(std::int64_t i, bool first);
  void set_aside(std::int64_t flips);
  void follow_flips();
  void add_changes(std::int64_t begin, std::int64_t end);
  void measure(std::int64_t i);
  void refresh(std::int64_t begin, std::int64_t end);
  void move(std::int64_t i);
  bool step(std::int64_t begin, std::int64_t end, bool last);
  void see(bool last);
  void keep(std::int64_t i);
};

}  // namespace bk::cpu::BK_SIMD_LEVEL
