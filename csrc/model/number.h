// The number types of the kernels: how a parameter is stored, and what it is computed in.
#pragma once

#include <cstdint>

#include "macros.h"

namespace bk {

// The upper half of a float32. Only stored: every product and sum is taken in float32.
struct BFloat16 {
  std::uint16_t bits;
};

template <class T> struct ComputeType {
  using type = T;
};
template <> struct ComputeType<BFloat16> {
  using type = float;
};

// float for float and bfloat16 storage, double for double.
template <class T> using Compute = typename ComputeType<T>::type;

BK_HD float widen(float value) { return value; }
BK_HD double widen(double value) { return value; }
BK_HD float widen(BFloat16 value) {
  union {
    std::uint32_t bits;
    float value;
  } wide;
  wide.bits = static_cast<std::uint32_t>(value.bits) << 16;
  return wide.value;
}

// The nearest bfloat16, ties to even.
BK_HD BFloat16 nearest_bfloat16(float value) {
  union {
    float value;
    std::uint32_t bits;
  } wide;
  wide.value = value;
  const std::uint32_t rounded = wide.bits + 0x7fff + (wide.bits >> 16 & 1);
  return {static_cast<std::uint16_t>(value != value ? 0x7fff : rounded >> 16)};
}

}  // namespace bk
