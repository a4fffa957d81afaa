#include "attack_panel.h"

#include "vector_math.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

template <class A> constexpr A kNaN = static_cast<A>(__builtin_nan(""));

BK_HD bool finite(double number) { return number - number == 0; }

template <class A> void copy(A* to, const A* from, std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i) to[i] = from[i];
}

// Columns where `finite` is 0 become NaN.
template <class A> void poison(A* panel, std::int64_t size, std::int64_t width, const Lanes<A, A>& finite) {
  for (std::int64_t i = 0; i < width; ++i) {
    for (std::int64_t k = 0; k < size && finite[i] == 0; ++k) panel[k * width + i] = kNaN<A>;
  }
}

}  // namespace

template <class T>
AttackPanel<T>::AttackPanel(const AttackProblem<T>& problem, std::int64_t task)
    : evaluation(problem.network, task / problem.sharing.panels.count, problem.sharing.panels,
                 task % problem.sharing.panels.count, problem.sharing.together),
      problem_(problem),
      network_(task / problem.sharing.panels.count),
      first_(problem.sharing.panels.first_sample(task % problem.sharing.panels.count)),
      count_(problem.sharing.panels.samples_of(task % problem.sharing.panels.count)) {
  if (problem.norms) evaluation.layer.norms = problem.norms + network_ * problem.network.neurons;
}

template <class T> std::int64_t AttackPanel<T>::memory() const {
  const bool worst = threat().keep == Keep::worst;
  return evaluation.memory(problem_.keeps_hidden()) + (2 * size() + target_rows()) * width() +
         (worst ? (size() + heads()) * width() : 0);
}

template <class T> Compute<T>* AttackPanel<T>::attach(A* memory) {
  origin_ = evaluation.attach(memory, problem_.keeps_hidden());
  delta_ = origin_ + size() * width();
  target_ = delta_ + size() * width();
  worst_x_ = target_ + target_rows() * width();
  worst_f_ = worst_x_ + size() * width();
  return threat().keep == Keep::worst ? worst_f_ + heads() * width() : worst_x_;
}

// ---- x_0 ------------------------------------------------------------------------------------------------------------

template <class T> void AttackPanel<T>::begin() {
  const A* x0 = problem_.x0.x + network_ * problem_.x0.network_stride + first_ * size();
  load_panel(x0, size(), count_, size(), evaluation.vectors, origin_);
  copy(evaluation.x, origin_, size() * width());
  for (std::int64_t i = 0; i < size() * width(); ++i) delta_[i] = A(0);
  for (std::int64_t i = 0; i < heads() * width(); ++i) evaluation.cotangent[i] = A(1);
  for (std::int64_t i = 0; i < width(); ++i) {
    finite_[i] = A(1);
    worst_margin_[i] = static_cast<A>(__builtin_inf());
  }
  check_columns(origin_, size(), evaluation.vectors, finite_);
  load_targets();
  load_threat();
  if (problem_.attack.start) start_from(problem_.attack.start + row() * size());
  poison(evaluation.x, size(), width(), finite_);
  evaluation.set_x();
}

template <class T> void AttackPanel<T>::load_targets() {
  const Attack<A>& attack = problem_.attack;
  if (threat().loss == Loss::squared || heads() == 1) {
    const A* targets = attack.target + row() * heads();
    load_panel(targets, heads(), count_, heads(), evaluation.vectors, target_);
    check_columns(target_, heads(), evaluation.vectors, finite_);
    if (threat().loss == Loss::squared) return;
    for (std::int64_t i = 0; i < width(); ++i) {
      if (target_[i] != A(1) && target_[i] != A(-1)) finite_[i] = A(0);
    }
    return;
  }
  for (std::int64_t i = 0; i < width(); ++i) {
    const std::int64_t label = attack.label[row() + (i < count_ ? i : count_ - 1)];
    if (label < 0 || label >= heads()) finite_[i] = A(0);
    target_[i] = static_cast<A>(label);
  }
}

template <class T> void AttackPanel<T>::load_threat() {
  for (std::int64_t i = 0; i < width(); ++i) {
    const std::int64_t at = row() + (i < count_ ? i : count_ - 1);
    radius_[i] = threat().radius[at];
    step_[i] = threat().step[at];
    if (!(radius_[i] >= 0) || !(step_[i] >= 0) || !finite(step_[i])) finite_[i] = A(0);
  }
}

