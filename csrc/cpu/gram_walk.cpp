#include "gram_walk.h"

#include "gate.h"
#include "gram_rows.h"

namespace bk::cpu::BK_SIMD_LEVEL {
namespace {

// Where more gates flip than one in so many, the product with all of G is faster than adding up its rows.
constexpr std::int64_t kDenseFlips = 6;
constexpr double kLeastShrink = 0x1p-30;
constexpr std::int64_t kNearNumbers = 1280;  // of each array of rows that are walked together in the nearest cache

// Near enough to 1 that it needs no unit.
template <class A> double unit_near(double size) {
  return !(size > 0) || !finite(size) || (size > 0x1p-16 && size < 0x1p16) ? 1 : power_near<A>(size);
}

// Calls visit(φ) with the piecewise-linear φ.
template <class Visit> BK_HD auto visit_gate(const Activation& activation, Visit&& visit) {
  switch (activation.kind) {
    case ActivationKind::identity: return visit(Identity{});
    case ActivationKind::leaky_relu: return visit(LeakyReLU{activation.alpha});
    default: return visit(ReLU{});
  }
}

}  // namespace

template <class A>
GramWalk<A>::GramWalk(const GramNetwork<A>& network, const GramChunk<A>& chunk, const Attack<A>& attack,
                      const A* head_bias, std::int64_t first, std::int64_t row, std::int64_t count)
    : network_(network),
      chunk_(chunk),
      head_bias_(head_bias),
      first_(first),
      count_(count),
      directions_(directions(network)),
      lanes_(attack, network.heads, (count + Vec<A>::kLanes - 1) / Vec<A>::kLanes, row, count),
      follows_(follows_value(attack.threat, network.heads)) {}

template <class A> std::int64_t GramWalk<A>::memory() const {
  return 2 * network_.heads * lanes_.width() + lanes_.memory() + (directions_ > 1 ? 4 : 3) * count_ * size() +
         network_.width + size() + flips_memory();
}

// Numbers: every sample of a step may have some, and the last one all that there are before they are set aside.
template <class A> std::int64_t GramWalk<A>::flips_memory() const {
  const std::int64_t most = count_ * size() / kDenseFlips + size();
  return network_.flips ? most * static_cast<std::int64_t>(sizeof(Flip) / sizeof(A)) : 0;
}

template <class A> A* GramWalk<A>::attach(A* memory) {
  A* next = memory;
  const auto take = [&next](std::int64_t size) {
    A* taken = next;
    next += size;
    return taken;
  };
  D_ = take(count_ * size());
  C_ = take(count_ * size());
  change_ = take(count_ * size());
  V_now_ = directions_ > 1 ? take(count_ * size()) : nullptr;
  combined_ = take(network_.width);
  values_ = take(size());
  flips_ = reinterpret_cast<Flip*>(take(flips_memory()));
  logits_ = take(network_.heads * lanes_.width());
  cotangent_ = take(network_.heads * lanes_.width());
  return lanes_.attach(next, logits_, cotangent_);
}

// ---- x_0 ------------------------------------------------------------------------------------------------------------

template <class A> void GramWalk<A>::begin() {
  const bool last = lanes_.threat().steps == 0, value = last || follows_;
  lanes_.begin();
  for (std::int64_t i = 0; i < network_.heads * lanes_.width(); ++i) logits_[i] = A(0);
  for (std::int64_t i = 0; i < count_; ++i) {
    start(i);
    look_first(i, value);
  }
  if (value) lanes_.see_value(head_bias_, last);
  for (std::int64_t i = 0; i < count_ && !network_.flips; ++i) set_direction(i, true);
}

template <class A> void GramWalk<A>::start(std::int64_t i) {
  // The longest way that is ever added to D and C; the ball may be far smaller.
  const double start = chunk_.start_norms[first_ + i];
  unit_[i] = unit_near<A>(start > lanes_.step[i] ? start : lanes_.step[i]);
  shrink_[i] = start_[i] = 1;
  drift_[i] = 0;
  if (!finite(chunk_.start_norms[first_ + i])) lanes_.valid[i] = A(0);
  A* D = D_ + i * size();
  A* C = C_ + i * size();
  const A scale = static_cast<A>(1 / unit_[i]);
  for (std::int64_t j = 0; j < size(); ++j) {
    D[j] = chunk_.start_hidden ? row(chunk_.start_hidden, i)[j] * scale : A(0);
    C[j] = A(0);
  }
  A* H = row(chunk_.hidden, i);
  for (std::int64_t p = 0; p < network_.patches; ++p, H += network_.width) {
    add_scaled(H, network_.bias, H, static_cast<A>(network_.weight_unit), network_.width);
  }
}

// The slopes at x_0, or for smooth φ its H; and f if wanted.
template <class A> void GramWalk<A>::look_first(std::int64_t i, bool value) {
  if (!network_.flips) return look_densely(i, value);
  A* h = change_ + i * size();
  A* S = row(chunk_.slopes, i);
  for (std::int64_t j = 0; j < size(); ++j) S[j] = A(1);
  add_scaled(h, row(chunk_.hidden, i), D_ + i * size(), hidden_scale(i), size());
  gate_elements<A>(network_.activation, h, 1, size() / Vec<A>::kLanes, values_, S);
  copy_row(S, h, size());
  if (value) sum_value(i);
}

template <class A> void GramWalk<A>::write_directions(std::int64_t head) {
  const std::int64_t width = network_.width;
  for (std::int64_t i = 0; i < count_; ++i) {
    A* to = row(chunk_.coefficients, i);
    const A* S = row(chunk_.slopes, i);
    if (!network_.flips) copy_row(to, S, size());
    for (std::int64_t p = 0; network_.flips && p < network_.patches; ++p) {
      multiply_row(to + p * width, S + p * width, network_.head + head * width, width);
    }
  }
}

// ---- H, and what follows from it ------------------------------------------------------------------------------------

// What follows from a new H; false where V is to be changed with those of the other samples, by add_changes().
template <class A> bool GramWalk<A>::look(std::int64_t i, bool value) {
  if (!network_.flips) {
    look_densely(i, value);
    return false;
  }
  const std::int64_t flips = find_flips(i, value);
  if (value) sum_value(i);
  if (flips * kDenseFlips <= size()) return true;
  set_aside(flips);
  return false;
}

// H into `change`, and f if wanted.
template <class A> void GramWalk<A>::look_densely(std::int64_t i, bool value) {
  A* h = change_ + i * size();
  add_scaled(h, row(chunk_.hidden, i), D_ + i * size(), hidden_scale(i), size());
  if (!value) return;
  gate_elements<A>(network_.activation, h, 1, size() / Vec<A>::kLanes, values_, nullptr);
  sum_value(i);
}

// The gates that have flipped, added to `flips`; returns how many. φ into `values` if wanted.
template <class A> std::int64_t GramWalk<A>::find_flips(std::int64_t i, bool value) {
  using Vector = Vec<A>;
  constexpr std::int64_t kWord = 64;  // gates of one word, so that it is their number and not their places that branch
  const std::int64_t width = network_.width;
  const Vector scale = Vector::broadcast(hidden_scale(i));
  const std::int64_t before = flip_count_;
  double drift = drift_[i];
  visit_gate(network_.activation, [&](auto phi) __attribute__((always_inline)) {
    const A shut = phi.first(A(-1));
    for (std::int32_t p = 0; p < network_.patches; ++p) {
      const A* H0 = row(chunk_.hidden, i) + p * width;
      const A* D = D_ + i * size() + p * width;
      A* S = row(chunk_.slopes, i) + p * width;
      for (std::int64_t begin = 0; begin < width; begin += kWord) {
        const std::int64_t end = begin + kWord < width ? begin + kWord : width;
        std::uint64_t turned = 0;
        for (std::int64_t j = begin; j < end; j += Vector::kLanes) {
          const Vector h = Vector::load(H0 + j) + scale * Vector::load(D + j);
          if (value) phi.value(h).store(values_ + p * width + j);
          turned |= std::uint64_t{bits(phi.first(h) != Vector::load(S + j))} << (j - begin);
        }
        for (; turned != 0; turned &= turned - 1) {
          const std::int64_t j = begin + __builtin_ctzll(turned);
          const A slope = S[j] == A(1) ? shut : A(1), by = slope - S[j];
          const double change = static_cast<double>(by) * network_.influence[j];
          drift += change * change;
          flips_[flip_count_++] = {static_cast<std::int32_t>(i), p, static_cast<std::int32_t>(j), by};
          S[j] = slope;
        }
      }
    }
  });
  drift_[i] = drift;
  return flip_count_ - before;
}

template <class A> void GramWalk<A>::sum_value(std::int64_t i) {
  for (std::int64_t c = 0; c < network_.heads; ++c) {
    double f = 0;
    for (std::int64_t p = 0; p < network_.patches; ++p) {
      f += dot(values_ + p * network_.width, network_.head + c * network_.width, network_.width);
    }
    logits_[c * lanes_.width() + i] = static_cast<A>(f * network_.head_unit);
  }
}

// R A: what slopes are multiplied by to give the direction.
template <class A> const A* GramWalk<A>::combine_heads(std::int64_t i) {
  if (network_.heads == 1) return network_.head;
  combine(combined_, network_.head, network_.width, cotangent_ + i, lanes_.width(), network_.heads, network_.width);
  return combined_;
}

// Smooth φ, its H and the cotangent known: U, and ΔU in place of H.
template <class A> void GramWalk<A>::set_direction(std::int64_t i, bool first) {
  const std::int64_t width = network_.width;
  const A* heads = combine_heads(i);
  for (std::int64_t p = 0; p < network_.patches; ++p) {
    A* change = change_ + i * size() + p * width;
    A* U = row(chunk_.slopes, i) + p * width;
    gate_elements<A>(network_.activation, change, 1, width / Vec<A>::kLanes, nullptr, heads);
    if (first) {
      copy_row(U, change, width);
    } else {
      replace_row(U, change, width);
      drift_[i] += squared_products(change, network_.influence, width);
    }
  }
}

// ---- a step ---------------------------------------------------------------------------------------------------------

template <class A> void GramWalk<A>::move(std::int64_t i) {
  if (lanes_.rests(i)) return;
  const double root = __builtin_sqrt(square_[i]), norm = gradient_unit() * root;
  if (!finite(norm) || !finite(lanes_.factor[i])) lanes_.valid[i] = A(0);
  if (lanes_.valid[i] == 0) return;
  const double bound = gradient_unit() * bound_[i], scale = unit_[i] * shrink_[i];
  if (!lanes_.moves(i, norm, bound)) return;
  // In this order: neither η/‖g‖ nor the quotient of the units need be in range.
  const bool exact = lanes_.threat().direction == Direction::exact;
  const A by = static_cast<A>(exact ? lanes_.factor[i] * (lanes_.step[i] / scale) / root
                                    : lanes_.step_per_gradient(i, norm, bound, 1) * (gradient_unit() / scale));
  const std::int64_t width = network_.width;
  const A* heads = network_.flips ? combine_heads(i) : nullptr;
  const A* now = directions_ > 1 ? V_now_ + i * size() : V(0, i);
  const double start = start_[i] / unit_[i];
  double square = start * chunk_.start_norms[first_ + i] * start * chunk_.start_norms[first_ + i];
  for (std::int64_t p = 0; p < network_.patches; ++p) {
    const std::int64_t at = i * size() + p * width;
    A* D = D_ + at;
    A* C = C_ + at;
    square += move_row(D, C, now + p * width, row(chunk_.slopes, i) + p * width, heads, by, width);
    if (chunk_.start_hidden) square += start * dot(C, chunk_.start_hidden + first_ * size() + at, width);
  }
  const double length = shrink_[i] * unit_[i] * __builtin_sqrt(square > 0 ? square : 0);
  if (!finite(length)) lanes_.valid[i] = A(0);
  if (length > lanes_.radius[i]) shrink_[i] *= lanes_.radius[i] / length;
  if (shrink_[i] < kLeastShrink) {
    const A scale = static_cast<A>(shrink_[i]);
    for (std::int64_t j = i * size(); j < (i + 1) * size(); ++j) {
      D_[j] *= scale;
      C_[j] *= scale;
    }
    start_[i] *= shrink_[i];
    shrink_[i] = 1;
  }
}

template <class A> void GramWalk<A>::keep(std::int64_t i) {
  chunk_.start_scales[first_ + i] = shrink_[i] * start_[i];
  chunk_.coefficient_scales[first_ + i] = shrink_[i] * unit_[i];
  copy_row(row(chunk_.coefficients, i), C_ + i * size(), size());
}

// A step of samples [begin, end); whether each V followed by itself.
template <class A> bool GramWalk<A>::step(std::int64_t begin, std::int64_t end, bool last) {
  const bool value = last || follows_;
  flip_count_ = 0;
  for (std::int64_t i = begin; i < end; ++i) measure(i);
  refresh(begin, end);
  bool done = true;
  for (std::int64_t i = begin; i < end; ++i) move(i);  // one after the other: none waits for the flips of another
  for (std::int64_t i = begin; i < end; ++i) done &= look(i, value);
  if (follows_) see(last);
  if (last) return true;
  for (std::int64_t i = begin; i < end && !network_.flips; ++i) set_direction(i, false);
  follow_flips();
  if (!done) add_changes(begin, end);
  return done;
}

// f is known at the iterate of all samples.
template <class A> void GramWalk<A>::see(bool last) {
  lanes_.see_value(head_bias_, last);
  for (std::int64_t i = 0; i < count_ && lanes_.keeps_worst(); ++i) {
    if (lanes_.improved[i] != 0) keep(i);
  }
}

template <class A> void GramWalk<A>::run(const AttackResult<A>& result, bool summed) {
  const std::int64_t steps = lanes_.threat().steps;
  for (std::int64_t i = 0; i < count_; ++i) {
    keep(i);
    for (std::int64_t p = 0; summed && p < network_.patches; ++p) {
      const A* S = row(chunk_.slopes, i) + p * network_.width;
      drift_[i] += squared_products(S, network_.influence, network_.width);
    }
  }
  for (std::int64_t j = 0; network_.flips && j < count_ * size(); ++j) change_[j] = A(0);
  // All together for products with many rows, or where f calls for it; else as many as the nearest cache holds.
  std::int64_t k = 1;
  bool apart = false;
  for (; k <= steps && !apart && !lanes_.at_rest(); ++k) apart = step(0, count_, k == steps) && !follows_;
  const std::int64_t near = kNearNumbers / (size() + 1) + 1;
  for (std::int64_t i = 0; i < count_ && apart; i += near) {
    const std::int64_t end = i + near < count_ ? i + near : count_;
    for (std::int64_t next = k; next <= steps; ++next) step(i, end, next == steps);
  }
  if (!follows_ && steps > 0) see(true);
  for (std::int64_t i = 0; i < count_ && !lanes_.keeps_worst(); ++i) keep(i);
  lanes_.store(result);
}

template <class A> void GramWalk<A>::write_hidden(A* hidden) const {
  for (std::int64_t i = 0; i < count_; ++i) {
    add_scaled(row(hidden, i), row(chunk_.hidden, i), D_ + i * size(), hidden_scale(i), size());
  }
}

template class GramWalk<float>;
template class GramWalk<double>;

}  // namespace bk::cpu::BK_SIMD_LEVEL
