#include "tensor.h"

#include <sstream>
#include <stdexcept>

namespace bk::ops {

void reject(const char* argument, const std::string& problem) {
  throw std::invalid_argument(std::string(argument) + ": " + problem);
}

std::string text(const Shape& shape) {
  std::string out = "(";
  for (std::size_t i = 0; i < shape.size(); ++i) out += (i ? ", " : "") + std::to_string(shape[i]);
  return out + (shape.size() == 1 ? ",)" : ")");
}

std::string text(ScalarType dtype) {
  switch (dtype) {
    case ScalarType::Float: return "torch.float32";
    case ScalarType::Double: return "torch.float64";
    case ScalarType::BFloat16: return "torch.bfloat16";
    case ScalarType::Half: return "torch.float16";
    case ScalarType::Long: return "torch.int64";
    case ScalarType::Int: return "torch.int32";
    case ScalarType::Bool: return "torch.bool";
    default: return torch::headeronly::toString(dtype);
  }
}

std::string text(double number) {
  std::ostringstream out;
  out.precision(15);  // 0.1 as it was written; class indices as integers
  out << number;
  return out.str();
}

Shape shape_of(const Tensor& tensor) {
  const auto sizes = tensor.sizes();
  return Shape(sizes.begin(), sizes.end());
}

std::int64_t count(const Shape& shape) {
  std::int64_t product = 1;
  for (const std::int64_t size : shape) product *= size;
  return product;
}

Shape joined(Shape shape, const Shape& tail) {
  shape.insert(shape.end(), tail.begin(), tail.end());
  return shape;
}

ScalarType compute_dtype(ScalarType storage) { return storage == ScalarType::BFloat16 ? ScalarType::Float : storage; }

void expect_shape(const char* argument, const Tensor& tensor, const Shape& expected) {
  const Shape shape = shape_of(tensor);
  if (shape != expected) reject(argument, "got shape " + text(shape) + ", expected " + text(expected));
}

void expect_dtype(const char* argument, const Tensor& tensor, ScalarType expected) {
  const ScalarType dtype = tensor.scalar_type();
  if (dtype != expected) reject(argument, "got dtype " + text(dtype) + ", expected " + text(expected));
}

static std::string device_of(const Tensor& tensor) {
  return tensor.is_cuda() ? "cuda:" + std::to_string(tensor.get_device_index()) : "cpu";
}

void expect_device(const char* argument, const Tensor& tensor, const Tensor& like) {
  if (tensor.is_cuda() != like.is_cuda() || tensor.get_device_index() != like.get_device_index()) {
    reject(argument, "is on " + device_of(tensor) + ", expected " + device_of(like) + ", where the first tensor is");
  }
}

void expect(const char* argument, const std::optional<Tensor>& tensor, const Shape& shape, ScalarType dtype,
            const Tensor& like) {
  if (!tensor) return;
  expect_shape(argument, *tensor, shape);
  expect_dtype(argument, *tensor, dtype);
  expect_device(argument, *tensor, like);
}

Tensor dense(const Tensor& tensor, ScalarType dtype) {
  const Tensor same = tensor.scalar_type() == dtype ? tensor : torch::stable::to(tensor, dtype);
  return same.is_contiguous() ? same : torch::stable::contiguous(same);
}

std::optional<Tensor> dense(const std::optional<Tensor>& tensor, ScalarType dtype) {
  return tensor ? std::optional<Tensor>(dense(*tensor, dtype)) : std::nullopt;
}

Tensor allocate(const Shape& shape, ScalarType dtype, const Tensor& like) {
  Shape strides(shape.size(), 1);
  for (std::size_t i = shape.size(); i-- > 1;) strides[i - 1] = strides[i] * (shape[i] > 0 ? shape[i] : 1);
  std::int32_t device_type, device_index;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &device_type));
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &device_index));
  AtenTensorHandle handle;
  const auto dtype_code = torch::stable::detail::to<std::int32_t>(torch::stable::detail::from(dtype));
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(static_cast<std::int64_t>(shape.size()), shape.data(), strides.data(),
                                                  dtype_code, device_type, device_index, &handle));
  return Tensor(handle);
}

}  // namespace bk::ops