// delta = start − x0, projected; no box yet: it is part of a step.
template <class T> void AttackPanel<T>::start_from(const A* start) {
  load_panel(start, size(), count_, size(), evaluation.vectors, delta_);
  check_columns(delta_, size(), evaluation.vectors, finite_);
  for (std::int64_t i = 0; i < size() * width(); ++i) delta_[i] -= origin_[i];
  Lanes<A, A> scale, moved;
  Lanes<A> norms;
  if (threat().norm == Norm::l2) {
    column_norms(delta_, size(), evaluation.vectors, norms);
  } else {
    for (std::int64_t i = 0; i < width(); ++i) {
      scale[i] = A(0);
      moved[i] = static_cast<A>(radius_[i]);
    }
    move_columns_by_sign(delta_, delta_, scale, moved, size(), evaluation.vectors);
  }
  for (std::int64_t i = 0; i < width(); ++i) {
    moved[i] = radius_[i] > 0 ? A(1) : A(0);
    scale[i] = A(1);
    if (threat().norm == Norm::l2 && norms[i] > radius_[i]) scale[i] = static_cast<A>(radius_[i] / norms[i]);
    for (std::int64_t k = 0; k < size() && radius_[i] == 0; ++k) delta_[k * width() + i] = A(0);
  }
  place(scale, moved, false);
}

template <class T> void AttackPanel<T>::place(const Lanes<A, A>& scale, const Lanes<A, A>& moved, bool boxed) {
  const Box<A> box{threat().box_lo, threat().box_hi};
  const bool bounded = finite(box.lo) || finite(box.hi);
  place_columns(evaluation.x, delta_, origin_, scale, moved, boxed && bounded ? &box : nullptr, size(),
                evaluation.vectors);
}

// ---- f is known -----------------------------------------------------------------------------------------------------

template <class T> void AttackPanel<T>::see_value() {
  const bool last = iterate_ == threat().steps;
  if (!last && !problem_.follows_value()) return;
  A* f = evaluation.sum.f;
  for (std::int64_t c = 0; evaluation.layer.head_bias && c < heads(); ++c) {
    for (std::int64_t i = 0; i < width(); ++i) f[c * width() + i] += evaluation.layer.head_bias[c];
  }
  check_columns(f, heads(), evaluation.vectors, finite_);
  find_margin();
  if (threat().keep == Keep::worst) keep_worst();
  if (last) return;
  if (heads() == 1) {
    find_factor();
  } else {
    find_cotangent();
  }
}

