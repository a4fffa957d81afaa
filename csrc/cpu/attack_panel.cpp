#include "attack_panel.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

template <class A> void copy(A* to, const A* from, std::int64_t size) {
  for (std::int64_t i = 0; i < size; ++i) to[i] = from[i];
}

}  // namespace

template <class T>
AttackPanel<T>::AttackPanel(const AttackProblem<T>& problem, std::int64_t task)
    : evaluation(problem.network, task / problem.sharing.panels.count, problem.sharing.panels,
                 task % problem.sharing.panels.count, problem.sharing.together),
      problem_(problem),
      network_(task / problem.sharing.panels.count),
      first_(problem.sharing.panels.first_sample(task % problem.sharing.panels.count)),
      lanes_(problem.attack, problem.network.heads, evaluation.vectors, network_ * problem.x0.count + first_,
             problem.sharing.panels.samples_of(task % problem.sharing.panels.count)) {
  if (problem.norms) evaluation.layer.norms = problem.norms + network_ * problem.network.neurons;
}

template <class T> std::int64_t AttackPanel<T>::memory() const {
  return evaluation.memory(problem_.keeps_hidden()) + lanes_.memory() + (keeps_worst_x() ? 3 : 2) * size() * width();
}

template <class T> Compute<T>* AttackPanel<T>::attach(A* memory) {
  origin_ = evaluation.attach(memory, problem_.keeps_hidden());
  delta_ = origin_ + size() * width();
  worst_x_ = delta_ + size() * width();
  return lanes_.attach(keeps_worst_x() ? worst_x_ + size() * width() : worst_x_, evaluation.sum.f,
                       evaluation.cotangent);
}

// ---- x_0 ------------------------------------------------------------------------------------------------------------

template <class T> void AttackPanel<T>::begin() {
  const A* x0 = problem_.x0.x + network_ * problem_.x0.network_stride + first_ * size();
  load_panel(x0, size(), lanes_.count(), size(), evaluation.vectors, origin_);
  copy(evaluation.x, origin_, size() * width());
  for (std::int64_t i = 0; i < size() * width(); ++i) delta_[i] = A(0);
  lanes_.begin();
  check_columns(origin_, size(), evaluation.vectors, lanes_.valid);
  if (problem_.attack.start) start_from(problem_.attack.start + lanes_.row() * size());
  poison(evaluation.x, size(), width(), lanes_.valid);
  evaluation.set_x();
}

