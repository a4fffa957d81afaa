// The fused hidden layer: every array it can write, alone and together, against plain loops.
#include "../cuda/hidden.cuh"

#include "emulated.h"
#include "host_library.h"
#include "problem.h"

namespace bk::test {
namespace {

template <class A> struct Outputs {
  std::vector<A> gated, values, scales, heads, biases;
  bool operator==(const Outputs& other) const {
    return same_bits(gated, other.gated) && same_bits(values, other.values) && same_bits(scales, other.scales) &&
           same_bits(heads, other.heads) && same_bits(biases, other.biases);
  }
};

// out[o] = Σ_p parts[p][o]
template <class A> Vector summed(const std::vector<A>& parts, std::int64_t outputs) {
  Vector sums(static_cast<std::size_t>(outputs), 0);
  for (std::size_t i = 0; i < parts.size(); ++i) sums[i % sums.size()] += parts[i];
  return sums;
}

// A range of neurons of every network.
template <class T>
void check(const Shape& s, ActivationKind kind, std::int64_t first, std::int64_t count,
           const cuda::Arithmetic& arithmetic = {}) {
  using A = Compute<T>;
  const Problem<T> problem(s, kind);
  Random random(9);
  const std::vector<A> norms = random_vector<A>(random, s.networks * s.neurons);
  const std::int64_t rows = s.samples * s.patches, row_tiles = cuda::ceil_div(rows, cuda::kTile);
  const std::int64_t neuron_tiles = cuda::ceil_div(count, cuda::kTile);
  const auto produce = [&] {
    Outputs<A> out{unwritten<A>(s.networks * rows * count), unwritten<A>(neuron_tiles * s.networks * rows * s.heads),
                   unwritten<A>(neuron_tiles * s.networks * rows),
                   unwritten<A>(row_tiles * s.networks * s.heads * count),
                   unwritten<A>(row_tiles * s.networks * count)};
    auto parts = unwritten<A>(cuda::product_workspace(s.networks, rows, count, s.dim));
    const cuda::Hidden<T> layer{problem.network(),
                                problem.x.data(),
                                s.samples * s.row_size(),
                                s.samples,
                                first,
                                count,
                                problem.cotangent.data(),
                                norms.data(),
                                out.gated.data(),
                                out.values.data(),
                                out.scales.data(),
                                out.heads.data(),
                                out.biases.data(),
                                arithmetic};
    expect_launched(cuda::hidden(layer, out.gated.data(), parts.data(), nullptr), s.text());
    return out;
  };
  const Outputs<A> got =
      under_all_orders(s.text(), produce, [](const auto& one, const auto& other) { return one == other; });

  const NaiveNetwork net = problem.naive();
  const Vector points = widened(problem.x), cotangents = widened(problem.cotangent);
  Vector gated, values(s.rows() * s.heads), scales(s.rows()), heads(s.networks * s.heads * count),
      biases(s.networks * count);
  for (std::int64_t row = 0; row < s.rows(); ++row) {
    const std::int64_t network = row / s.samples;
    const double* x = points.data() + row * s.row_size();
    const double* r = cotangents.data() + row * s.heads;
    const Vector all = naive_gated(net, network, x, r);
    for (std::int64_t p = 0; p < s.patches; ++p) {
      for (std::int64_t j = 0; j < count; ++j) {
        const double u = all[p * s.neurons + first + j];
        const double value = net.phi(net.preactivation(network, x, p, first + j));
        gated.push_back(u);
        scales[row] += std::fabs(u) * static_cast<double>(norms[network * s.neurons + first + j]);
        biases[network * count + j] += u;
        for (std::int64_t c = 0; c < s.heads; ++c) {
          values[row * s.heads + c] += net.a(network, c, first + j) * value;
          heads[(network * s.heads + c) * count + j] += r[c] * value;
        }
      }
    }
  }
  const double tolerance = rounding<A>();
  expect_close(s.text() + " gated", got.gated, gated, tolerance);
  expect_close(s.text() + " values", summed(got.values, s.rows() * s.heads), values, tolerance);
  expect_close(s.text() + " scales", summed(got.scales, s.rows()), scales, tolerance);
  expect_close(s.text() + " heads", summed(got.heads, s.networks * s.heads * count), heads, tolerance);
  expect_close(s.text() + " biases", summed(got.biases, s.networks * count), biases, tolerance);
}

}  // namespace
}  // namespace bk::test

int main() {
  using namespace bk;
  test::check<double>({1, 3, 5, 7}, ActivationKind::relu, 0, 7);
  test::check<double>({2, 33, 5, 90, 2, 3}, ActivationKind::leaky_relu, 0, 90);
  test::check<double>({2, 33, 5, 90, 2, 3}, ActivationKind::gelu, 11, 67);
  test::check<double>({2, 2, 530, 70, 1, 2}, ActivationKind::softplus, 3, 66);  // split along d
  for (const auto kind : {ActivationKind::relu, ActivationKind::gelu}) {
    test::check<float>({2, 50, 18, 330, 3, 2}, kind, 11, 250, {cuda::Precision::exact, {}, 1});  // in large tiles
    test::check<BFloat16>({1, 35, 18, 120, 2, 2}, kind, 0, 120, {cuda::Precision::tf32, {}, 1});
  }
  const test::HostLibrary library;
  test::check<double>({2, 33, 35, 90, 2, 3}, ActivationKind::leaky_relu, 0, 90, library.arithmetic());
  test::check<double>({2, 33, 35, 90, 2, 3}, ActivationKind::gelu, 11, 67, library.arithmetic());
  test::expect(library.calls == 4, "a library makes H, in two orders of the threads");
  return test::finish("hidden");
}
