// One projected step for any model's gradient: l2_pgd_step, linf_pgd_step, and both in place.
#include <torch/csrc/stable/library.h>

#include "../model/threat.h"
#include "engine.h"

namespace bk::ops {

namespace {

struct StepArguments {
  const Tensor& x;
  const Tensor& origin;
  const Tensor& grad;
  const std::optional<Tensor>& step_rows;
  const std::optional<Tensor>& radius_rows;
  double step, radius;
};

void check(const StepArguments& in) {
  const Shape shape = shape_of(in.x);
  if (shape.empty()) reject("x", "got a number, expected shape (..., d)");
  const ScalarType dtype = in.x.scalar_type();
  if (dtype != ScalarType::Float && dtype != ScalarType::Double && dtype != ScalarType::BFloat16) {
    reject("x", "got dtype " + text(dtype) + ", expected torch.float32, torch.float64 or torch.bfloat16");
  }
  const std::pair<const char*, const Tensor*> like_x[] = {{"origin", &in.origin}, {"grad", &in.grad}};
  for (const auto& [name, tensor] : like_x) {
    expect(name, *tensor, shape, dtype, in.x);
  }
  const Shape rows(shape.begin(), shape.end() - 1);
  expect("step", in.step_rows, rows, compute_dtype(dtype), in.x);
  expect("radius", in.radius_rows, rows, compute_dtype(dtype), in.x);
}

// `out` is dense, of the dtype that x is computed in.
template <class A, class Engine>
void launch(const Engine& engine, Norm norm, const StepArguments& in, const Tensor& x, const Tensor& out) {
  const ScalarType dtype = out.scalar_type();
  const Tensor origin = dense(in.origin, dtype), grad = dense(in.grad, dtype);
  const auto step_rows = dense(in.step_rows, dtype), radius_rows = dense(in.radius_rows, dtype);
  expect_sizes<A>("step", step_rows, in.step, Size::finite);
  expect_sizes<A>("radius", radius_rows, in.radius);
  const Shape shape = shape_of(in.x);
  engine.pgd_step(norm, PgdStep<A>{data<A>(x),
                                   data<A>(origin),
                                   data<A>(grad),
                                   mutable_data<A>(out),
                                   count(Shape(shape.begin(), shape.end() - 1)),
                                   shape.back(),
                                   {data<A>(step_rows), static_cast<A>(in.step)},
                                   {data<A>(radius_rows), static_cast<A>(in.radius)}});
}

template <class Engine> void run(Norm norm, const StepArguments& in, const Tensor& x, const Tensor& out) {
  const Engine engine(x);
  out.scalar_type() == ScalarType::Double ? launch<double>(engine, norm, in, x, out)
                                          : launch<float>(engine, norm, in, x, out);
}

template <class Engine> Tensor step(Norm norm, const StepArguments& in) {
  check(in);
  const ScalarType dtype = in.x.scalar_type();
  const Tensor x = dense(in.x, compute_dtype(dtype));
  const Tensor out = allocate(shape_of(in.x), compute_dtype(dtype), in.x);
  run<Engine>(norm, in, x, out);
  return dense(out, dtype);
}

// Whether writing x changes rows of `other` that have yet to be read. Where both begin at one place they do not: every
// number of a row is read before its place is written. What is not contiguous is copied first in any case.
bool lies_across(const Tensor& other, const Tensor& x) {
  const auto address = [](const Tensor& tensor) { return reinterpret_cast<std::uintptr_t>(tensor.const_data_ptr()); };
  const std::uintptr_t bytes = static_cast<std::uintptr_t>(x.numel()) * x.element_size();
  const std::uintptr_t from = address(other), to = address(x);
  return from != to && from < to + bytes && to < from + bytes;
}

template <class Engine> void step_in_place(Norm norm, const StepArguments& in) {
  check(in);
  const Tensor x = dense(in.x, compute_dtype(in.x.scalar_type()));
  const bool apart = lies_across(in.origin, x) || lies_across(in.grad, x);
  const Tensor out = apart ? allocate(shape_of(x), x.scalar_type(), x) : x;
  run<Engine>(norm, in, x, out);
  Tensor destination = in.x;
  if (out.get() != destination.get()) torch::stable::copy_(destination, out);
}

}  // namespace

template <class Engine>
Tensor l2_pgd_step(const Tensor& x, const Tensor& origin, const Tensor& grad, const std::optional<Tensor>& step_rows,
                   const std::optional<Tensor>& radius_rows, double step_size, double radius) {
  return step<Engine>(Norm::l2, {x, origin, grad, step_rows, radius_rows, step_size, radius});
}

template <class Engine>
Tensor linf_pgd_step(const Tensor& x, const Tensor& origin, const Tensor& grad, const std::optional<Tensor>& step_rows,
                     const std::optional<Tensor>& radius_rows, double step_size, double radius) {
  return step<Engine>(Norm::linf, {x, origin, grad, step_rows, radius_rows, step_size, radius});
}

template <class Engine>
void l2_pgd_step_(const Tensor& x, const Tensor& origin, const Tensor& grad, const std::optional<Tensor>& step_rows,
                  const std::optional<Tensor>& radius_rows, double step_size, double radius) {
  step_in_place<Engine>(Norm::l2, {x, origin, grad, step_rows, radius_rows, step_size, radius});
}

template <class Engine>
void linf_pgd_step_(const Tensor& x, const Tensor& origin, const Tensor& grad, const std::optional<Tensor>& step_rows,
                    const std::optional<Tensor>& radius_rows, double step_size, double radius) {
  step_in_place<Engine>(Norm::linf, {x, origin, grad, step_rows, radius_rows, step_size, radius});
}

BK_REGISTER("l2_pgd_step", l2_pgd_step)
BK_REGISTER("linf_pgd_step", linf_pgd_step)
BK_REGISTER("l2_pgd_step_", l2_pgd_step_)
BK_REGISTER("linf_pgd_step_", linf_pgd_step_)

}  // namespace bk::ops
