// A random problem in storage type T, and the same numbers in float64.
#pragma once

#include <string>
#include <vector>

#include "check.h"
#include "naive.h"

namespace bk::test {

struct Shape {
  std::int64_t networks, samples, dim, neurons;
  std::int64_t patches = 1, heads = 1;
  bool bias = true, head_bias = true, shared_x = false;

  std::int64_t row_size() const { return patches * dim; }
  std::int64_t rows() const { return networks * samples; }
  std::string text() const {
    return "B" + std::to_string(networks) + " n" + std::to_string(samples) + " d" + std::to_string(dim) + " m" +
           std::to_string(neurons) + " P" + std::to_string(patches) + " k" + std::to_string(heads) +
           (bias ? " bias" : "") + (shared_x ? " shared" : "");
  }
};

inline Activation default_activation(ActivationKind kind) {
  switch (kind) {
    case ActivationKind::leaky_relu: return {kind, 0.01, 0};
    case ActivationKind::smooth_leaky_relu: return {kind, 0.1, 1.0};
    case ActivationKind::relu_power: return {kind, 2, 0};
    case ActivationKind::odd_power: return {kind, 3, 0};
    case ActivationKind::smoothed_relu: return {kind, 3, 1.0};
    case ActivationKind::softplus: return {kind, 1.0, 0};
    default: return {kind, 0, 0};
  }
}

template <class T> struct Problem {
  using A = Compute<T>;
  Shape shape;
  Activation activation;
  std::vector<T> weight;
  std::vector<A> head, bias, head_bias, x, cotangent;

  Problem(const Shape& s, ActivationKind kind, std::uint64_t seed = 1)
      : shape(s), activation(default_activation(kind)) {
    Random random(seed);
    const double fan = 1 / std::sqrt(1.0 + static_cast<double>(s.dim));
    weight = random_vector<T>(random, s.networks * s.neurons * s.dim, 1.5 * fan);
    head = random_vector<A>(random, s.networks * s.heads * s.neurons);
    if (s.bias) bias = random_vector<A>(random, s.networks * s.neurons, 0.5);
    if (s.head_bias) head_bias = random_vector<A>(random, s.networks * s.heads);
    x = random_vector<A>(random, (s.shared_x ? 1 : s.networks) * s.samples * s.row_size());
    cotangent = random_vector<A>(random, s.rows() * s.heads);
  }

  Network<T> network() const {
    return {weight.data(),
            head.data(),
            shape.bias ? bias.data() : nullptr,
            shape.head_bias ? head_bias.data() : nullptr,
            shape.networks,
            shape.neurons,
            shape.dim,
            shape.patches,
            shape.heads,
            activation};
  }
  Samples<A> samples() const {
    return {x.data(), shape.samples, shape.shared_x ? 0 : shape.samples * shape.row_size()};
  }
  NaiveNetwork naive() const {
    return {widened(weight), widened(head), widened(bias), widened(head_bias), shape.networks,
            shape.neurons,   shape.dim,     shape.patches, shape.heads,        activation};
  }
  // Index of row (network, sample) in x.
  std::int64_t x_offset(std::int64_t network, std::int64_t sample) const {
    return ((shape.shared_x ? 0 : network * shape.samples) + sample) * shape.row_size();
  }
};

// Rounding of a sum in the compute type, with room for a few hundred terms.
template <class A> constexpr double rounding() { return sizeof(A) == 4 ? 2e-5 : 1e-12; }

template <class T> const char* type_name() {
  return sizeof(T) == 8 ? "float64" : sizeof(T) == 4 ? "float32" : "bfloat16";
}

}  // namespace bk::test
