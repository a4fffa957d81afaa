// What the tests share: random numbers, exactly sized buffers, and comparisons.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>
#include <vector>

#include "../model/number.h"

namespace bk::test {

inline int failures = 0;

inline void fail(const std::string& what) {
  if (++failures <= 20) std::printf("FAILED %s\n", what.c_str());
  if (std::getenv("BK_TEST_STOP_EARLY") != nullptr) std::_Exit(1);
}
inline void expect(bool fact, const std::string& what) {
  if (!fact) fail(what);
}
inline int finish(const char* suite) {
  std::printf("%s: %s (%d failures)\n", suite, failures == 0 ? "passed" : "FAILED", failures);
  return failures == 0 ? 0 : 1;
}

// splitmix64; normal() is a sum of uniforms, good enough here.
class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed * 0x9E3779B97F4A7C15ull + 1) {}
  std::uint64_t bits() {
    std::uint64_t z = (state_ += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
  }
  double uniform() { return static_cast<double>(bits() >> 11) * 0x1p-53; }
  double normal() {
    double sum = -6;
    for (int i = 0; i < 12; ++i) sum += uniform();
    return sum;
  }
  std::int64_t below(std::int64_t bound) {
    return static_cast<std::int64_t>(bits() % static_cast<std::uint64_t>(bound));
  }

 private:
  std::uint64_t state_;
};

template <class T> T stored(double value) { return static_cast<T>(value); }
template <> inline BFloat16 stored<BFloat16>(double value) {
  const float narrow = static_cast<float>(value);
  std::uint32_t bits;
  std::memcpy(&bits, &narrow, sizeof bits);
  return BFloat16{static_cast<std::uint16_t>((bits + 0x7FFF + (bits >> 16 & 1)) >> 16)};
}

template <class T> std::vector<T> random_vector(Random& random, std::int64_t count, double scale = 1) {
  std::vector<T> values(static_cast<std::size_t>(count));
  for (T& value : values) value = stored<T>(scale * random.normal());
  return values;
}

// Outputs and workspaces start as NaN: what a kernel forgets to write is seen.
template <class A> std::vector<A> unwritten(std::int64_t count) {
  return std::vector<A>(static_cast<std::size_t>(count), std::numeric_limits<A>::quiet_NaN());
}
inline std::vector<unsigned char> workspace_of(std::size_t bytes) { return std::vector<unsigned char>(bytes, 0xFF); }

template <class T> std::vector<double> widened(const std::vector<T>& values) {
  std::vector<double> wide(values.size());
  for (std::size_t i = 0; i < values.size(); ++i) wide[i] = widen(values[i]);
  return wide;
}

template <class A> bool same_bits(const std::vector<A>& left, const std::vector<A>& right) {
  return left.size() == right.size() &&
         (left.empty() || std::memcmp(left.data(), right.data(), left.size() * sizeof(A)) == 0);
}

// |got − want| ≤ tolerance·(scale of want); NaN and infinities must coincide.
template <class A>
void expect_close(const std::string& what, const std::vector<A>& got, const std::vector<double>& want,
                  double tolerance) {
  if (got.size() != want.size()) return fail(what + ": sizes differ");
  double scale = 1e-300;
  for (double value : want) {
    if (std::isfinite(value)) scale = std::fmax(scale, std::fabs(value));
  }
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double g = static_cast<double>(got[i]);
    const bool close = std::isnan(want[i])   ? std::isnan(g)
                       : std::isinf(want[i]) ? g == want[i]
                                             : std::fabs(g - want[i]) <= tolerance * scale;
    if (close) continue;
    return fail(what + " at " + std::to_string(i) + ": got " + std::to_string(g) + ", want " + std::to_string(want[i]) +
                " (scale " + std::to_string(scale) + ")");
  }
}

}  // namespace bk::test
