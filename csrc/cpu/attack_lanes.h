// Up to a panel's width of samples under attack, one per lane: everything the rules say about a sample but where it is.
//
// Labels and budgets, the margin of its logits, the direction they call for, how far a step goes, and whether the
// sample has met a number that is none. Each algorithm keeps the points in its own coordinates beside these lanes.
#pragma once

#include "../model/threat.h"
#include "vertical.h"

namespace bk::cpu::BK_SIMD_LEVEL {

template <class A> constexpr A kNaN = static_cast<A>(__builtin_nan(""));

BK_HD bool finite(double number) { return number - number == 0; }

// Where `valid` is 0 the column becomes NaN.
template <class A> BK_HD void poison(A* panel, std::int64_t size, std::int64_t width, const Lanes<A, A>& valid) {
  for (std::int64_t i = 0; i < width; ++i) {
    for (std::int64_t k = 0; k < size && valid[i] == 0; ++k) panel[k * width + i] = kNaN<A>;
  }
}

// to = from in the columns that `here` marks.
template <class A>
BK_HD void copy_columns(A* to, const A* from, std::int64_t size, std::int64_t width, const Lanes<A, A>& here) {
  using V = Vec<A>;
  for (std::int64_t k = 0; k < size; ++k) {
    for (std::int64_t i = 0; i < width; i += V::kLanes) {
      A* at = to + k * width + i;
      select(V::load(here.lane + i) != V(0), V::load(from + k * width + i), V::load(at)).store(at);
    }
  }
}

// Whether f is needed at every iterate, and not only at the last.
template <class A> BK_HD bool follows_value(const Threat<A>& threat, std::int64_t heads) {
  return heads > 1 || threat.loss == Loss::squared || threat.direction == Direction::loss ||
         threat.keep == Keep::worst || threat.stop_early;
}

template <class A> class AttackLanes {
 public:
  std::int64_t heads, vectors;
  A* f;          // (heads, width): what see_value() reads
  A* cotangent;  // (heads, width): R, where there are several heads; ones else
  Lanes<A> radius, step;
  Lanes<A> factor;       // the direction is factor · g, g taken at the cotangent
  Lanes<A, A> valid;     // 0 for rows that have met a number that is none
  Lanes<A, A> improved;  // with Keep::worst: 1 where the iterate just seen is the worst so far

  // Rows [row, row + count) of the attack.
  AttackLanes(const Attack<A>& attack, std::int64_t heads, std::int64_t vectors, std::int64_t row, std::int64_t count);

  std::int64_t memory() const { return (target_rows() + (keeps_worst() ? heads : 0)) * width(); }
  A* attach(A* memory, A* f, A* cotangent);
  void begin();

  // f is known at the next iterate: its margin, whether it is the worst so far, the cotangent or sign of a direction.
  // head_bias (heads) is added to f first; null for none. `last`: no direction is needed.
  void see_value(const A* head_bias, bool last);

  // What g · unit is multiplied by, for l2; 0: no step. `bound`: Σ |U_j| ‖w_j‖.
  double step_per_gradient(std::int64_t i, double norm, double bound, double unit) const;
  // Whether a row moves along a gradient of this norm.
  bool moves(std::int64_t i, double norm, double bound) const;

  // The logits and margins to be returned, of the last or the worst iterate, NaN where a row is not finite.
  void store(const AttackResult<A>& result);

  // Whether a row has stopped early: it stays where it is, and its gradient is not looked at.
  bool rests(std::int64_t i) const { return threat().stop_early && !(margin_[i] > 0); }
  bool at_rest() const;  // all rows do

  const Threat<A>& threat() const { return attack_.threat; }
  bool keeps_worst() const { return threat().keep == Keep::worst; }
  std::int64_t width() const { return vectors * Vec<A>::kLanes; }
  std::int64_t row() const { return row_; }
  std::int64_t count() const { return count_; }

 private:
  const Attack<A>& attack_;
  std::int64_t row_, count_;
  bool first_ = true;
  A* target_;   // (heads, width) for squared; (width) labels otherwise
  A* worst_f_;  // (heads, width), with Keep::worst
  Lanes<A, A> margin_, worst_margin_;

  std::int64_t target_rows() const { return threat().loss == Loss::squared ? heads : 1; }
  void load_targets();
  void load_budgets();
  void find_margin();
  void keep_worst();
  void find_factor();
  void find_cotangent();
  void cross_entropy_cotangent(std::int64_t column);
  void squared_cotangent(std::int64_t column);
};

}  // namespace bk::cpu::BK_SIMD_LEVEL
