// A training's losses and their derivatives, accurate however large the margin: −y σ(−m), not y (σ(m) − 1).
#pragma once

#include "../model/training.h"

namespace bk::cpu::BK_SIMD_LEVEL {

constexpr double kLargestExponent = 60;  // exp(60) = 1e26 leaves float32 room for a gradient's sums

// ∂ℓ/∂m of the losses of one margin.
BK_HD double margin_slope(TrainingLoss loss, double margin) {
  switch (loss) {
    case TrainingLoss::exponential: return -bk::exp(-margin < kLargestExponent ? -margin : kLargestExponent);
    case TrainingLoss::hinge: return margin < 1 ? -1 : 0 * margin;
    default: return -1 / (1 + bk::exp(margin));
  }
}

BK_HD double margin_loss(TrainingLoss loss, double margin) {
  if (loss == TrainingLoss::hinge) return margin < 1 ? 1 - margin : 0 * margin;
  if (loss == TrainingLoss::logistic) return log_one_plus_exp(-margin);
  const double capped = -margin < kLargestExponent ? -margin : kLargestExponent;
  return bk::exp(capped) * (1 + (-margin - capped));
}

// log Σ exp(f_c) over the classes that are not the label.
template <class A> struct OtherClasses {
  double top = -__builtin_inf(), total = 0;

  BK_HD OtherClasses(const A* f, std::int64_t heads, std::int64_t label) {
    for (std::int64_t c = 0; c < heads; ++c) {
      if (c != label && !(f[c] <= top)) top = f[c];
    }
    for (std::int64_t c = 0; c < heads; ++c) total += c == label ? 0 : bk::exp(f[c] - top);
  }
};

// ℓ of one sample; f and the targets (heads).
template <class A>
double loss_of(TrainingLoss loss, const A* f, std::int64_t heads, const A* target, std::int64_t label) {
  if (loss == TrainingLoss::squared) {
    double sum = 0;
    for (std::int64_t c = 0; c < heads; ++c) {
      const double error = static_cast<double>(f[c]) - target[c];
      sum += 0.5 * error * error;
    }
    return sum;
  }
  if (loss != TrainingLoss::cross_entropy) return margin_loss(loss, static_cast<double>(target[0]) * f[0]);
  const OtherClasses<A> others(f, heads, label);
  return log_one_plus_exp(others.top - f[label] + ::log(others.total));
}

// R = scale · ∂ℓ/∂f of one sample, its entries `stride` apart; f and the targets (heads).
template <class A>
void cotangent(TrainingLoss loss, const A* f, std::int64_t heads, const A* target, std::int64_t label, double scale,
               A* R, std::int64_t stride) {
  if (loss == TrainingLoss::squared) {
    for (std::int64_t c = 0; c < heads; ++c)
      R[c * stride] = static_cast<A>(scale * (static_cast<double>(f[c]) - target[c]));
    return;
  }
  if (loss != TrainingLoss::cross_entropy) {
    const double y = target[0];
    R[0] = static_cast<A>(scale * y * margin_slope(loss, y * f[0]));
    return;
  }
  // The softmax over the other classes, and what the label lacks, 1 − softmax_y = σ(log Σ_others − f_y).
  const OtherClasses<A> others(f, heads, label);
  const double missing = scale / (1 + bk::exp(f[label] - others.top) / others.total);
  for (std::int64_t c = 0; c < heads; ++c) {
    R[c * stride] = static_cast<A>(c == label ? -missing : missing * bk::exp(f[c] - others.top) / others.total);
  }
}

}  // namespace bk::cpu::BK_SIMD_LEVEL
