#include "attack_lanes.h"

#include "panel.h"
#include "vector_math.h"

namespace bk::cpu::BK_SIMD_LEVEL {

template <class A>
AttackLanes<A>::AttackLanes(const Attack<A>& attack, std::int64_t heads, std::int64_t vectors, std::int64_t row,
                            std::int64_t count)
    : heads(heads), vectors(vectors), attack_(attack), row_(row), count_(count) {}

template <class A> A* AttackLanes<A>::attach(A* memory, A* logits, A* residual) {
  f = logits;
  cotangent = residual;
  target_ = memory;
  worst_f_ = target_ + target_rows() * width();
  return worst_f_ + (keeps_worst() ? heads * width() : 0);
}

template <class A> void AttackLanes<A>::begin() {
  for (std::int64_t i = 0; i < heads * width(); ++i) cotangent[i] = A(1);
  for (std::int64_t i = 0; i < width(); ++i) {
    valid[i] = A(1);
    margin_[i] = worst_margin_[i] = static_cast<A>(__builtin_inf());  // nothing rests before it has been seen
  }
  load_targets();
  load_budgets();
  if (follows_value(threat(), heads)) return;
  for (std::int64_t i = 0; i < width(); ++i) factor[i] = -target_[i];
}

template <class A> void AttackLanes<A>::load_targets() {
  if (threat().loss == Loss::squared || heads == 1) {
    const A* targets = attack_.target + row_ * heads;
    load_panel(targets, heads, count_, heads, vectors, target_);
    check_columns(target_, heads, vectors, valid);
    if (threat().loss == Loss::squared) return;
    for (std::int64_t i = 0; i < width(); ++i) {
      if (target_[i] != A(1) && target_[i] != A(-1)) valid[i] = A(0);
    }
    return;
  }
  for (std::int64_t i = 0; i < width(); ++i) {
    const std::int64_t label = attack_.label[row_ + (i < count_ ? i : count_ - 1)];
    if (label < 0 || label >= heads) valid[i] = A(0);
    target_[i] = static_cast<A>(label);
  }
}

template <class A> void AttackLanes<A>::load_budgets() {
  for (std::int64_t i = 0; i < width(); ++i) {
    const std::int64_t at = row_ + (i < count_ ? i : count_ - 1);
    radius[i] = threat().radius[at];
    step[i] = threat().step[at];
    if (!(radius[i] >= 0) || !(step[i] >= 0) || !finite(step[i])) valid[i] = A(0);
  }
}

// ---- f is known -----------------------------------------------------------------------------------------------------

template <class A> void AttackLanes<A>::see_value(const A* head_bias, bool last) {
  for (std::int64_t c = 0; head_bias && c < heads; ++c) {
    for (std::int64_t i = 0; i < width(); ++i) f[c * width() + i] += head_bias[c];
  }
  check_columns(f, heads, vectors, valid);
  find_margin();
  if (keeps_worst()) keep_worst();
  if (last) return;
  if (heads == 1) {
    find_factor();
  } else {
    find_cotangent();
  }
}

template <class A> void AttackLanes<A>::find_margin() {
  using V = Vec<A>;
  for (std::int64_t i = 0; i < width(); i += V::kLanes) {
    V margin(0);
    if (threat().loss == Loss::squared) {
      for (std::int64_t c = 0; c < heads; ++c) {
        const V error = V::load(f + c * width() + i) - V::load(target_ + c * width() + i);
        margin = margin - error * error;
      }
    } else if (heads == 1) {
      margin = V::load(target_ + i) * V::load(f + i);
    } else {
      const V label = V::load(target_ + i);
      V own = V(0), other = V(-__builtin_inf());
      for (std::int64_t c = 0; c < heads; ++c) {
        const V logit = V::load(f + c * width() + i);
        const auto here = label == V(static_cast<double>(c));
        own = select(here, logit, own);
        other = select(here, other, max(logit, other));
      }
      margin = own - other;
    }
    margin.store(margin_.lane + i);
  }
}

template <class A> void AttackLanes<A>::keep_worst() {
  for (std::int64_t i = 0; i < width(); ++i) improved[i] = margin_[i] < worst_margin_[i] || first_ ? A(1) : A(0);
  first_ = false;
  copy_columns(worst_f_, f, heads, width(), improved);
  copy_columns(worst_margin_.lane, margin_.lane, 1, width(), improved);
}

// One head: R with g taken at R = 1. ℓ' itself only where the loss's own gradient is asked for.
template <class A> void AttackLanes<A>::find_factor() {
  const bool exact = threat().direction == Direction::exact;
  for (std::int64_t i = 0; i < width(); ++i) {
    const A value = f[i], y = target_[i];
    if (threat().loss == Loss::squared) {
      factor[i] = exact ? (value > y) - (value < y) : threat().loss_scale * (2 * (value - y));
    } else {
      factor[i] = exact ? -y : -y * threat().loss_scale / (1 + bk::exp(y * value));
    }
  }
}

// Several heads: R itself.
template <class A> void AttackLanes<A>::find_cotangent() {
  for (std::int64_t column = 0; column < width(); column += Vec<A>::kLanes) {
    if (threat().loss == Loss::squared) {
      squared_cotangent(column);
    } else {
      cross_entropy_cotangent(column);
    }
  }
  for (std::int64_t i = 0; i < width(); ++i) factor[i] = 1;
}

// exact: −1 at the label, the softmax over the other classes elsewhere: cross-entropy's direction, free of its scale.
template <class A> void AttackLanes<A>::cross_entropy_cotangent(std::int64_t column) {
  using V = Vec<A>;
  const bool exact = threat().direction == Direction::exact;
  const V label = V::load(target_ + column), lowest = V(-__builtin_inf());
  V top = lowest, total = V(0);
  for (std::int64_t c = 0; c < heads; ++c) {
    const V logit = V::load(f + c * width() + column);
    const auto left_out = (label == V(static_cast<double>(c))) & (V(exact) != V(0));
    top = select(left_out, top, max(logit, top));
  }
  for (std::int64_t c = 0; c < heads; ++c) {
    const V logit = V::load(f + c * width() + column);
    const auto left_out = (label == V(static_cast<double>(c))) & (V(exact) != V(0));
    const V weight = select(left_out, V(0), exp(logit - top));
    weight.store(cotangent + c * width() + column);
    total += weight;
  }
  const V scale = exact ? V(1) : V::broadcast(threat().loss_scale);
  for (std::int64_t c = 0; c < heads; ++c) {
    A* at = cotangent + c * width() + column;
    const V own = select(label == V(static_cast<double>(c)), V(1), V(0));
    (scale * (V::load(at) / total - own)).store(at);
  }
}

template <class A> void AttackLanes<A>::squared_cotangent(std::int64_t column) {
  using V = Vec<A>;
  V largest = V(0);
  for (std::int64_t c = 0; c < heads; ++c) {
    A* at = cotangent + c * width() + column;
    const V error = V::load(f + c * width() + column) - V::load(target_ + c * width() + column);
    error.store(at);
    largest = max(absolute(error), largest);
  }
  const V scale = threat().direction == Direction::loss ? V(2) * V::broadcast(threat().loss_scale)
                                                        : V(1) / select(largest == V(0), V(1), largest);
  for (std::int64_t c = 0; c < heads; ++c) {
    A* at = cotangent + c * width() + column;
    (V::load(at) * scale).store(at);
  }
}

// ---- the gradient is known ------------------------------------------------------------------------------------------

template <class A> bool AttackLanes<A>::moves(std::int64_t i, double norm, double bound) const {
  if (norm == 0 || step[i] == 0 || radius[i] == 0 || factor[i] == 0 || rests(i)) return false;
  constexpr double kRoundoff = sizeof(A) == sizeof(float) ? 0x1p-24 : 0x1p-53;
  return threat().direction == Direction::loss || norm > 8 * kRoundoff * bound;
}

template <class A> bool AttackLanes<A>::at_rest() const {
  bool rest = threat().stop_early;
  for (std::int64_t i = 0; rest && i < count_; ++i) rest = rests(i);
  return rest;
}

template <class A>
double AttackLanes<A>::step_per_gradient(std::int64_t i, double norm, double bound, double unit) const {
  if (!moves(i, norm, bound)) return 0;
  if (threat().direction == Direction::exact) return factor[i] * step[i] / (norm * unit);
  const double size = __builtin_fabs(factor[i]) * norm;
  const double floor = threat().floor;
  double divisor = size + floor;
  if (threat().floor_rule == Floor::clipped) divisor = size > floor ? size : floor;
  if (threat().floor_rule == Floor::squared) divisor = __builtin_sqrt(size * size > floor ? size * size : floor);
  return divisor > 0 ? factor[i] * step[i] / (divisor * unit) : 0;
}

// ---- results --------------------------------------------------------------------------------------------------------

template <class A> void AttackLanes<A>::store(const AttackResult<A>& result) {
  A* logits = keeps_worst() ? worst_f_ : f;
  const A* margin = keeps_worst() ? worst_margin_.lane : margin_.lane;
  poison(logits, heads, width(), valid);
  store_panel(logits, vectors, heads, count_, result.logits + row_ * heads, heads);
  for (std::int64_t i = 0; i < count_; ++i) result.margin[row_ + i] = valid[i] == 0 ? kNaN<A> : margin[i];
}

template class AttackLanes<float>;
template class AttackLanes<double>;

}  // namespace bk::cpu::BK_SIMD_LEVEL
