// Products that a library of the caller's makes: torch's own (cuBLAS), which fills the tensor cores of every device as no
// kernel of ours does. Needs no CUDA header to include.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "../model/number.h"
#include "precision.h"

namespace bk::cuda {

// Number (i, j) of a network is at data + network·network_stride + i·row_stride + j·column_stride, in numbers; one of the
// last two strides is 1.
struct LibraryMatrix {
  const void* data;
  std::int64_t network_stride, row_stride, column_stride;
};

enum class LibraryNumbers : std::int32_t {
  float32,  // at the precision that the library is set to
  float64,
};

// out (rows × columns, per network) = left (rows × terms) · right (terms × columns), added to out where `accumulate`.
struct LibraryProduct {
  LibraryNumbers numbers;
  std::int64_t networks, rows, columns, terms;
  LibraryMatrix left, right;
  void* out;  // rows contiguous
  std::int64_t out_network_stride;
  bool accumulate;
};

struct Library {
  // Enqueues the product on the stream that it was called on; 0 or a cudaError_t. Null: there is no library.
  int (*multiply)(const void* context, const LibraryProduct& product) = nullptr;
  const void* context = nullptr;
  double least_flops = 0;     // of the products it is asked for: a smaller one is made before a library has begun
  bool exact_floats = false;  // whether it is the faster for exact products of float too, and not with tf32 alone
};

// How products are made.
struct Arithmetic {
  Precision precision = Precision::exact;
  Library library = {};
  std::int64_t processors = 0;  // multiprocessors, where they make products of float in large tiles (multiply.cuh)

  // Whether the library is to make a product of operands of which the right one is stored as T.
  template <class T>
  bool wants_library(std::int64_t networks, std::int64_t rows, std::int64_t columns, std::int64_t terms) const {
    constexpr std::int64_t kMost = (std::int64_t{1} << 31) - 1;  // a library may count in 31 bits
    if (library.multiply == nullptr || std::max({networks, rows, columns, terms}) > kMost) return false;
    if (std::is_same_v<T, BFloat16>) return false;  // there is none of float by bfloat16
    if (std::is_same_v<T, float> && precision == Precision::exact && !library.exact_floats) return false;
    const double flops = 2.0 * static_cast<double>(networks) * static_cast<double>(rows) *
                         static_cast<double>(columns) * static_cast<double>(terms);
    return flops > 0 && flops >= library.least_flops;
  }
};

}  // namespace bk::cuda
