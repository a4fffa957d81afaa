// The contract's formulas in float64, one loop per index: what the kernels are compared with.
#pragma once

#include <cstdint>
#include <vector>

#include "../model/network.h"

namespace bk::test {

using Vector = std::vector<double>;

// A batch of networks in float64.
struct NaiveNetwork {
  Vector weight, head, bias, head_bias;  // as in Network; bias and head_bias may be empty
  std::int64_t networks, neurons, dim, patches, heads;
  Activation activation;

  double phi(double h) const { return AnyActivation{activation}.value(h); }
  double gate(double h) const { return AnyActivation{activation}.first(h); }
  double w(std::int64_t network, std::int64_t j, std::int64_t t) const {
    return weight[(network * neurons + j) * dim + t];
  }
  double a(std::int64_t network, std::int64_t c, std::int64_t j) const {
    return head[(network * heads + c) * neurons + j];
  }
  // h_pj = <w_j, x_p> + b_j for one sample.
  double preactivation(std::int64_t network, const double* x, std::int64_t p, std::int64_t j) const {
    double h = bias.empty() ? 0 : bias[network * neurons + j];
    for (std::int64_t t = 0; t < dim; ++t) h += w(network, j, t) * x[p * dim + t];
    return h;
  }
};

// f (k) = c + Σ_p Σ_j a_j φ(h_pj)
inline Vector naive_value(const NaiveNetwork& net, std::int64_t network, const double* x) {
  Vector f(net.heads, 0);
  for (std::int64_t c = 0; c < net.heads; ++c) {
    if (!net.head_bias.empty()) f[c] = net.head_bias[network * net.heads + c];
  }
  for (std::int64_t p = 0; p < net.patches; ++p) {
    for (std::int64_t j = 0; j < net.neurons; ++j) {
      const double value = net.phi(net.preactivation(network, x, p, j));
      for (std::int64_t c = 0; c < net.heads; ++c) f[c] += net.a(network, c, j) * value;
    }
  }
  return f;
}

// U_pj = φ'(h_pj) Σ_c R_c a_cj, (P, m)
inline Vector naive_gated(const NaiveNetwork& net, std::int64_t network, const double* x, const double* cotangent) {
  Vector gated(net.patches * net.neurons, 0);
  for (std::int64_t p = 0; p < net.patches; ++p) {
    for (std::int64_t j = 0; j < net.neurons; ++j) {
      double mix = 0;
      for (std::int64_t c = 0; c < net.heads; ++c) mix += cotangent[c] * net.a(network, c, j);
      gated[p * net.neurons + j] = net.gate(net.preactivation(network, x, p, j)) * mix;
    }
  }
  return gated;
}

// g (P·d) = U W
inline Vector naive_input_grad(const NaiveNetwork& net, std::int64_t network, const Vector& gated) {
  Vector g(net.patches * net.dim, 0);
  for (std::int64_t p = 0; p < net.patches; ++p) {
    for (std::int64_t j = 0; j < net.neurons; ++j) {
      for (std::int64_t t = 0; t < net.dim; ++t)
        g[p * net.dim + t] += gated[p * net.neurons + j] * net.w(network, j, t);
    }
  }
  return g;
}

// One sample's share of gw (m, d), ga (k, m), gb (m), added.
inline void naive_parameter_grad(const NaiveNetwork& net, std::int64_t network, const double* x,
                                 const double* cotangent, double* gw, double* ga, double* gb) {
  const Vector gated = naive_gated(net, network, x, cotangent);
  for (std::int64_t p = 0; p < net.patches; ++p) {
    for (std::int64_t j = 0; j < net.neurons; ++j) {
      const double u = gated[p * net.neurons + j], value = net.phi(net.preactivation(network, x, p, j));
      gb[j] += u;
      for (std::int64_t t = 0; t < net.dim; ++t) gw[j * net.dim + t] += u * x[p * net.dim + t];
      for (std::int64_t c = 0; c < net.heads; ++c) ga[c * net.neurons + j] += cotangent[c] * value;
    }
  }
}

}  // namespace bk::test
