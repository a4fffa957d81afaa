// A batch of independent two-layer networks, and the points they are evaluated at.
//
//   f(x) = c + Σ_p Σ_j a_j φ(<w_j, x_p> + b_j)
//
// n samples, d dimension, m neurons, P patches, k heads. All arrays are contiguous, row-major.
#pragma once

#include <cstdint>

#include "activation.h"
#include "number.h"

namespace bk {

template <class T> struct Network {
  const T* weight;              // (networks, m, d)
  const Compute<T>* head;       // (networks, k, m)
  const Compute<T>* bias;       // (networks, m), or null
  const Compute<T>* head_bias;  // (networks, k), or null
  std::int64_t networks;
  std::int64_t neurons;  // m
  std::int64_t dim;      // d
  std::int64_t patches;  // P
  std::int64_t heads;    // k
  Activation activation;
};

template <class A> struct Samples {
  const A* x;                   // (networks, n, P·d), or (n, P·d) shared by all networks
  std::int64_t count;           // n
  std::int64_t network_stride;  // n·P·d, or 0 when shared
};

}  // namespace bk
