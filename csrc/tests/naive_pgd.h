// The attack and its step in float64, one row at a time: what the kernels are compared with. long double where the
// kernels must be right to the last bits.
#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "../model/threat.h"
#include "naive.h"

namespace bk::test {

inline double norm_of(const Vector& v) {
  long double square = 0;
  for (double value : v) square += static_cast<long double>(value) * value;
  return static_cast<double>(std::sqrt(square));  // the exponent of long double has room for any double
}
inline double peak_of(const Vector& v) {
  double peak = 0;
  for (double value : v) peak = std::fmax(peak, std::fabs(value));
  return peak;
}
inline bool all_finite(const Vector& v) {
  return std::all_of(v.begin(), v.end(), [](double value) { return std::isfinite(value); });
}

// True if δ was outside of the ball.
inline bool naive_project(Norm norm, double radius, Vector& delta) {
  if (norm == Norm::linf) {
    const bool outside = peak_of(delta) > radius;
    for (double& value : delta) value = std::fmin(std::fmax(value, -radius), radius);
    return outside;
  }
  const double size = norm_of(delta);
  if (!(size > radius)) return false;
  for (double& value : delta) value *= radius / size;
  return true;
}

inline void naive_ascend(Norm norm, double step, const Vector& g, Vector& delta) {
  const double size = norm_of(g);
  for (std::size_t i = 0; i < g.size(); ++i) {
    delta[i] += step * (norm == Norm::l2 ? g[i] / size : (g[i] > 0) - (g[i] < 0));
  }
}

// Rows of x, origin, grad; one step and radius for all.
inline Vector naive_pgd_step(Norm norm, const Vector& x, const Vector& origin, const Vector& grad, std::int64_t rows,
                             double step, double radius) {
  Vector out;
  const std::size_t dim = rows == 0 ? 0 : x.size() / rows;
  for (std::int64_t row = 0; row < rows; ++row) {
    const auto part = [&](const Vector& all) { return Vector(all.begin() + row * dim, all.begin() + (row + 1) * dim); };
    const Vector point = part(x), center = part(origin), g = part(grad);
    Vector delta(dim);
    for (std::size_t i = 0; i < dim; ++i) delta[i] = point[i] - center[i];
    if (peak_of(g) > 0) naive_ascend(norm, step, g, delta);
    naive_project(norm, radius, delta);
    for (std::size_t i = 0; i < dim; ++i) out.push_back(center[i] + delta[i]);
  }
  return out;
}

// One row of the attack: what is asked, and what comes out.
struct NaiveAttack {
  Norm norm;
  Loss loss;
  Direction direction;
  Floor floor_rule;
  double floor, loss_scale, radius, step;
  std::int64_t steps;
  bool worst, stop_early;
  double box_lo, box_hi;
  Vector target;  // squared: k targets; margin with one head: the label
  std::int64_t label;
  Vector start;  // may be empty
};
struct NaiveAttacked {
  Vector x, logits;
  double margin;
  std::vector<Vector> trajectory;
};

inline double naive_margin(const NaiveAttack& attack, const Vector& f) {
  if (attack.loss == Loss::squared) {
    double sum = 0;
    for (std::size_t c = 0; c < f.size(); ++c) sum -= (f[c] - attack.target[c]) * (f[c] - attack.target[c]);
    return sum;
  }
  if (f.size() == 1) return attack.target[0] * f[0];
  double other = -std::numeric_limits<double>::infinity();
  for (std::size_t c = 0; c < f.size(); ++c) {
    if (static_cast<std::int64_t>(c) != attack.label) other = std::fmax(other, f[c]);
  }
  return f[attack.label] - other;
}

inline Vector naive_cotangent(const NaiveAttack& attack, const Vector& f) {
  const bool exact = attack.direction == Direction::exact;
  const std::size_t k = f.size(), y = static_cast<std::size_t>(attack.label);
  Vector r(k);
  if (attack.loss == Loss::squared) {
    for (std::size_t c = 0; c < k; ++c) r[c] = f[c] - attack.target[c];
    const double peak = peak_of(r);
    for (double& value : r) value = exact ? (peak > 0 ? value / peak : 0) : 2 * attack.loss_scale * value;
    return r;
  }
  if (k == 1) {
    const double label = attack.target[0];
    r[0] = exact ? -label : -attack.loss_scale * label / (1 + std::exp(label * f[0]));
    return r;
  }
  double top = -std::numeric_limits<double>::infinity(), sum = 0;
  for (std::size_t c = 0; c < k; ++c) {
    if (!exact || c != y) top = std::fmax(top, f[c]);
  }
  for (std::size_t c = 0; c < k; ++c) sum += r[c] = exact && c == y ? 0 : std::exp(f[c] - top);
  for (std::size_t c = 0; c < k; ++c) {
    r[c] = (r[c] / sum - (c == y ? 1 : 0)) * (exact ? 1 : attack.loss_scale);
  }
  return r;
}

// The step's factor of g/‖g‖ (l2) or sign(g) (linf); 0 for no step. `noise`: at or below it the gradient is zero.
inline double naive_rate(const NaiveAttack& attack, const Vector& g, double noise) {
  const double size = norm_of(g);
  if (size == 0) return 0;
  if (attack.direction == Direction::exact) return size <= noise ? 0 : attack.step;
  if (attack.norm == Norm::linf) return attack.step;
  const double floored = attack.floor_rule == Floor::added     ? size + attack.floor
                         : attack.floor_rule == Floor::clipped ? std::fmax(size, attack.floor)
                                                               : std::sqrt(std::fmax(size * size, attack.floor));
  return attack.step * (size / floored);
}

inline NaiveAttacked naive_attack(const NaiveNetwork& net, std::int64_t network, const Vector& x0,
                                  const NaiveAttack& attack, double roundoff) {
  const std::size_t dim = x0.size();
  Vector delta(dim, 0), x = x0;
  if (!attack.start.empty() && attack.radius > 0) {
    for (std::size_t i = 0; i < dim; ++i) delta[i] = attack.start[i] - x0[i];
    naive_project(attack.norm, attack.radius, delta);
    for (std::size_t i = 0; i < dim; ++i) x[i] = x0[i] + delta[i];
  }
  NaiveAttacked kept;
  for (std::int64_t k = 0; k <= attack.steps; ++k) {
    const Vector f = naive_value(net, network, x.data());
    const double margin = naive_margin(attack, f);
    if (k == 0 || !attack.worst || margin < kept.margin) {
      kept.x = x;
      kept.logits = f;
      kept.margin = margin;
    }
    kept.trajectory.push_back(x);
    if (k == attack.steps || attack.radius == 0 || (attack.stop_early && !(margin > 0))) continue;

    const Vector r = naive_cotangent(attack, f), gated = naive_gated(net, network, x.data(), r.data());
    const Vector g = naive_input_grad(net, network, gated);
    double noise = 0;
    for (std::int64_t j = 0; j < net.neurons; ++j) {
      Vector w(net.dim);
      for (std::int64_t t = 0; t < net.dim; ++t) w[t] = net.w(network, j, t);
      for (std::int64_t p = 0; p < net.patches; ++p) noise += std::fabs(gated[p * net.neurons + j]) * norm_of(w);
    }
    const double rate = naive_rate(attack, g, 8 * roundoff * noise);
    if (rate > 0) naive_ascend(attack.norm, rate, g, delta);
    const bool outside = naive_project(attack.norm, attack.radius, delta);
    if (rate == 0 && !outside) continue;
    for (std::size_t i = 0; i < dim; ++i) {
      const double moved = std::fmin(std::fmax(x0[i] + delta[i], attack.box_lo), attack.box_hi);
      if (std::isfinite(attack.box_lo) || std::isfinite(attack.box_hi)) delta[i] = moved - x0[i];
      x[i] = moved;
    }
  }
  return kept;
}

}  // namespace bk::test
