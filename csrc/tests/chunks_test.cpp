// How problems are cut: every sample and neuron once, workspaces bounded at any size, results right across the seams.
#include "../cuda/chunks.h"

#include "../cuda/engine.h"
#include "emulated.h"
#include "problem.h"

namespace bk::test {
namespace {

using cuda::Chunk;

template <class T>
Network<T> network_of(std::int64_t networks, std::int64_t neurons, std::int64_t dim, std::int64_t patches,
                      std::int64_t heads) {
  return {nullptr, nullptr, nullptr, nullptr, networks, neurons, dim, patches, heads, {ActivationKind::relu, 0, 0}};
}

constexpr std::int64_t kHuge = std::int64_t{1} << 33;
const Shape kShapes[] = {
    {1, 100, 10'000, 500},
    {1, 1'000'000, 100, 1'000'000},
    {1, kHuge, 1, 1},
    {kHuge, 1, 1, 1},
    {10'000, 20, 30, 40},
    {3, 10'000, 5, 7, 9, 100},
    {1, 1, 1, kHuge},
    {1000, 1, 10, 100'000},
    {100'000, 1, 10, 3, 1, 1000},
    {1, 0, 5, 5},
    {7, 0, 5, 5},
    {0, 4, 5, 5},
    {1, 50'000, 784, 512, 49, 10},
    {1, 100, 1'000'000, 50},
    {2, 1, 5, 10, 8191},
    {1, 1, 4'000'000, 3},
    {1, 100'000, 16'000, 20'000},
    {1, 100'000, 1000, 2000},
    {3, 9000, 500, 20'000},
};

template <class T> void check_cover() {
  for (const Shape& s : kShapes) {
    const auto net = network_of<T>(s.networks, s.neurons, s.dim, s.patches, s.heads);
    for (const bool copies_x : {false, true}) {
      const Chunk most = cuda::largest_chunk(net, s.samples, copies_x);
      if (s.rows() / std::max<std::int64_t>(1, most.networks * most.samples) > 1'000'000) continue;
      std::int64_t next = 0;
      cuda::for_each_chunk(s.networks, s.samples, most, [&](const Chunk& chunk) {
        expect(chunk.network * s.samples + chunk.sample == next, s.text() + ": chunks leave a gap");
        expect(chunk.networks <= most.networks && chunk.samples <= most.samples, s.text() + ": a chunk grew");
        expect(chunk.networks == 1 || chunk.samples == s.samples, s.text() + ": a chunk is not contiguous");
        next += chunk.networks * chunk.samples;
        return 0;
      });
      expect(next == s.rows(), s.text() + ": chunks do not cover the samples");
    }
  }
}

// The bound of engine.h; beyond it only what one sample needs: its patches, coordinates and neurons.
template <class T> void check_workspace_bound(const Shape& s) {
  const auto net = network_of<T>(s.networks, s.neurons, s.dim, s.patches, s.heads);
  const Samples<float> samples{nullptr, s.samples, s.samples * s.row_size()};
  Attack<float> attack{{Norm::l2, Loss::margin, Direction::exact, Floor::added, 0, 1, Keep::worst, {}, {}, 20, 0, 1},
                       nullptr,
                       nullptr,
                       nullptr};
  const std::size_t bound =
      sizeof(float) * static_cast<std::size_t>(cuda::kWorkspaceElements + 8 * (s.patches + s.row_size() + s.neurons));
  expect(cuda::two_layer_workspace(net, samples) <= bound, s.text() + ": workspace of two_layer");
  expect(cuda::two_layer_value_and_grad_workspace(net, samples) <= bound, s.text() + ": workspace of value_and_grad");
  expect(cuda::two_layer_parameter_grad_workspace(net, samples) <= bound, s.text() + ": workspace of parameter_grad");
  expect(cuda::pgd_workspace(net, samples, attack, {}) <= bound, s.text() + ": workspace of pgd");
  attack.algorithm = Algorithm::half_sparse;
  expect(s.heads > 1 || cuda::pgd_workspace(net, samples, attack, {}) <= bound, s.text() + ": half-sparse pgd");
}

template <class T> void check_workspace_bounds() {
  for (const Shape& shape : kShapes) check_workspace_bound<T>(shape);
  for (std::int64_t heads = 1; heads <= 200; ++heads) {
    check_workspace_bound<T>({1, 100'000, 256, 512, 1, heads});  // as many points and neurons as a chunk has
    check_workspace_bound<T>({1, 100'000, 500, 20'000, 1, heads});
  }
}

template <class A> struct Results {
  std::vector<A> f, gx, gw, ga, gb, x;
};

void attack_targets(const Problem<double>& problem, Algorithm algorithm, std::vector<double>& x) {
  const Shape& s = problem.shape;
  // A squared loss, so that targets of any number of heads do.
  Threat<double> threat = {Norm::l2,
                           Loss::squared,
                           Direction::exact,
                           Floor::added,
                           0,
                           1,
                           Keep::worst,
                           {nullptr, 0.5},
                           {nullptr, 0.2},
                           2,
                           -100,
                           100};
  const std::vector<double> radius(static_cast<std::size_t>(s.rows()), 0.5);
  threat.radius.values = radius.data();
  const Attack<double> attack{threat, problem.cotangent.data(), nullptr, nullptr, algorithm};
  auto logits = unwritten<double>(s.rows() * s.heads), margin = unwritten<double>(s.rows());
  const AttackResult<double> result{x.data(), logits.data(), margin.data(), nullptr};
  auto memory = workspace_of(cuda::pgd_workspace(problem.network(), problem.samples(), attack, result));
  const int error = cuda::pgd(problem.network(), problem.samples(), attack, result, {nullptr, memory.data()});
  expect_launched(error, s.text());
}

Results<double> run_engine(const Problem<double>& problem) {
  const Shape& s = problem.shape;
  const Network<double> net = problem.network();
  const Samples<double> samples = problem.samples();
  Results<double> out{unwritten<double>(s.rows() * s.heads),
                      unwritten<double>(s.rows() * s.row_size()),
                      unwritten<double>(s.networks * s.neurons * s.dim),
                      unwritten<double>(s.networks * s.heads * s.neurons),
                      unwritten<double>(s.networks * s.neurons),
                      unwritten<double>(s.rows() * s.row_size())};
  auto memory = workspace_of(cuda::two_layer_value_and_grad_workspace(net, samples));
  const double* r = problem.cotangent.data();
  int error = cuda::two_layer_value_and_grad(net, samples, r, out.f.data(), out.gx.data(), {nullptr, memory.data()});
  memory = workspace_of(cuda::two_layer_parameter_grad_workspace(net, samples));
  error |= cuda::two_layer_parameter_grad(net, samples, r, out.gw.data(), out.ga.data(), out.gb.data(),
                                          {nullptr, memory.data()});
  expect_launched(error, s.text());
  attack_targets(problem, Algorithm::dense, out.x);
  return out;
}

void check_seams() {
  const Shape shapes[] = {
      {1, 130, 3, 70}, {5, 20, 3, 5},  {2, 35, 2, 3, 2, 2}, {3, 9, 2, 20, 1, 1, true, true, true},
      {3, 0, 3, 4},    {1, 2, 600, 3}, {1, 3, 2, 5, 70},
  };
  for (const Shape& shape : shapes) {
    const Problem<double> problem(shape, ActivationKind::softplus);
    const Results<double> whole = run_engine(problem);
    for (const cuda::ChunkLimits limits : {cuda::ChunkLimits{64, 64 * 64, 256}, cuda::ChunkLimits{128, 1000, 64}}) {
      cuda::chunk_limits = limits;
      const Results<double> parts = run_engine(problem);
      cuda::chunk_limits = cuda::kChunkLimits;
      expect_close(shape.text() + " f in chunks", parts.f, whole.f, 1e-12);
      expect_close(shape.text() + " gx in chunks", parts.gx, whole.gx, 1e-12);
      expect_close(shape.text() + " gw in chunks", parts.gw, whole.gw, 1e-12);
      expect_close(shape.text() + " ga in chunks", parts.ga, whole.ga, 1e-12);
      expect_close(shape.text() + " gb in chunks", parts.gb, whole.gb, 1e-12);
      expect_close(shape.text() + " x in chunks", parts.x, whole.x, 1e-10);
    }
  }
}

// Networks in several chunks; more gates of a network than a chunk may have.
void check_half_sparse_seams() {
  for (const Shape& shape : {Shape{5, 20, 3, 5}, Shape{2, 35, 2, 520, 2}}) {
    const Problem<double> problem(shape, ActivationKind::relu);
    auto whole = unwritten<double>(shape.rows() * shape.row_size()), parts = whole;
    attack_targets(problem, Algorithm::half_sparse, whole);
    cuda::chunk_limits = {64, 64 * 64, 256};
    attack_targets(problem, Algorithm::half_sparse, parts);
    cuda::chunk_limits = cuda::kChunkLimits;
    expect_close(shape.text() + " half-sparse x in chunks", parts, whole, 1e-10);
  }
}

}  // namespace
}  // namespace bk::test

int main() {
  bk::test::check_cover<float>();
  bk::test::check_cover<bk::BFloat16>();
  bk::test::check_workspace_bounds<float>();
  bk::test::check_workspace_bounds<bk::BFloat16>();
  bk::test::check_seams();
  bk::test::check_half_sparse_seams();
  return bk::test::finish("chunks");
}
