// One panel of samples under attack: the state of its rows, and what happens to them between two evaluations.
#pragma once

#include "attack_lanes.h"
#include "evaluation.h"

namespace bk::cpu::BK_SIMD_LEVEL {

// Where a panel's samples are, and where they go.
template <class T> struct AttackProblem {
  using A = Compute<T>;
  const Network<T>& network;
  const Samples<A>& x0;
  const Attack<A>& attack;
  const AttackResult<A>& result;
  const A* norms;  // (networks, m) ‖w_j‖, for the exact direction
  Sharing sharing;

  BK_HD std::int64_t rows() const { return network.networks * x0.count; }
  BK_HD bool several_heads() const { return network.heads > 1; }
  BK_HD bool follows_value() const { return cpu::BK_SIMD_LEVEL::follows_value(attack.threat, network.heads); }
  // Several heads: f first, then the gradient at the cotangent it calls for; H is kept in between where it is small.
  BK_HD bool keeps_hidden() const {
    constexpr std::int64_t kKept = 1 << 22;
    return several_heads() &&
           network.neurons * network.patches * kMaxWidth<A> * static_cast<std::int64_t>(sizeof(A)) <= kKept;
  }
};

template <class T> class AttackPanel {
 public:
  using A = Compute<T>;

  AttackPanel(const AttackProblem<T>& problem, std::int64_t task);
  std::int64_t memory() const;
  A* attach(A* memory);

  // x_0.
  void begin();
  // f is known at the iterate: the margin, the worst so far, the cotangent or the sign of the direction.
  void see_value();
  // The gradient is known: the next iterate.
  void move();
  // No later step changes anything.
  bool at_rest() const { return lanes_.at_rest() && !problem_.result.trajectory; }
  // The last iterate has been seen.
  void end();

  PanelEvaluation<T> evaluation;

 private:
  const AttackProblem<T>& problem_;
  std::int64_t network_, first_;  // the panel's first sample
  std::int64_t iterate_ = 0;
  AttackLanes<A> lanes_;

  A* origin_;   // (P·d, width) x0
  A* delta_;    // (P·d, width) the way so far
  A* worst_x_;  // (P·d, width), with Keep::worst, if points are asked for

  BK_HD std::int64_t size() const { return evaluation.layer.size(); }
  BK_HD std::int64_t width() const { return evaluation.width(); }
  BK_HD const Threat<A>& threat() const { return problem_.attack.threat; }
  BK_HD double bound(std::int64_t i) const { return static_cast<double>(evaluation.sum.bound[i]); }

  bool keeps_worst_x() const { return lanes_.keeps_worst() && problem_.result.x; }
  void start_from(const A* start);
  void move_l2(const Lanes<A>& norms);
  void move_linf(const Lanes<A>& norms);
  void place(const Lanes<A, A>& scale, const Lanes<A, A>& moved, bool boxed);
  void store_iterate();
};

}  // namespace bk::cpu::BK_SIMD_LEVEL
