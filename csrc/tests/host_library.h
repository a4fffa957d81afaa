// A library of products for the emulated engine: plain loops, which check what they are asked for.
#pragma once

#include "../cuda/library.h"
#include "check.h"

namespace bk::test {

struct HostLibrary {
  mutable std::int64_t calls = 0;

  // All products that a library may be asked for, whatever their size.
  cuda::Arithmetic arithmetic(cuda::Precision precision = cuda::Precision::exact) const {
    return {precision, {multiply, this, 0, true}};
  }

 private:
  template <class A> static void multiply_as(const cuda::LibraryProduct& p) {
    const auto at = [](const cuda::LibraryMatrix& matrix, std::int64_t network, std::int64_t i, std::int64_t j) {
      const std::int64_t index = network * matrix.network_stride + i * matrix.row_stride + j * matrix.column_stride;
      return static_cast<double>(static_cast<const A*>(matrix.data)[index]);
    };
    for (std::int64_t network = 0; network < p.networks; ++network) {
      A* out = static_cast<A*>(p.out) + network * p.out_network_stride;
      for (std::int64_t row = 0; row < p.rows; ++row) {
        for (std::int64_t column = 0; column < p.columns; ++column) {
          double sum = p.accumulate ? static_cast<double>(*out) : 0;
          for (std::int64_t term = 0; term < p.terms; ++term) {
            sum += at(p.left, network, row, term) * at(p.right, network, term, column);
          }
          *out++ = static_cast<A>(sum);
        }
      }
    }
  }

  static int multiply(const void* context, const cuda::LibraryProduct& product) {
    ++static_cast<const HostLibrary*>(context)->calls;
    for (const cuda::LibraryMatrix& matrix : {product.left, product.right}) {
      expect(matrix.row_stride == 1 || matrix.column_stride == 1, "a library is given lines that are not contiguous");
    }
    switch (product.numbers) {
      case cuda::LibraryNumbers::float32: multiply_as<float>(product); break;
      case cuda::LibraryNumbers::float64: multiply_as<double>(product); break;
    }
    return 0;
  }
};

}  // namespace bk::test