// delta = start − x0, projected; no box yet: it is part of a step.
template <class T> void AttackPanel<T>::start_from(const A* start) {
  load_panel(start, size(), lanes_.count(), size(), evaluation.vectors, delta_);
  check_columns(delta_, size(), evaluation.vectors, lanes_.valid);
  for (std::int64_t i = 0; i < size() * width(); ++i) delta_[i] -= origin_[i];
  Lanes<A, A> scale, moved;
  Lanes<A> norms;
  if (threat().norm == Norm::l2) {
    column_norms(delta_, size(), evaluation.vectors, norms);
  } else {
    for (std::int64_t i = 0; i < width(); ++i) {
      scale[i] = A(0);
      moved[i] = static_cast<A>(lanes_.radius[i]);
    }
    move_columns_by_sign(delta_, delta_, scale, moved, size(), evaluation.vectors);
  }
  for (std::int64_t i = 0; i < width(); ++i) {
    moved[i] = lanes_.radius[i] > 0 ? A(1) : A(0);
    scale[i] = A(1);
    if (threat().norm == Norm::l2 && norms[i] > lanes_.radius[i])
      scale[i] = static_cast<A>(lanes_.radius[i] / norms[i]);
    for (std::int64_t k = 0; k < size() && lanes_.radius[i] == 0; ++k) delta_[k * width() + i] = A(0);
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
  lanes_.see_value(evaluation.layer.head_bias, last);
  if (keeps_worst_x()) copy_columns(worst_x_, evaluation.x, size(), width(), lanes_.improved);
}

// ---- the gradient is known ------------------------------------------------------------------------------------------

template <class T> void AttackPanel<T>::move() {
  Lanes<A> norms;
  column_norms(evaluation.gradient, size(), evaluation.vectors, norms);
  for (std::int64_t i = 0; i < width(); ++i) {
    if (!lanes_.rests(i) && (!finite(norms[i]) || !finite(lanes_.factor[i]))) lanes_.valid[i] = A(0);
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

template <class T> void AttackPanel<T>::move_l2(const Lanes<A>& norms) {
  constexpr bool kFloat = sizeof(A) == sizeof(float);
  constexpr double kTiny = kFloat ? 0x1p-60 : 0x1p-500, kHuge = kFloat ? 0x1p60 : 0x1p500;
  constexpr double kUp = kFloat ? 0x1p80 : 0x1p700, kDown = kFloat ? 0x1p-80 : 0x1p-700;
  Lanes<A, A> before, after, scale, moved;
  for (std::int64_t i = 0; i < width(); ++i) {
    const double unit = norms[i] < kTiny ? kUp : norms[i] > kHuge ? kDown : 1;
    const double factor = lanes_.step_per_gradient(i, norms[i], bound(i), unit);
    before[i] = static_cast<A>(unit);
    after[i] = static_cast<A>(factor);
    moved[i] = factor != 0 ? A(1) : A(0);
  }
  Lanes<A> lengths;
  move_columns(delta_, evaluation.gradient, before, after, size(), evaluation.vectors, lengths);
  for (std::int64_t i = 0; i < width(); ++i) {
    const bool rests = lanes_.rests(i);
    if (!rests && !finite(lengths[i])) lanes_.valid[i] = A(0);
    scale[i] = A(1);
    if (!rests && lengths[i] > lanes_.radius[i]) {
      scale[i] = static_cast<A>(lanes_.radius[i] / lengths[i]);
      moved[i] = A(1);
    }
    if (lanes_.valid[i] == 0) {
      scale[i] = kNaN<A>;
      moved[i] = A(1);
    }
  }
  place(scale, moved, true);
}

template <class T> void AttackPanel<T>::move_linf(const Lanes<A>& norms) {
  Lanes<A, A> step, reach, scale, moved;
  for (std::int64_t i = 0; i < width(); ++i) {
    const bool moves_along = lanes_.moves(i, norms[i], bound(i));
    step[i] = static_cast<A>(!moves_along ? 0 : lanes_.factor[i] > 0 ? lanes_.step[i] : -lanes_.step[i]);
    reach[i] = static_cast<A>(lanes_.radius[i]);
    moved[i] = moves_along || lanes_.valid[i] == 0 ? A(1) : A(0);
    scale[i] = lanes_.valid[i] == 0 ? kNaN<A> : A(1);
  }
  move_columns_by_sign(delta_, evaluation.gradient, step, reach, size(), evaluation.vectors);
  place(scale, moved, true);
}

// ---- results --------------------------------------------------------------------------------------------------------

template <class T> void AttackPanel<T>::store_iterate() {
  poison(evaluation.x, size(), width(), lanes_.valid);
  A* trajectory = problem_.result.trajectory;
  if (!trajectory) return;
  A* to = trajectory + (iterate_ * problem_.rows() + lanes_.row()) * size();
  store_panel(evaluation.x, evaluation.vectors, size(), lanes_.count(), to, size());
}

template <class T> void AttackPanel<T>::end() {
  store_iterate();
  lanes_.store(problem_.result);
  if (!problem_.result.x) return;
  A* x = keeps_worst_x() ? worst_x_ : evaluation.x;
  poison(x, size(), width(), lanes_.valid);
  store_panel(x, evaluation.vectors, size(), lanes_.count(), problem_.result.x + lanes_.row() * size(), size());
}

template class AttackPanel<float>;
template class AttackPanel<double>;
template class AttackPanel<BFloat16>;

}  // namespace bk::cpu::BK_SIMD_LEVEL
