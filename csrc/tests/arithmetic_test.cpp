// How the emulated engine is told to multiply: large products by a library, to the same results, whatever the chunks; and in
// large tiles, to the same bits.
#include "../cuda/chunks.h"
#include "everything.h"
#include "host_library.h"

namespace bk::test {
namespace {

constexpr cuda::ChunkLimits kSmallChunks = {64, 64 * 64, 128};

template <class T> std::vector<Output> by_library(const Shape& s, const HostLibrary& library) {
  engine::arithmetic = library.arithmetic();
  const std::vector<Output> outputs = everything<T>(s);
  engine::arithmetic = {};
  return outputs;
}

template <class T> void check(const Shape& s, double tolerance) {
  const std::vector<Output> own = everything<T>(s);
  for (const cuda::ChunkLimits& limits : {cuda::kChunkLimits, kSmallChunks}) {
    cuda::chunk_limits = limits;
    const HostLibrary library;
    const std::vector<Output> got = by_library<T>(s, library);
    cuda::chunk_limits = cuda::kChunkLimits;
    const std::string name = std::string(type_name<T>()) + " " + s.text() + " by a library";
    expect(library.calls > 0, name + ": no product was left to it");
    for (std::size_t i = 0; i < own.size(); ++i) {
      expect_close(name + ": " + own[i].name, got[i].numbers, own[i].numbers, tolerance);
    }
  }
}

// W so large, or small, that W Wᵀ is out of range. Powers of two: the attack is the same.
void check_scales() {
  AttackCase<float> plain({1, 5, 300, 9}, ActivationKind::relu, Norm::l2, Loss::margin);
  plain.algorithm = Algorithm::gram;
  plain.trajectory = false;
  const Attacked<float> want = plain.run();
  for (const float scale : {0x1p70f, 0x1p-75f}) {
    AttackCase<float> scaled = plain;
    for (float& weight : scaled.problem.weight) weight *= scale;
    for (float& bias : scaled.problem.bias) bias *= scale;
    const HostLibrary library;
    engine::arithmetic = library.arithmetic();
    const Attacked<float> got = scaled.run();
    engine::arithmetic = {};
    expect_close("scaled W by a library", widened(got.x), widened(want.x), 1e-5);
  }
}

// Where the gates of one range of neurons are too few for a library, those of all together are not left to it either:
// there is no room for them.
void check_ranges() {
  AttackCase<float> attack({1, 3, 261, 200}, ActivationKind::relu, Norm::l2, Loss::margin);
  attack.algorithm = Algorithm::half_sparse;
  attack.trajectory = false;
  cuda::chunk_limits = kSmallChunks;
  const Attacked<float> want = attack.run();
  const HostLibrary library;
  engine::arithmetic = library.arithmetic();
  engine::arithmetic.library.least_flops = 2.0 * 261 * 100;
  const Attacked<float> got = attack.run();
  engine::arithmetic = {};
  cuda::chunk_limits = cuda::kChunkLimits;
  expect(library.calls == 0 && same_bits(got.x, want.x), "all neurons at once are left to a library");
}

void check_large_tiles() {
  for (const Algorithm algorithm : {Algorithm::dense, Algorithm::half_sparse}) {
    AttackCase<float> attack({2, 33, 6, 70, 2, 1}, ActivationKind::relu, Norm::l2, Loss::margin);
    attack.algorithm = algorithm;
    attack.trajectory = false;
    const Attacked<float> want = attack.run();
    engine::arithmetic.processors = 1;
    const Attacked<float> got = attack.run();
    engine::arithmetic = {};
    expect(same_bits(got.x, want.x) && same_bits(got.margin, want.margin), "an attack in large tiles");
  }
}

// A product that is below its size, and one of float that must be exact, are not left to a library that is no faster.
void check_wishes() {
  cuda::Arithmetic arithmetic = HostLibrary().arithmetic();
  arithmetic.library.least_flops = 2e6;
  expect(arithmetic.wants_library<float>(1, 100, 100, 100), "a large product is not left to a library");
  expect(!arithmetic.wants_library<float>(1, 100, 100, 99), "a small product is left to a library");
  expect(!arithmetic.wants_library<BFloat16>(1, 100, 100, 100), "an exact product by bfloat16 is left to a library");
  arithmetic.library.exact_floats = false;
  expect(!arithmetic.wants_library<float>(1, 100, 100, 100), "an exact product is left to a library");
  expect(arithmetic.wants_library<double>(1, 100, 100, 100), "a product of double is not left to a library");
  arithmetic.precision = cuda::Precision::tf32;
  expect(arithmetic.wants_library<float>(1, 100, 100, 100), "a product of tf32 is not left to a library");
  expect(!arithmetic.wants_library<BFloat16>(1, 100, 100, 100), "a product by bfloat16 is left to a library");
}

}  // namespace
}  // namespace bk::test

int main() {
  using namespace bk;
  test::check<double>({2, 9, 33, 70}, 1e-11);
  test::check<double>({1, 5, 40, 150, 2, 3}, 1e-11);
  test::check<float>({1, 3, 261, 70}, 2e-5);
  test::check_scales();
  test::check_ranges();
  test::check_wishes();
  test::check_large_tiles();
  return test::finish("arithmetic");
}
