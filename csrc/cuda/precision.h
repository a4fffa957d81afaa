// How exact products of float are. Products of double are not concerned, nor is anything before sm_80.
#pragma once

#include <cstdint>
#include <type_traits>

namespace bk::cuda {

enum class Precision : std::int32_t {
  exact,  // as float's own
  tf32,   // each product to 2^-15 of its size by our kernels, by a library to 2^-10 as tf32 is
};

// Calls visit with the precision as a constant. T: how the left operand is stored; bfloat16 is exact as it is.
template <class T, class Visit> int with_precision(Precision precision, Visit&& visit) {
  if constexpr (std::is_same_v<T, float>) {
    if (precision == Precision::tf32) return visit(std::integral_constant<Precision, Precision::tf32>{});
  }
  return visit(std::integral_constant<Precision, Precision::exact>{});
}

}  // namespace bk::cuda
