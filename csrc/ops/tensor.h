// The few things the ops do with tensors, on the stable ABI: shapes, dtypes, conversion, allocation, and refusal.
#pragma once

#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "../model/number.h"

namespace bk::ops {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;
using Shape = std::vector<std::int64_t>;

// Raises ValueError("<argument>: <problem>") in Python.
[[noreturn]] void reject(const char* argument, const std::string& problem);
std::string text(const Shape& shape);
std::string text(ScalarType dtype);
std::string text(double number);

Shape shape_of(const Tensor& tensor);
std::int64_t count(const Shape& shape);
Shape joined(Shape shape, const Shape& tail);

// The dtype that float, double and bfloat16 networks are computed in.
ScalarType compute_dtype(ScalarType storage);

void expect_shape(const char* argument, const Tensor& tensor, const Shape& expected);
void expect_dtype(const char* argument, const Tensor& tensor, ScalarType expected);
void expect_device(const char* argument, const Tensor& tensor, const Tensor& like);
// All three, where the argument is given.
void expect(const char* argument, const std::optional<Tensor>& tensor, const Shape& shape, ScalarType dtype,
            const Tensor& like);

// The tensor itself where it is contiguous and of that dtype already, else a converted copy.
Tensor dense(const Tensor& tensor, ScalarType dtype);
std::optional<Tensor> dense(const std::optional<Tensor>& tensor, ScalarType dtype);

// Uninitialised, on the device of `like`.
Tensor allocate(const Shape& shape, ScalarType dtype, const Tensor& like);

template <class T> const T* data(const Tensor& tensor) { return static_cast<const T*>(tensor.const_data_ptr()); }
template <class T> const T* data(const std::optional<Tensor>& tensor) { return tensor ? data<T>(*tensor) : nullptr; }
template <class T> T* mutable_data(const Tensor& tensor) { return static_cast<T*>(tensor.mutable_data_ptr()); }

// On the CPU, where values can be looked at, refuses the first one that is not valid. Elsewhere an invalid value makes
// its row NaN. `tensor` is dense.
template <class A, class Valid>
void expect_each(const char* argument, const Tensor& tensor, const char* expected, Valid valid) {
  if (!tensor.is_cpu()) return;
  const A* values = data<A>(tensor);
  for (std::int64_t i = 0, size = tensor.numel(); i < size; ++i) {
    if (!valid(values[i])) reject(argument, "got " + text(values[i]) + ", expected " + expected);
  }
}

// A radius, which may be infinite, or a step, which may not: one number per row. `rows` is dense where given.
enum class Size { any, finite };

template <class A>
void expect_sizes(const char* argument, const std::optional<Tensor>& rows, double number, Size accepted = Size::any) {
  const char* expected = accepted == Size::any ? "a number ≥ 0" : "a finite number ≥ 0";
  const A largest = accepted == Size::any ? std::numeric_limits<A>::infinity() : std::numeric_limits<A>::max();
  const auto valid = [largest](A value) { return value >= 0 && value <= largest; };
  if (rows) expect_each<A>(argument, *rows, expected, valid);
  else if (!valid(static_cast<A>(number))) reject(argument, "got " + text(number) + ", expected " + expected);
}

// Calls visit(T{}) with the storage type of a network.
template <class Visit> auto with_storage(ScalarType dtype, Visit&& visit) {
  switch (dtype) {
    case ScalarType::Double: return visit(double{});
    case ScalarType::BFloat16: return visit(BFloat16{});
    default: return visit(float{});
  }
}

}  // namespace bk::ops
