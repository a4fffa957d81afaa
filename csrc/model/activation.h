// Activations: value and first derivative; at a kink torch's convention. To add one: a struct, and its row in the table
// below.
//
// T is float, double, or a SIMD vector of either. The functions used here (select, exp, log1p, tanh, erf, erfc, pow)
// are found for scalars below and for vectors by argument-dependent lookup (csrc/cpu/vector_math.h).
#pragma once

#include <cmath>
#include <cstdint>

#include "macros.h"

namespace bk {

// φ's name and shape, as the kernels receive it. Meaning of alpha, beta: see the structs.
enum class ActivationKind : std::int32_t {
  identity,
  relu,
  leaky_relu,
  smooth_leaky_relu,
  relu_power,
  odd_power,
  smoothed_relu,
  softplus,
  tanh,
  erf,
  gelu,
  silu,
  sigmoid,
};

struct Activation {
  ActivationKind kind;
  double alpha;
  double beta;
};

// φ' is constant between kinks: the gates either side of them are all there is to φ.
BK_HD bool piecewise_linear(const Activation& activation) {
  return activation.kind == ActivationKind::identity || activation.kind == ActivationKind::relu ||
         activation.kind == ActivationKind::leaky_relu;
}

// ---- scalar functions; vectors bring their own overloads ------------------------------------------------------------

template <class T> BK_HD T select(bool condition, T yes, T no) { return condition ? yes : no; }

BK_HD float exp(float h) { return ::expf(h); }
BK_HD double exp(double h) { return ::exp(h); }
BK_HD float log1p(float h) { return ::log1pf(h); }
BK_HD double log1p(double h) { return ::log1p(h); }
BK_HD float tanh(float h) { return ::tanhf(h); }
BK_HD double tanh(double h) { return ::tanh(h); }
BK_HD float erf(float h) { return ::erff(h); }
BK_HD double erf(double h) { return ::erf(h); }
BK_HD float erfc(float h) { return ::erfcf(h); }
BK_HD double erfc(double h) { return ::erfc(h); }
BK_HD float pow(float h, double q) { return ::powf(h, static_cast<float>(q)); }
BK_HD double pow(double h, double q) { return ::pow(h, q); }

template <class T> BK_HD T magnitude(T h) { return select(h < T(0), -h, h); }
// Comparisons are written so that a NaN falls through to the branch that returns it.
template <class T> BK_HD T positive_part(T h) { return select(h <= T(0), T(0), h); }
template <class T> BK_HD T logistic(T h) { return T(1) / (T(1) + exp(-h)); }
template <class T> BK_HD T log_one_plus_exp(T h) { return positive_part(h) + log1p(exp(-magnitude(h))); }

// ---- the activations ------------------------------------------------------------------------------------------------

struct Identity {  // torch: h
  static constexpr bool kPiecewiseLinear = true;
  template <class T> BK_HD T value(T h) const { return h; }
  template <class T> BK_HD T first(T) const { return T(1); }
};

struct ReLU {  // torch: relu
  static constexpr bool kPiecewiseLinear = true;
  template <class T> BK_HD T value(T h) const { return positive_part(h); }
  template <class T> BK_HD T first(T h) const { return select(h <= T(0), T(0), T(1)); }
};

struct LeakyReLU {  // torch: leaky_relu
  static constexpr bool kPiecewiseLinear = true;
  double slope;
  template <class T> BK_HD T value(T h) const { return select(h <= T(0), T(slope) * h, h); }
  template <class T> BK_HD T first(T h) const { return select(h <= T(0), T(slope), T(1)); }
};

struct SmoothLeakyReLU {  // γh + (1−γ) log((1 + exp(sh)) / 2) / s, so that φ(0) = 0; φ'' ≤ (1−γ)s/4
  double slope, sharpness;
  template <class T> BK_HD T value(T h) const {
    const T soft = (log_one_plus_exp(T(sharpness) * h) - T(0.69314718055994530942)) / T(sharpness);
    return T(slope) * h + T(1 - slope) * soft;
  }
  template <class T> BK_HD T first(T h) const { return T(slope) + T(1 - slope) * logistic(T(sharpness) * h); }
};

struct ReLUPower {  // relu(h)^q
  double power;
  template <class T> BK_HD T value(T h) const { return select(h <= T(0), T(0), pow(h, power)); }
  template <class T> BK_HD T first(T h) const { return select(h <= T(0), T(0), T(power) * pow(h, power - 1)); }
};

struct OddPower {  // sign(h) |h|^q
  double power;
  template <class T> BK_HD T value(T h) const {
    const T size = pow(magnitude(h), power);
    return select(h < T(0), -size, size);
  }
  template <class T> BK_HD T first(T h) const { return T(power) * pow(magnitude(h), power - 1); }
};

struct SmoothedReLU {  // 0 | (ρ/q)(h/ρ)^q on [0, ρ] | h − (1 − 1/q)ρ
  double power, width;
  template <class T> BK_HD T value(T h) const {
    const T bend = T(width / power) * pow(h * T(1 / width), power);
    return select(h <= T(0), T(0), select(h < T(width), bend, h - T((1 - 1 / power) * width)));
  }
  template <class T> BK_HD T first(T h) const {
    const T bend = pow(h * T(1 / width), power - 1);
    return select(h <= T(0), T(0), select(h < T(width), bend, T(1)));
  }
};

struct Softplus {  // log(1 + exp(βh)) / β; torch: softplus without its linear cut-off
  double sharpness;
  template <class T> BK_HD T value(T h) const { return log_one_plus_exp(T(sharpness) * h) / T(sharpness); }
  template <class T> BK_HD T first(T h) const { return logistic(T(sharpness) * h); }
};

// The derivatives of tanh, sigmoid and GELU keep their relative accuracy in the tails, where 1 − tanh² and 1 + erf are
// all rounding: the attack follows the gradient's direction however small the gradient is.
struct Tanh {  // torch: tanh
  template <class T> BK_HD T value(T h) const { return tanh(h); }
  template <class T> BK_HD T first(T h) const {
    const T e = exp(T(-2) * magnitude(h));
    return T(4) * e / ((T(1) + e) * (T(1) + e));
  }
};

struct Erf {  // torch: erf
  template <class T> BK_HD T value(T h) const { return erf(h); }
  template <class T> BK_HD T first(T h) const { return T(1.12837916709551257390) * exp(-h * h); }
};

struct GELU {  // h Φ(h); torch: gelu
  template <class T> BK_HD static T tail(T size) { return T(0.5) * erfc(size * T(0.70710678118654752440)); }  // Φ(−|h|)
  template <class T> BK_HD T value(T h) const {
    const T small = tail(magnitude(h));
    return h * select(h < T(0), small, T(1) - small);
  }
  template <class T> BK_HD T first(T h) const {  // φ'(h) = 1 − φ'(−h)
    const T size = magnitude(h);
    const T small = tail(size) - size * T(0.39894228040143267794) * exp(T(-0.5) * size * size);
    return select(h < T(0), small, T(1) - small);
  }
};

struct SiLU {  // h σ(h); torch: silu
  template <class T> BK_HD T value(T h) const { return h * logistic(h); }
  template <class T> BK_HD T first(T h) const { return logistic(h) * (T(1) + h * logistic(-h)); }
};

struct Sigmoid {  // torch: sigmoid
  template <class T> BK_HD T value(T h) const { return logistic(h); }
  template <class T> BK_HD T first(T h) const {
    const T e = exp(-magnitude(h));
    return e / ((T(1) + e) * (T(1) + e));
  }
};

// ---- the table: one row per activation ------------------------------------------------------------------------------

// Calls visit(φ) with the struct of `activation`.
template <class Visit> BK_HD auto visit_activation(const Activation& activation, Visit&& visit) {
  switch (activation.kind) {
    case ActivationKind::identity: return visit(Identity{});
    case ActivationKind::relu: return visit(ReLU{});
    case ActivationKind::leaky_relu: return visit(LeakyReLU{activation.alpha});
    case ActivationKind::smooth_leaky_relu: return visit(SmoothLeakyReLU{activation.alpha, activation.beta});
    case ActivationKind::relu_power: return visit(ReLUPower{activation.alpha});
    case ActivationKind::odd_power: return visit(OddPower{activation.alpha});
    case ActivationKind::smoothed_relu: return visit(SmoothedReLU{activation.alpha, activation.beta});
    case ActivationKind::softplus: return visit(Softplus{activation.alpha});
    case ActivationKind::tanh: return visit(Tanh{});
    case ActivationKind::erf: return visit(Erf{});
    case ActivationKind::gelu: return visit(GELU{});
    case ActivationKind::silu: return visit(SiLU{});
    case ActivationKind::sigmoid: break;
  }
  return visit(Sigmoid{});
}

// Names as in Python, in the order of ActivationKind.
inline constexpr const char* kActivationNames[] = {
    "identity",   "relu",      "leaky_relu",    "smooth_leaky_relu",
    "relu_power", "odd_power", "smoothed_relu", "softplus",
    "tanh",       "erf",       "gelu",          "silu",
    "sigmoid",
};

// All activations behind one run-time switch, so that kernels are compiled four times and not thirteen.
struct AnyActivation {
  static constexpr bool kPiecewiseLinear = false;
  Activation activation;
  template <class T> BK_HD T value(T h) const {
    return visit_activation(activation, [h](auto phi) { return phi.value(h); });
  }
  template <class T> BK_HD T first(T h) const {
    return visit_activation(activation, [h](auto phi) { return phi.first(h); });
  }
};

// Calls visit(φ) with the compile-time struct of the piecewise-linear activations, with AnyActivation for the others.
#if defined(__CUDACC__)
#pragma nv_exec_check_disable  // visit may be host code: it launches the kernel for φ
#endif
template <class Visit> BK_HD auto specialise_activation(const Activation& activation, Visit&& visit) {
  switch (activation.kind) {
    case ActivationKind::identity: return visit(Identity{});
    case ActivationKind::relu: return visit(ReLU{});
    case ActivationKind::leaky_relu: return visit(LeakyReLU{activation.alpha});
    default: return visit(AnyActivation{activation});
  }
}

}  // namespace bk
