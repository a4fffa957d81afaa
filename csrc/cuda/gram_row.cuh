// One row of a walk in neuron space, as the kernels of gram_rows.cu and gram_walk.cu see it.
#pragma once

#include "gate.cuh"
#include "gram_walk.cuh"
#include "step.cuh"

namespace bk::cuda {

constexpr double kNear = 65536;  // sizes between 1/kNear and kNear need no unit

// The power of two near `size`, which is a normal number as is its inverse; 1 where that is near enough.
template <class A> __device__ double unit_near(double size) {
  constexpr int kMost = sizeof(A) == sizeof(float) ? 120 : 1000;
  if (!(size > 0) || !is_finite(size) || (size < kNear && size > 1 / kNear)) return 1;
  const int exponent = ::ilogb(size);
  return ::ldexp(1.0, exponent > kMost ? kMost : exponent < -kMost ? -kMost : exponent);
}

template <class T> struct Row {
  using A = Compute<T>;
  int64_t row, network, size, m;
  A weight_unit, weight_scale, head_scale;  // head_scale: 1 / head_unit
  const A* head;                            // (k, m)
  const A* norms;

  __device__ Row(const GramWalk<T>& p, int64_t which)
      : row(which),
        network(which / p.rows.samples),
        size(p.size()),
        m(p.network.neurons),
        weight_unit(p.weight_unit[network]),
        weight_scale(p.weight_scale[network]),
        head_scale(A(1) / p.head_unit[network]),
        head(p.network.head + network * p.network.heads * m),
        norms(p.norms + network * m) {}

  template <class Number> __device__ Number* of(Number* all) const { return all + row * size; }
  __device__ A head_of(int64_t c, int64_t neuron) const { return head[c * m + neuron] * head_scale; }
  __device__ A norm(int64_t neuron) const { return norms[neuron] * weight_scale; }
};

// visit(index, neuron) for the thread's share of a row.
template <class Team, class Visit>
__device__ void each_neuron(const Team& team, int64_t patches, int64_t neurons, Visit visit) {
#pragma unroll 1
  for (int64_t p = 0; p < patches; ++p) {
    team.for_each(neurons, [&](int64_t neuron) { visit(p * neurons + neuron, neuron); });
  }
}

// Near the longest way that is ever added to D and C: δ = shrink · (start · (start − x0) + unit · C w).
template <class T> __device__ double row_unit(const GramWalk<T>& p, int64_t row, double start_norm) {
  const double step = p.rows.threat.step[row];
  return unit_near<Compute<T>>(start_norm > step ? start_norm : step);
}

// ‖start − x0‖.
template <class T, class Team> __device__ double start_norm(const GramWalk<T>& p, const Team& team, int64_t row) {
  using A = Compute<T>;
  if (p.start_hidden == nullptr) return 0;
  const A* delta = p.rows.delta + row * p.rows.dim;
  const auto value = [=](int64_t i) { return delta[i]; };
  const A peak = peak_of<A>(team, p.rows.dim, value);
  return peak > A(0) && is_finite(peak) ? peak * norm_over_peak(team, p.rows.dim, peak, value) : peak;
}

}  // namespace bk::cuda
