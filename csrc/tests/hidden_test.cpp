// The fused hidden layer: every array it can write, alone and together, against plain loops.
#include "../cuda/hidden.cuh"

#include "emulated.h"
#include "host_library.h"
#include "problem.h"

namespace bk::test {
namespace {

struct Outputs {
  std::vector<double> gated, values, scales, heads, biases;
  bool operator==(const Outputs& other) const {
    return same_bits(gated, other.gated) && same_bits(values, other.values) && same_bits(scales, other.scales) &&
           same_bits(heads, other.heads) && same_bits(biases, other.biases);
  }
};

// out[o] = Σ_p parts[p][o]
Vector summed(const std::vector<double>& parts, std::int64_t outputs) {
  Vector sums(static_cast<std::size_t>(outputs), 0);
  for (std::size_t i = 0; i < parts.size(); ++i) sums[i % sums.size()] += parts[i];
  return sums;
}

// A range of neurons of every network.
void check(const Shape& s, ActivationKind kind, std::int64_t first, std::int64_t count,
           const cuda::Arithmetic& arithmetic = {}) {
  const Problem<double> problem(s, kind);
  Random random(9);
  const std::vector<double> norms = random_vector<double>(random, s.networks * s.neurons);
  const std::int64_t rows = s.samples * s.patches, row_tiles = cuda::ceil_div(rows, cuda::kTile);
  const std::int64_t neuron_tiles = cuda::ceil_div(count, cuda::kTile);
  const auto produce = [&] {
    Outputs out{
        unwritten<double>(s.networks * rows * count), unwritten<double>(neuron_tiles * s.networks * rows * s.heads),
        unwritten<double>(neuron_tiles * s.networks * rows),
        unwritten<double>(row_tiles * s.networks * s.heads * count), unwritten<double>(row_tiles * s.networks * count)};
    auto parts = unwritten<double>(cuda::hidden_workspace(s.networks, rows, count, s.dim));
    const cuda::Hidden<double> layer{problem.network(),
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
    expect_launched(cuda::hidden(layer, parts.data(), nullptr), s.text());
    return out;
  };
  const Outputs got =
      under_all_orders(s.text(), produce, [](const auto& one, const auto& other) { return one == other; });

  const NaiveNetwork net = problem.naive();
  Vector gated, values(s.rows() * s.heads), scales(s.rows()), heads(s.networks * s.heads * count),
      biases(s.networks * count);
  for (std::int64_t row = 0; row < s.rows(); ++row) {
    const std::int64_t network = row / s.samples;
    const double* x = problem.x.data() + row * s.row_size();
    const double* r = problem.cotangent.data() + row * s.heads;
    const Vector all = naive_gated(net, network, x, r);
    for (std::int64_t p = 0; p < s.patches; ++p) {
      for (std::int64_t j = 0; j < count; ++j) {
        const double u = all[p * s.neurons + first + j];
        const double value = net.phi(net.preactivation(network, x, p, first + j));
        gated.push_back(u);
        scales[row] += std::fabs(u) * norms[network * s.neurons + first + j];
        biases[network * count + j] += u;
        for (std::int64_t c = 0; c < s.heads; ++c) {
          values[row * s.heads + c] += net.a(network, c, first + j) * value;
          heads[(network * s.heads + c) * count + j] += r[c] * value;
        }
      }
    }
  }
  expect_close(s.text() + " gated", got.gated, gated, 1e-12);
  expect_close(s.text() + " values", summed(got.values, s.rows() * s.heads), values, 1e-12);
  expect_close(s.text() + " scales", summed(got.scales, s.rows()), scales, 1e-12);
  expect_close(s.text() + " heads", summed(got.heads, s.networks * s.heads * count), heads, 1e-12);
  expect_close(s.text() + " biases", summed(got.biases, s.networks * count), biases, 1e-12);
}

}  // namespace
}  // namespace bk::test

int main() {
  using namespace bk;
  test::check({1, 3, 5, 7}, ActivationKind::relu, 0, 7);
  test::check({2, 33, 5, 90, 2, 3}, ActivationKind::leaky_relu, 0, 90);
  test::check({2, 33, 5, 90, 2, 3}, ActivationKind::gelu, 11, 67);
  test::check({2, 2, 530, 70, 1, 2}, ActivationKind::softplus, 3, 66);  // split along d
  const test::HostLibrary library;
  test::check({2, 33, 35, 90, 2, 3}, ActivationKind::leaky_relu, 0, 90, library.arithmetic());
  test::check({2, 33, 35, 90, 2, 3}, ActivationKind::gelu, 11, 67, library.arithmetic());
  test::expect(library.calls == 4, "a library makes H, in two orders of the threads");
  return test::finish("hidden");
}