template <class T> void AttackPanel<T>::find_margin() {
  using V = Vec<A>;
  const A* f = evaluation.sum.f;
  for (std::int64_t i = 0; i < width(); i += V::kLanes) {
    const V label = V::load(target_ + i);
    V margin = label * V::load(f + i);
    if (threat().loss == Loss::squared) {
      margin = V(0);
      for (std::int64_t c = 0; c < heads(); ++c) {
        const V error = V::load(f + c * width() + i) - V::load(target_ + c * width() + i);
        margin = margin - error * error;
      }
    } else if (heads() > 1) {
      V own = V(0), other = V(-__builtin_inf());
      for (std::int64_t c = 0; c < heads(); ++c) {
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

template <class T> void AttackPanel<T>::keep_worst() {
  Lanes<A, A> better;
  for (std::int64_t i = 0; i < width(); ++i) better[i] = margin_[i] < worst_margin_[i] || iterate_ == 0 ? A(1) : A(0);
  using V = Vec<A>;
  const auto keep = [&](A* to, const A* from, std::int64_t rows) {
    for (std::int64_t k = 0; k < rows; ++k) {
      for (std::int64_t i = 0; i < width(); i += V::kLanes) {
        const auto here = V::load(better.lane + i) != V(0);
        A* at = to + k * width() + i;
        select(here, V::load(from + k * width() + i), V::load(at)).store(at);
      }
    }
  };
  keep(worst_x_, evaluation.x, size());
  keep(worst_f_, evaluation.sum.f, heads());
  keep(worst_margin_.lane, margin_.lane, 1);
}

// One head: R with g taken at R = 1. ℓ' itself only where the loss's own gradient is asked for.
template <class T> void AttackPanel<T>::find_factor() {
  const bool exact = threat().direction == Direction::exact;
  for (std::int64_t i = 0; i < width(); ++i) {
    const A f = evaluation.sum.f[i], y = target_[i];
    if (threat().loss == Loss::squared) {
      factor_[i] = exact ? (f > y) - (f < y) : threat().loss_scale * (2 * (f - y));
    } else {
      factor_[i] = exact ? -y : -y * threat().loss_scale / (1 + bk::exp(y * f));
    }
  }
}

// Several heads: R itself.
template <class T> void AttackPanel<T>::find_cotangent() {
  for (std::int64_t column = 0; column < width(); column += Vec<A>::kLanes) {
    if (threat().loss == Loss::squared) {
      squared_cotangent(column);
    } else {
      cross_entropy_cotangent(column);
    }
  }
  for (std::int64_t i = 0; i < width(); ++i) factor_[i] = 1;
}

// exact: −1 at the label, the softmax over the other classes elsewhere: cross-entropy's direction, free of its scale.
template <class T> void AttackPanel<T>::cross_entropy_cotangent(std::int64_t column) {
  using V = Vec<A>;
  const bool exact = threat().direction == Direction::exact;
  const V label = V::load(target_ + column), lowest = V(-__builtin_inf());
  V top = lowest, total = V(0);
  for (std::int64_t c = 0; c < heads(); ++c) {
    const V logit = V::load(evaluation.sum.f + c * width() + column);
    const auto left_out = (label == V(static_cast<double>(c))) & (V(exact) != V(0));
    top = select(left_out, top, max(logit, top));
  }
  for (std::int64_t c = 0; c < heads(); ++c) {
    const V logit = V::load(evaluation.sum.f + c * width() + column);
    const auto left_out = (label == V(static_cast<double>(c))) & (V(exact) != V(0));
    const V weight = select(left_out, V(0), exp(logit - top));
    weight.store(evaluation.cotangent + c * width() + column);
    total += weight;
  }
  const V scale = exact ? V(1) : V::broadcast(threat().loss_scale);
  for (std::int64_t c = 0; c < heads(); ++c) {
    A* at = evaluation.cotangent + c * width() + column;
    const V own = select(label == V(static_cast<double>(c)), V(1), V(0));
    (scale * (V::load(at) / total - own)).store(at);
  }
}

template <class T> void AttackPanel<T>::squared_cotangent(std::int64_t column) {
  using V = Vec<A>;
  V largest = V(0);
  for (std::int64_t c = 0; c < heads(); ++c) {
    A* at = evaluation.cotangent + c * width() + column;
    const V error = V::load(evaluation.sum.f + c * width() + column) - V::load(target_ + c * width() + column);
    error.store(at);
    largest = max(absolute(error), largest);
  }
  const V scale = threat().direction == Direction::loss ? V(2) * V::broadcast(threat().loss_scale)
                                                        : V(1) / select(largest == V(0), V(1), largest);
  for (std::int64_t c = 0; c < heads(); ++c) {
    A* at = evaluation.cotangent + c * width() + column;
    (V::load(at) * scale).store(at);
  }
}

// ---- the gradient is known ------------------------------------------------------------------------------------------

template <class T> void AttackPanel<T>::move() {
  if (!problem_.follows_value()) {
    for (std::int64_t i = 0; i < width(); ++i) factor_[i] = -target_[i];
  }
  Lanes<A> norms;
  column_norms(evaluation.gradient, size(), evaluation.vectors, norms);
  for (std::int64_t i = 0; i < width(); ++i) {
    if (!finite(norms[i]) || !finite(factor_[i])) finite_[i] = A(0);
  }
  store_iterate();
  if (threat().norm == Norm::l2) {
    move_l2(norms);
  } else {
    move_linf(norms);
  }
  evaluation.set_x();
  ++iterate_;
}

// Whether a row moves along a gradient of this norm.
template <class T> bool AttackPanel<T>::moves(std::int64_t i, double norm) const {
  if (norm == 0 || step_[i] == 0 || radius_[i] == 0 || factor_[i] == 0) return false;
  constexpr double kRoundoff = sizeof(A) == sizeof(float) ? 0x1p-24 : 0x1p-53;
  return threat().direction == Direction::loss || norm > 8 * kRoundoff * static_cast<double>(evaluation.sum.bound[i]);
}

// What g · unit is multiplied by, for l2; 0: no step.
template <class T> double AttackPanel<T>::step_per_gradient(std::int64_t i, double norm, double unit) const {
  if (!moves(i, norm)) return 0;
  if (threat().direction == Direction::exact) return factor_[i] * step_[i] / (norm * unit);
  const double size = __builtin_fabs(factor_[i]) * norm;
  const double floor = threat().floor;
  double divisor = size + floor;
  if (threat().floor_rule == Floor::clipped) divisor = size > floor ? size : floor;
  if (threat().floor_rule == Floor::squared) divisor = __builtin_sqrt(size * size > floor ? size * size : floor);
  return divisor > 0 ? factor_[i] * step_[i] / (divisor * unit) : 0;
}

template <class T> void AttackPanel<T>::move_l2(const Lanes<A>& norms) {
  constexpr bool kFloat = sizeof(A) == sizeof(float);
  constexpr double kTiny = kFloat ? 0x1p-60 : 0x1p-500, kHuge = kFloat ? 0x1p60 : 0x1p500;
  constexpr double kUp = kFloat ? 0x1p80 : 0x1p700, kDown = kFloat ? 0x1p-80 : 0x1p-700;
  Lanes<A, A> before, after, scale, moved;
  for (std::int64_t i = 0; i < width(); ++i) {
    const double unit = norms[i] < kTiny ? kUp : norms[i] > kHuge ? kDown : 1;
    const double factor = step_per_gradient(i, norms[i], unit);
    before[i] = static_cast<A>(unit);
    after[i] = static_cast<A>(factor);
    moved[i] = factor != 0 ? A(1) : A(0);
  }
  Lanes<A> lengths;
  move_columns(delta_, evaluation.gradient, before, after, size(), evaluation.vectors, lengths);
  for (std::int64_t i = 0; i < width(); ++i) {
    if (!finite(lengths[i])) finite_[i] = A(0);
    scale[i] = A(1);
    if (lengths[i] > radius_[i]) {
      scale[i] = static_cast<A>(radius_[i] / lengths[i]);
      moved[i] = A(1);
    }
    if (finite_[i] == 0) {
      scale[i] = kNaN<A>;
      moved[i] = A(1);
    }
  }
  place(scale, moved, true);
}

template <class T> void AttackPanel<T>::move_linf(const Lanes<A>& norms) {
  Lanes<A, A> step, reach, scale, moved;
  for (std::int64_t i = 0; i < width(); ++i) {
    const bool moves_along = moves(i, norms[i]);
    step[i] = static_cast<A>(!moves_along ? 0 : factor_[i] > 0 ? step_[i] : -step_[i]);
    reach[i] = static_cast<A>(radius_[i]);
    moved[i] = moves_along || finite_[i] == 0 ? A(1) : A(0);
    scale[i] = finite_[i] == 0 ? kNaN<A> : A(1);
  }
  move_columns_by_sign(delta_, evaluation.gradient, step, reach, size(), evaluation.vectors);
  place(scale, moved, true);
}

// ---- results --------------------------------------------------------------------------------------------------------

template <class T> void AttackPanel<T>::store_iterate() {
  poison(evaluation.x, size(), width(), finite_);
  A* trajectory = problem_.result.trajectory;
  if (!trajectory) return;
  A* to = trajectory + (iterate_ * problem_.rows() + row()) * size();
  store_panel(evaluation.x, evaluation.vectors, size(), count_, to, size());
}

template <class T> void AttackPanel<T>::end() {
  store_iterate();
  const bool worst = threat().keep == Keep::worst;
  A* x = worst ? worst_x_ : evaluation.x;
  A* f = worst ? worst_f_ : evaluation.sum.f;
  A* margin = worst ? worst_margin_.lane : margin_.lane;
  poison(x, size(), width(), finite_);
  poison(f, heads(), width(), finite_);
  poison(margin, 1, width(), finite_);
  store_panel(x, evaluation.vectors, size(), count_, problem_.result.x + row() * size(), size());
  store_panel(f, evaluation.vectors, heads(), count_, problem_.result.logits + row() * heads(), heads());
  for (std::int64_t i = 0; i < count_; ++i) problem_.result.margin[row() + i] = margin[i];
}

template class AttackPanel<float>;
template class AttackPanel<double>;
template class AttackPanel<BFloat16>;

}  // namespace bk::cpu::BK_SIMD_LEVEL
