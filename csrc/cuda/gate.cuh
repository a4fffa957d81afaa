// The gate of a neuron whose φ is piecewise linear.
#pragma once

#include "launch.cuh"

namespace bk::cuda {

// The piecewise-linear φ in one: a kernel for each of them would take three times as long to compile, and be no faster.
template <class A> struct Gate {
  static constexpr bool kPiecewiseLinear = true;
  A slope;  // below zero

  __device__ A first(A h) const { return h <= A(0) ? slope : A(1); }
  __device__ A value(A h) const { return !(h <= A(0)) ? h : slope == A(0) ? A(0) : slope * h; }
};

template <class A> Gate<A> gate_of(const Activation& activation) {
  switch (activation.kind) {
    case ActivationKind::identity: return {A(1)};
    case ActivationKind::leaky_relu: return {static_cast<A>(activation.alpha)};
    default: return {A(0)};
  }
}

}  // namespace bk::cuda
