// Vec<A>: a SIMD register of float or double with the operators that csrc/model/activation.h asks of a number.
//
// Every kernel source is compiled once per level with -DBK_SIMD_LEVEL=v4, v3 or base, and all it defines lives in
// bk::cpu::<level>: no function is shared between levels, so none can leak an instruction into a lower one. For the
// same reason the kernels use no templates of the standard library, and shared code is always inlined (BK_HD). Level
// amx is v4 with the products of tiles.h.
#pragma once

#include <cstdint>
#include <cstring>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include "../model/macros.h"

#if !defined(BK_SIMD_LEVEL)
#error "define BK_SIMD_LEVEL as v4, v3 or base"
#endif

#pragma GCC diagnostic ignored "-Wpsabi"  // vectors are passed only between inlined functions

namespace bk::cpu::BK_SIMD_LEVEL {

#if defined(__AVX512F__)
constexpr int kVectorBytes = 64;
constexpr int kRegisters = 32;
#elif defined(__AVX__)
constexpr int kVectorBytes = 32;
constexpr int kRegisters = 16;
#elif defined(__aarch64__)
constexpr int kVectorBytes = 16;
constexpr int kRegisters = 32;
#else
constexpr int kVectorBytes = 16;
constexpr int kRegisters = 16;
#endif

template <class A> struct IntegerOf;
template <> struct IntegerOf<float> {
  using type = std::int32_t;
  using without_sign = std::uint32_t;
};
template <> struct IntegerOf<double> {
  using type = std::int64_t;
  using without_sign = std::uint64_t;
};
template <class A> using Integer = typename IntegerOf<A>::type;

// All ones where true.
template <class A> struct Mask {
  typedef Integer<A> Raw __attribute__((vector_size(kVectorBytes)));
  Raw raw;

  BK_HD friend Mask operator&(Mask a, Mask b) { return {a.raw & b.raw}; }
  BK_HD friend Mask operator|(Mask a, Mask b) { return {a.raw | b.raw}; }
  BK_HD friend Mask operator~(Mask a) { return {~a.raw}; }
};

template <class A> struct Vec {
  static constexpr int kLanes = kVectorBytes / sizeof(A);
  typedef A Raw __attribute__((vector_size(kVectorBytes)));
  typedef A Unaligned __attribute__((vector_size(kVectorBytes), aligned(alignof(A)), may_alias));
  typedef Integer<A> Bits __attribute__((vector_size(kVectorBytes)));
  typedef typename IntegerOf<A>::without_sign Unsigned __attribute__((vector_size(kVectorBytes)));
  Raw raw;

  Vec() = default;
  BK_HD explicit Vec(double value) { *this = broadcast(static_cast<A>(value)); }
  BK_HD static Vec of(Raw raw) {
    Vec v;
    v.raw = raw;
    return v;
  }
  BK_HD static Vec broadcast(A value) { return of(value - Raw{}); }  // s − 0 is s, also for −0 and NaN
  BK_HD static Vec of_bits(Bits bits) { return of(reinterpret_cast<Raw>(bits)); }
  BK_HD static Vec load(const A* from) { return of(*reinterpret_cast<const Unaligned*>(from)); }
  BK_HD void store(A* to) const { *reinterpret_cast<Unaligned*>(to) = raw; }
  BK_HD Bits bits() const { return reinterpret_cast<Bits>(raw); }

  BK_HD friend Vec operator+(Vec a, Vec b) { return of(a.raw + b.raw); }
  BK_HD friend Vec operator-(Vec a, Vec b) { return of(a.raw - b.raw); }
  BK_HD friend Vec operator*(Vec a, Vec b) { return of(a.raw * b.raw); }
  BK_HD friend Vec operator/(Vec a, Vec b) { return of(a.raw / b.raw); }
  BK_HD friend Vec operator-(Vec a) { return of(-a.raw); }
  BK_HD Vec& operator+=(Vec b) { return *this = *this + b; }
  BK_HD Vec& operator*=(Vec b) { return *this = *this * b; }

  BK_HD friend Mask<A> operator<(Vec a, Vec b) { return {a.raw < b.raw}; }
  BK_HD friend Mask<A> operator<=(Vec a, Vec b) { return {a.raw <= b.raw}; }
  BK_HD friend Mask<A> operator>(Vec a, Vec b) { return {a.raw > b.raw}; }
  BK_HD friend Mask<A> operator>=(Vec a, Vec b) { return {a.raw >= b.raw}; }
  BK_HD friend Mask<A> operator==(Vec a, Vec b) { return {a.raw == b.raw}; }
  BK_HD friend Mask<A> operator!=(Vec a, Vec b) { return {a.raw != b.raw}; }
};

template <class A> BK_HD Vec<A> select(Mask<A> condition, Vec<A> yes, Vec<A> no) {
  return Vec<A>::of(condition.raw ? yes.raw : no.raw);
}

template <class A> BK_HD Vec<A> min(Vec<A> a, Vec<A> b) {  // b where either is NaN
  return select(a < b, a, b);
}
template <class A> BK_HD Vec<A> max(Vec<A> a, Vec<A> b) {  // b where either is NaN
  return select(a > b, a, b);
}

template <class A> BK_HD Vec<A> absolute(Vec<A> a) {
  constexpr Integer<A> kAllButSign = ~(Integer<A>(1) << (8 * sizeof(A) - 1));
  return Vec<A>::of_bits(a.bits() & kAllButSign);
}

template <class A> BK_HD Vec<A> copy_sign(Vec<A> size, Vec<A> sign) {
  constexpr Integer<A> kSign = Integer<A>(1) << (8 * sizeof(A) - 1);
  return Vec<A>::of_bits((size.bits() & ~kSign) | (sign.bits() & kSign));
}

template <class A> BK_HD Mask<A> is_finite(Vec<A> a) {  // x − x is 0 for numbers, NaN for the rest
  return a - a == Vec<A>(0);
}

template <class A> BK_HD bool any(Mask<A> mask) {
  Integer<A> lanes[Vec<A>::kLanes];
  std::memcpy(lanes, &mask.raw, sizeof(lanes));
  Integer<A> joined = 0;
  for (int lane = 0; lane < Vec<A>::kLanes; ++lane) joined |= lanes[lane];
  return joined != 0;
}

// One bit per lane, the first lane lowest.
template <class A> BK_HD std::uint32_t bits(Mask<A> mask) {
#if defined(__AVX512DQ__)
  if constexpr (sizeof(A) == 4) return static_cast<std::uint32_t>(_mm512_movepi32_mask((__m512i)mask.raw));
  if constexpr (sizeof(A) == 8) return _mm512_movepi64_mask((__m512i)mask.raw);
#elif defined(__AVX__)
  if constexpr (sizeof(A) == 4) return static_cast<std::uint32_t>(_mm256_movemask_ps((__m256)mask.raw));
  if constexpr (sizeof(A) == 8) return static_cast<std::uint32_t>(_mm256_movemask_pd((__m256d)mask.raw));
#elif defined(__SSE2__)
  if constexpr (sizeof(A) == 4) return static_cast<std::uint32_t>(_mm_movemask_ps((__m128)mask.raw));
  if constexpr (sizeof(A) == 8) return static_cast<std::uint32_t>(_mm_movemask_pd((__m128d)mask.raw));
#else
  Integer<A> lanes[Vec<A>::kLanes];
  std::memcpy(lanes, &mask.raw, sizeof(lanes));
  std::uint32_t joined = 0;
  for (int lane = 0; lane < Vec<A>::kLanes; ++lane) joined |= static_cast<std::uint32_t>(lanes[lane] & 1) << lane;
  return joined;
#endif
}

// True in the lanes whose bit is 1.
template <class A> BK_HD Mask<A> mask_of(std::uint64_t bits) {
  constexpr Integer<A> kBits[] = {1,      1 << 1, 1 << 2,  1 << 3,  1 << 4,  1 << 5,  1 << 6,  1 << 7,
                                  1 << 8, 1 << 9, 1 << 10, 1 << 11, 1 << 12, 1 << 13, 1 << 14, 1 << 15};
  typename Mask<A>::Raw lane;
  std::memcpy(&lane, kBits, sizeof(lane));
  return {(lane & static_cast<Integer<A>>(bits & 0xffff)) != 0};
}

// True in the last `count` lanes.
template <class A> BK_HD Mask<A> last_lanes(std::int64_t count) {
  constexpr Integer<A> kNumbers[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  typename Mask<A>::Raw lane;
  std::memcpy(&lane, kNumbers, sizeof(lane));
  return {lane >= static_cast<Integer<A>>(Vec<A>::kLanes - count)};
}

// f(lane value) for each lane; for what has no vector form and is rare.
template <class A, class F> BK_HD Vec<A> per_lane(Vec<A> v, F f) {
  A lanes[Vec<A>::kLanes];
  v.store(lanes);
  for (int lane = 0; lane < Vec<A>::kLanes; ++lane) lanes[lane] = f(lanes[lane]);
  return Vec<A>::load(lanes);
}

BK_HD Vec<float> sqrt(Vec<float> v) {
  return per_lane(v, [](float lane) { return __builtin_sqrtf(lane); });
}
BK_HD Vec<double> sqrt(Vec<double> v) {
  return per_lane(v, [](double lane) { return __builtin_sqrt(lane); });
}

// Lane i of the result is lane index(i) of a and b laid end to end.
template <class A, class Index> BK_HD Vec<A> shuffle(Vec<A> a, Vec<A> b, const Index& index) {
  using Bits = typename Vec<A>::Bits;
  Bits order;
  if constexpr (Vec<A>::kLanes == 2) {
    order = Bits{index(0), index(1)};
  } else if constexpr (Vec<A>::kLanes == 4) {
    order = Bits{index(0), index(1), index(2), index(3)};
  } else if constexpr (Vec<A>::kLanes == 8) {
    order = Bits{index(0), index(1), index(2), index(3), index(4), index(5), index(6), index(7)};
  } else {
    order = Bits{index(0), index(1), index(2),  index(3),  index(4),  index(5),  index(6),  index(7),
                 index(8), index(9), index(10), index(11), index(12), index(13), index(14), index(15)};
  }
  return Vec<A>::of(__builtin_shuffle(a.raw, b.raw, order));
}

// v, and the second of its first 2·half lanes added to the first.
template <int half, class A> BK_HD A sum_halves(Vec<A> v) {
  if constexpr (half == 0) {
    return v.raw[0];
  } else {
    v += shuffle(v, v, [](int i) __attribute__((always_inline)) { return static_cast<Integer<A>>(i ^ half); });
    return sum_halves<half / 2>(v);
  }
}

// Σ lanes, in a fixed order: halves, then quarters, …
template <class A> BK_HD A sum_lanes(Vec<A> v) { return sum_halves<Vec<A>::kLanes / 2>(v); }

}  // namespace bk::cpu::BK_SIMD_LEVEL
