// What a row is attacked for: its label, the margin of its logits, the direction in output space, the floor of a norm.
#pragma once

#include "pgd_rows.cuh"
#include "step.cuh"

namespace bk::cuda {

template <class A> __device__ bool valid_target(const AttackRows<A>& p, int64_t row) {
  if (p.threat.loss == Loss::squared) {
    bool finite = true;
    for (int64_t c = 0; c < p.heads; ++c) finite = finite && is_finite(p.target[row * p.heads + c]);
    return finite;
  }
  if (p.heads == 1) return p.target[row] == A(1) || p.target[row] == A(-1);
  return p.label[row] >= 0 && p.label[row] < p.heads;
}

// R_c = softmax over the classes other than y, R_y = −1; as a loss: softmax over all, minus one at y.
template <class A>
__device__ void class_cotangent(const AttackRows<A>& p, const A* f, std::int64_t y, bool exact, A scale, A* r) {
  A top = static_cast<A>(-INFINITY), sum = A(0);
  for (int64_t c = 0; c < p.heads; ++c) {
    if (!(exact && c == y) && f[c] > top) top = f[c];
  }
  for (int64_t c = 0; c < p.heads; ++c) {
    r[c] = exact && c == y ? A(0) : bk::exp(f[c] - top);
    sum += r[c];
  }
  for (int64_t c = 0; c < p.heads; ++c) r[c] = scale * (r[c] / sum - (c == y ? A(1) : A(0)));
}

// f − y divided by its largest entry; as a loss: 2 (f − y).
template <class A>
__device__ void target_cotangent(const AttackRows<A>& p, const A* f, const A* y, bool exact, A scale, A* r) {
  A peak = A(0);
  for (int64_t c = 0; c < p.heads; ++c) {
    r[c] = f[c] - y[c];
    const A size = magnitude(r[c]);
    if (size > peak) peak = size;
  }
  for (int64_t c = 0; c < p.heads; ++c) r[c] = !exact ? scale * (A(2) * r[c]) : peak > A(0) ? r[c] / peak : A(0);
}

template <class A> __device__ void set_cotangent(const AttackRows<A>& p, int64_t row) {
  const A* f = p.f + row * p.heads;
  A* r = p.cotangent + row * p.heads;
  const bool exact = p.threat.direction == Direction::exact;
  const A scale = exact ? A(1) : p.threat.loss_scale;
  if (p.threat.loss == Loss::squared) {
    target_cotangent(p, f, p.target + row * p.heads, exact, scale, r);
  } else if (p.heads == 1) {
    const A y = p.target[row];
    r[0] = scale * (-y * logistic(-y * f[0]));
  } else {
    class_cotangent(p, f, p.label[row], exact, scale, r);
  }
}

// y f   |   f_y − max of the others   |   −|f − y|²
template <class A, class T> __device__ A margin_of(const AttackRows<A>& p, const T& team, int64_t row) {
  const A* f = p.f + row * p.heads;
  if (p.threat.loss == Loss::squared) {
    const A* y = p.target + row * p.heads;
    Sum<A> squares = {A(0)};
    team.for_each(p.heads, [&](int64_t c) { squares.value += (f[c] - y[c]) * (f[c] - y[c]); });
    return -team.reduce(squares).value;
  }
  if (p.heads == 1) return p.target[row] * f[0];
  const std::int64_t y = p.label[row];
  Largest<A> other = {static_cast<A>(-INFINITY)};
  team.for_each(p.heads, [&](int64_t c) {
    if (c != y) other.merge({f[c]});
  });
  return f[y] - team.reduce(other).value;
}

template <class A> __device__ double floored(const Threat<A>& threat, double norm) {
  const double floor = threat.floor;
  switch (threat.floor_rule) {
    case Floor::added: return norm + floor;
    case Floor::clipped: return norm > floor ? norm : floor;
    case Floor::squared: break;
  }
  return ::sqrt(norm * norm > floor ? norm * norm : floor);
}

}  // namespace bk::cuda
