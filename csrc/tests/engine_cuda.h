// The CUDA kernels on the host.
#pragma once

#include "../cuda/engine.h"
#include "../cuda/gram_walk.cuh"
#include "emulated.h"
#include "problem.h"

namespace bk::test::engine {

inline cuda::Arithmetic arithmetic = {};  // of all that is launched

inline cuda::Launch launch_with(std::vector<unsigned char>& workspace) {
  return {nullptr, workspace.data(), arithmetic};
}

template <class T> void two_layer(const Network<T>& net, const Samples<Compute<T>>& samples, Compute<T>* f) {
  auto memory = workspace_of(cuda::two_layer_workspace(net, samples));
  expect_launched(cuda::two_layer(net, samples, f, launch_with(memory)), "two_layer");
}

template <class T>
void two_layer_value_and_grad(const Network<T>& net, const Samples<Compute<T>>& samples, const Compute<T>* cotangent,
                              Compute<T>* f, Compute<T>* gx) {
  auto memory = workspace_of(cuda::two_layer_value_and_grad_workspace(net, samples));
  const int error = cuda::two_layer_value_and_grad(net, samples, cotangent, f, gx, launch_with(memory));
  expect_launched(error, "two_layer_value_and_grad");
}

template <class T>
void two_layer_parameter_grad(const Network<T>& net, const Samples<Compute<T>>& samples, const Compute<T>* cotangent,
                              Compute<T>* gw, Compute<T>* ga, Compute<T>* gb) {
  auto memory = workspace_of(cuda::two_layer_parameter_grad_workspace(net, samples));
  const int error = cuda::two_layer_parameter_grad(net, samples, cotangent, gw, ga, gb, launch_with(memory));
  expect_launched(error, "two_layer_parameter_grad");
}

template <class A> void pgd_step(Norm norm, const PgdStep<A>& step) {
  const int error = norm == Norm::l2 ? cuda::l2_pgd_step(step, nullptr) : cuda::linf_pgd_step(step, nullptr);
  expect_launched(error, "pgd_step");
}

template <class T>
void pgd(const Network<T>& net, const Samples<Compute<T>>& x0, const Attack<Compute<T>>& attack,
         const AttackResult<Compute<T>>& result) {
  auto memory = workspace_of(cuda::pgd_workspace(net, x0, attack, result));
  expect_launched(cuda::pgd(net, x0, attack, result, launch_with(memory)), "pgd");
}

// One set of instructions only.
template <class Body> void each_level(Body body, bool = true) { body(); }

inline std::vector<Shape> two_layer_shapes() {
  return {
      {1, 3, 601, 5, 1, 1},   // split along d
      {1, 2, 3, 1031, 1, 1},  // split along the neurons
      {1, 1030, 3, 2, 1, 1},  // split along the samples
      {1, 3, 2, 5, 70, 1},    // patches across tiles
      {1, 4, 6, 8, 1, 67},    // many heads
  };
}
inline std::vector<Shape> pgd_shapes() {
  return {
      {1, 2, 1100, 3},  // a block per row, products split along d
      {2, 2, 3, 5, 70, 1},
      {1, 3, 4, 6, 1, 66},  // patches and heads across tiles
  };
}
// A step is ten launches, each of which starts all fibers of a block.
constexpr std::int64_t kHalfSparseSteps = 3;
template <class T> std::vector<ActivationKind> half_sparse_kinds() {
  switch (sizeof(T)) {
    case sizeof(double): return {ActivationKind::leaky_relu};
    case sizeof(float): return {ActivationKind::relu};
    default: return {ActivationKind::identity};
  }
}
template <class T> std::vector<Shape> half_sparse_shapes() {
  std::vector<Shape> shapes = {
      {2, 3, 300, 80, 1, 1, false, false},  // three spans of coordinates
      {1, 9, 5, 40, 8},                     // patches across tiles
  };
  if (sizeof(T) != sizeof(double)) return shapes;
  const Shape others[] = {{1, 1, 1, 1}, {0, 3, 4, 5}, {2, 0, 4, 5},
                          {2, 3, 0, 5}, {2, 3, 4, 0}, {2, 2, 16, 15, 3, 1, true, true, true}};
  shapes.insert(shapes.end(), std::begin(others), std::end(others));
  return shapes;
}
// Flips in slabs, and a gradient in parts.
template <class T> std::vector<Shape> half_sparse_slabs() { return {{1, 2, 10, 1030}}; }
inline std::vector<Shape> gram_shapes() {
  return {
      {1, 2, 5, 350, 3},  // a block per row
      {1, 2, 3, 270, 4, 2},
      {1, 3, 520, 6},  // products split along d
  };
}
template <class T> std::vector<ActivationKind> gram_kinds() {
  if (sizeof(T) == sizeof(BFloat16)) return {ActivationKind::relu};
  if (sizeof(T) == sizeof(float)) return {ActivationKind::leaky_relu, ActivationKind::tanh};
  return {ActivationKind::relu, ActivationKind::leaky_relu, ActivationKind::tanh};
}
// A row of more gates than the walk can count is refused before anything of it is touched.
inline void check_gram_limits() {
  cuda::GramWalk<float> walk = {};
  walk.rows.networks = walk.rows.samples = 1;
  walk.network.patches = std::int64_t{1} << 20;
  walk.network.neurons = std::int64_t{1} << 11;
  expect(cuda::walk_rows(walk, nullptr) == cudaErrorInvalidValue, "gram, more gates than there are numbers for");
  expect(cuda::step_rows(walk, 0, nullptr) == cudaErrorInvalidValue, "gram, more neurons than there are numbers for");
}
// Rows and dimensions of pgd_step.
inline std::vector<std::pair<std::int64_t, std::int64_t>> pgd_step_shapes() { return {{3, 1025}, {3, 3000}}; }

}  // namespace bk::test::engine
