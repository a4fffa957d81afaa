// Products that a library of the caller's makes: torch's own (cuBLAS), which fills the tensor cores of every device as no
// kernel of ours does. Needs no CUDA header to include.
#pragma once

#include <cstdint>
#include <type_traits>

#include "precision.h"

namespace bk::cuda {

// Number (i, j) of a network is at data + network·network_stride + i·row_stride + j·column_stride, in numbers; one of the
// last two strides is 1.
struct LibraryMatrix {
  const void* data;
  std::int64_t network_stride, row_stride, column_stride;
};

// out (rows × columns, per network) = left (rows × terms) · right (terms × columns), added to out where `accumulate`.
struct LibraryProduct {
  bool is_double;  // else float, at the precision that the library is set to
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

  // Whether the library is to make a product of operands that are stored as L and R.
  template <class L, class R>
  bool wants_library(std::int64_t networks, std::int64_t rows, std::int64_t columns, std::int64_t terms) const {
    if constexpr (!std::is_same_v<L, R> || !std::is_floating_point_v<L>) return false;
    if (library.multiply == nullptr) return false;
    if (std::is_same_v<L, float> && precision == Precision::exact && !library.exact_floats) return false;
    const double flops = 2.0 * static_cast<double>(networks) * static_cast<double>(rows) *
                         static_cast<double>(columns) * static_cast<double>(terms);
    return flops > 0 && flops >= library.least_flops;
  }
};

}  // namespace bk::cuda
