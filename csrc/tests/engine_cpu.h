// The CPU kernels. They take their workspaces from malloc, which the sanitizer fills with NaN: see below.
#pragma once

#include <atomic>
#include <thread>
#include <utility>

#include "../cpu/engine.h"
#include "problem.h"

// Read by AddressSanitizer as the program starts. Bytes of 0xFF are NaN in every number type.
extern "C" const char* __asan_default_options() { return "max_malloc_fill_size=1073741824:malloc_fill_byte=255"; }

namespace bk::test {

using TaskBody = void (*)(void* context, std::int64_t task);

inline void tasks_in_order(std::int64_t tasks, TaskBody body, void* context) {
  for (std::int64_t task = 0; task < tasks; ++task) body(context, task);
}
inline void tasks_in_reverse(std::int64_t tasks, TaskBody body, void* context) {
  for (std::int64_t task = tasks; task > 0; --task) body(context, task - 1);
}
constexpr int kTestThreads = 3;
inline void tasks_in_threads(std::int64_t tasks, TaskBody body, void* context) {
  std::atomic<std::int64_t> next{0};
  std::vector<std::thread> threads;
  for (int i = 0; i < kTestThreads; ++i) {
    threads.emplace_back([&] {
      for (std::int64_t task; (task = next++) < tasks;) body(context, task);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// How the calls below run their tasks.
inline cpu::Parallel pool{tasks_in_order, 1};

// Runs `produce` (→ a tuple or vector of outputs) with its tasks in several orders and in threads; the bits must not
// depend on them.
template <class Produce, class Same> auto under_all_orders(const std::string& what, Produce produce, Same same) {
  auto first = produce();
  for (const auto for_each : {tasks_in_reverse, tasks_in_threads}) {
    pool = {for_each, kTestThreads};
    expect(same(first, produce()), what + ": the result depends on how the tasks run");
  }
  pool = {tasks_in_order, 1};
  return first;
}

namespace engine {

template <class T> void two_layer(const Network<T>& net, const Samples<Compute<T>>& samples, Compute<T>* f) {
  cpu::two_layer(net, samples, f, pool);
}

template <class T>
void two_layer_value_and_grad(const Network<T>& net, const Samples<Compute<T>>& samples, const Compute<T>* cotangent,
                              Compute<T>* f, Compute<T>* gx) {
  cpu::two_layer_value_and_grad(net, samples, cotangent, f, gx, pool);
}

template <class T>
void two_layer_parameter_grad(const Network<T>& net, const Samples<Compute<T>>& samples, const Compute<T>* cotangent,
                              Compute<T>* gw, Compute<T>* ga, Compute<T>* gb) {
  cpu::two_layer_parameter_grad(net, samples, cotangent, gw, ga, gb, pool);
}

template <class A> void pgd_step(Norm norm, const PgdStep<A>& step) {
  norm == Norm::l2 ? cpu::l2_pgd_step(step, pool) : cpu::linf_pgd_step(step, pool);
}

template <class T>
void pgd(const Network<T>& net, const Samples<Compute<T>>& x0, const Attack<Compute<T>>& attack,
         const AttackResult<Compute<T>>& result) {
  cpu::pgd(net, x0, attack, result, pool);
}

template <class A> void train(const Training<A>& task) { cpu::train(task, pool); }

// Runs `body` at every SIMD level of this machine. Tiles serve products of whole matrices: without them amx is v4.
template <class Body> void each_level(Body body, bool uses_tiles = true) {
  for (const char* level : {"base", "v3", "v4", "amx"}) {
    if ((!uses_tiles && std::strcmp(level, "amx") == 0) || !cpu::set_simd_level(level)) continue;
    std::printf("level %s\n", level);
    body();
  }
}

// A register holds 2 to 16 numbers, a panel 1 to 4 registers of samples; up to half a register of samples are taken as
// rows where d fills one. Calls of 2²¹ multiply-adds or more use threads.
inline std::vector<Shape> two_layer_shapes() {
  std::vector<Shape> shapes = {
      {1, 63, 64, 11},
      {1, 64, 65, 12},
      {1, 127, 63, 13, 2},
      {1, 129, 15, 2, 1, 13},
      {1, 300, 3, 5, 2},       // more panels than a tile of gw meets at a time
      {1, 3, 257, 127, 2, 2},  // blocks of dimensions, tiles of neurons
      {2, 9, 513, 129, 1, 3, false, false},
      {1, 2, 5, 300, 3, 7},
      {1, 4, 6, 8, 1, 67},
      {1, 150, 80, 100, 1, 2},                  // panels in threads
      {4, 20, 40, 90, 2, 1, true, true, true},  // networks in threads
      {1, 2, 600, 1024, 1, 2},                  // slabs in threads
      {1, 17, 600, 1024},                       // those of several panels
      {1, 0, 1024, 1024},
  };
  std::int64_t turn = 0;
  for (const std::int64_t samples : {1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33}) {
    for (const std::int64_t dim : {3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 65}) {
      const std::int64_t neurons = 13 + 5 * turn % 23, patches = 1 + turn % 2, heads = 1 + turn % 3;
      shapes.push_back({1, samples, dim, neurons, patches, heads, turn % 5 != 0, turn % 7 != 0});
      ++turn;
    }
  }
  return shapes;
}
inline std::vector<Shape> pgd_shapes() {
  return {
      {1, 2, 33, 129, 2},      {2, 8, 17, 15, 1, 2}, {1, 65, 16, 17}, {1, 70, 60, 101},  // panels in threads
      {4, 20, 70, 80, 1, 2},                                                             // networks in threads
      {1, 3, 600, 1024, 1, 2},                                                           // slabs in threads
      {1, 2, 1, 16400, 1, 2},  // more neurons than what is kept of them between two passes
  };
}
constexpr std::int64_t kHalfSparseSteps = 8;
template <class T> std::vector<ActivationKind> half_sparse_kinds() {
  return {ActivationKind::identity, ActivationKind::relu, ActivationKind::leaky_relu};
}
template <class T> std::vector<Shape> half_sparse_shapes() {
  return {
      {1, 1, 1, 1},
      {0, 3, 4, 5},
      {2, 0, 4, 5},
      {2, 3, 0, 5},
      {2, 3, 4, 0},
      {3, 1, 2, 5},
      {1, 70, 3, 67},
      {1, 5, 17, 129},
      {2, 8, 16, 15, 3, 1, true, true, true},
      {4, 20, 50, 80, 1, 1, false, false},
      {1, 9, 70, 300, 2},  // panels in threads
  };
}
// Slabs in threads: of one panel, and in double of several.
template <class T> std::vector<Shape> half_sparse_slabs() {
  std::vector<Shape> shapes = {{1, 3, 600, 1024}};
  if (sizeof(T) == sizeof(double)) shapes.insert(shapes.begin(), {1, 19, 600, 1024});
  return shapes;
}
inline std::vector<Shape> gram_shapes() {
  return {
      {1, 70, 3, 67},  // several blocks of rows
      {4, 20, 50, 80, 1, 1, false, false},
      {1, 150, 300, 210},  // rows in groups, two blocks of depth; tiles
  };
}
inline void check_gram_limits() {}
template <class> std::vector<ActivationKind> gram_kinds() {
  return {ActivationKind::identity, ActivationKind::relu, ActivationKind::leaky_relu, ActivationKind::smooth_leaky_relu,
          ActivationKind::tanh};
}
inline std::vector<std::pair<std::int64_t, std::int64_t>> pgd_step_shapes() {
  std::vector<std::pair<std::int64_t, std::int64_t>> shapes = {{5, 20000}, {6000, 7}, {3, 1025}};  // two in threads
  for (const std::int64_t dim : {3, 4, 5, 7, 8, 9, 15, 16, 17, 63, 64, 65, 127, 128, 129, 255, 257}) {
    shapes.push_back({3, dim});
  }
  return shapes;
}

}  // namespace engine
}  // namespace bk::test
