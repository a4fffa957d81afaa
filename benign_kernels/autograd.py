"""The ops as differentiable functions: backward by the native ops, double backward and forward mode by torch.

Three functions that lead to each other: the gradients of the value are the two gradient ops, and the gradients of those
are the formulas of ``_expressions`` in torch, which torch differentiates to any order. ``vmap`` turns the mapped
dimension into rows, or into one more dimension of independent networks.

Their arguments are tensors (or None), then those of ``Native``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._functorch.utils import unwrap_dead_wrappers
from torch.autograd import Function, forward_ad

from . import _expressions
from ._expressions import Gradients, Hidden, Movement, Native
from ._library import ops
from ._vmap import fold

_NATIVE = len(Native._fields)
_NONE = (None,) * _NATIVE


def _remember(ctx: Any, inputs: tuple[Any, ...]) -> None:
    ctx.save_for_backward(*inputs[:-_NATIVE])
    ctx.save_for_forward(*inputs[:-_NATIVE])
    ctx.native = Native(*inputs[-_NATIVE:])
    ctx.set_materialize_grads(False)


def _sum(*parts: Tensor | None) -> Tensor | None:
    total = None
    for part in parts:
        total = part if total is None else total if part is None else total + part
    return total


def _of_given(ctx: Any, *gradients: Tensor | None) -> list[Tensor | None]:
    """Without those of inputs that are None."""
    return [None if t is None else gradient for t, gradient in zip(ctx.saved_tensors, gradients, strict=True)]


# ---- the value -------------------------------------------------------------------------------------------------------


class TwoLayer(Function):
    """x, W, a, bias, head_bias → f"""

    @staticmethod
    def forward(x, W, a, bias, head_bias, activation, alpha, beta, patches):  # type: ignore[no-untyped-def]
        return ops.two_layer.default(x, W, a, bias, head_bias, activation, alpha, beta, patches)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _remember(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, cotangent: Tensor | None) -> Any:
        if cotangent is None:
            return (None,) * 5 + _NONE
        x, W, a, bias, head_bias = ctx.saved_tensors
        return (*_first_order(ctx, x, W, a, bias, head_bias, cotangent), *_NONE)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        tensors, native = arguments[:-_NATIVE], arguments[-_NATIVE:]
        folded = fold(info.batch_size, (*in_dims[:5], None), *tensors, None, over_networks=False)
        return folded.per_row(two_layer(*folded[:5], *native))


def _first_order(
    ctx: Any, x: Tensor, W: Tensor, a: Tensor, bias: Tensor | None, head_bias: Tensor | None, cotangent: Tensor
) -> tuple[Tensor | None, ...]:
    """The gradients of Σ cotangent·f with respect to those inputs that need one."""
    native, needs = ctx.native, ctx.needs_input_grad
    gx = gW = ga = gb = gc = None
    if needs[0]:
        _, gx = value_and_grad(x, W, a, bias, head_bias, cotangent, *native)
        if x.dim() < gx.dim():  # shared by the networks
            gx = gx.sum_to_size(x.shape)
    if needs[1] or needs[2] or needs[3]:
        gW, ga, gb = parameter_grad(x, W, a, bias, cotangent, *native)
    if needs[4] and head_bias is not None:
        rows = range(W.dim() - 2, cotangent.dim() - (a.dim() == W.dim()))
        gc = cotangent.sum(tuple(rows)) if len(rows) else cotangent
    return gx, gW if needs[1] else None, ga if needs[2] else None, gb if needs[3] else None, gc


# ---- its gradients ---------------------------------------------------------------------------------------------------


class ValueAndGrad(Function):
    """x, W, a, bias, head_bias, cotangent → f, gx"""

    @staticmethod
    def forward(x, W, a, bias, head_bias, cotangent, activation, alpha, beta, patches):  # type: ignore[no-untyped-def]
        return ops.two_layer_value_and_grad.default(
            x, W, a, bias, head_bias, cotangent, activation, alpha, beta, patches
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _remember(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, f_bar: Tensor | None, gx_bar: Tensor | None) -> Any:
        x, W, a, bias, head_bias, cotangent = ctx.saved_tensors
        of_f: tuple[Tensor | None, ...] = (None,) * 5
        of_gx = Gradients(None, None, None, None, None)
        if f_bar is not None:
            of_f = _first_order(ctx, x, W, a, bias, head_bias, f_bar)
        if gx_bar is not None:
            hidden = Hidden(x, W, a, bias, ctx.native)
            of_gx = _expressions.double_backward(hidden, _ones(hidden, cotangent), gx_bar, None, None, None)
        hidden_inputs = (_sum(*pair) for pair in zip(of_f[:4], of_gx[:4], strict=True))
        return (*_of_given(ctx, *hidden_inputs, of_f[4], of_gx.cotangent), *_NONE)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        tensors, native = arguments[:-_NATIVE], arguments[-_NATIVE:]
        folded = fold(info.batch_size, in_dims[:6], *tensors, over_networks=False)
        f, gx = value_and_grad(*folded[:6], *native)
        (f, f_dim), (gx, gx_dim) = folded.per_row(f), folded.per_row(gx)
        return (f, gx), (f_dim, gx_dim)


def _ones(hidden: Hidden, cotangent: Tensor | None) -> Tensor:
    return _expressions.ones_like_outputs(hidden) if cotangent is None else cotangent


class ParameterGrad(Function):
    """x, W, a, bias, cotangent → gW, ga, gb"""

    @staticmethod
    def forward(x, W, a, bias, cotangent, activation, alpha, beta, patches):  # type: ignore[no-untyped-def]
        return ops.two_layer_parameter_grad.default(x, W, a, bias, cotangent, activation, alpha, beta, patches)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        _remember(ctx, inputs)

    @staticmethod
    def backward(ctx: Any, gW_bar: Tensor | None, ga_bar: Tensor | None, gb_bar: Tensor | None) -> Any:
        if gW_bar is None and ga_bar is None and gb_bar is None:
            return (None,) * 5 + _NONE
        x, W, a, bias, cotangent = ctx.saved_tensors
        hidden = Hidden(x, W, a, bias, ctx.native)
        grads = _expressions.double_backward(hidden, cotangent, None, gW_bar, ga_bar, gb_bar)
        return (*_of_given(ctx, *grads), *_NONE)

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> Any:
        (x, W, a, bias, cotangent), native = arguments[:-_NATIVE], arguments[-_NATIVE:]
        dims = (*in_dims[:4], None, in_dims[4])
        folded = fold(info.batch_size, dims, x, W, a, bias, None, cotangent, over_networks=True)
        grads = parameter_grad(*folded[:4], folded.cotangent, *native)
        outs, out_dims = zip(*(folded.per_network(grad) for grad in grads), strict=True)
        return outs, out_dims


# ---- forward mode ----------------------------------------------------------------------------------------------------


class _TwoLayerForward(TwoLayer):
    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> Tensor:
        x, W, a, bias, _ = ctx.saved_tensors
        hidden = Hidden(x, W, a, bias, ctx.native)
        return _expressions.value_movement(hidden, Movement(*tangents[:4]), tangents[4])


class _ValueAndGradForward(ValueAndGrad):
    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, Tensor]:
        x, W, a, bias, _, cotangent = ctx.saved_tensors
        hidden, moved = Hidden(x, W, a, bias, ctx.native), Movement(*tangents[:4])
        f = _expressions.value_movement(hidden, moved, tangents[4])
        return f, _expressions.input_gradient_movement(hidden, moved, _ones(hidden, cotangent), tangents[5])


class _ParameterGradForward(ParameterGrad):
    @staticmethod
    def jvp(ctx: Any, *tangents: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        x, W, a, bias, cotangent = ctx.saved_tensors
        hidden, moved = Hidden(x, W, a, bias, ctx.native), Movement(*tangents[:4])
        return _expressions.parameter_gradient_movement(hidden, moved, cotangent, tangents[4])


# ---- inside torch.compile, inside torch.func -------------------------------------------------------------------------


def _two_layer_in_torch(x: Tensor, W: Tensor, a: Tensor, bias: Any, head_bias: Any, *native: Any) -> Tensor:
    return _expressions.value(Hidden(x, W, a, bias, Native(*native)), head_bias)


def _value_and_grad_in_torch(
    x: Tensor, W: Tensor, a: Tensor, bias: Any, head_bias: Any, cotangent: Any, *native: Any
) -> tuple[Tensor, Tensor]:
    hidden = Hidden(x, W, a, bias, Native(*native))
    return _expressions.value(hidden, head_bias), _expressions.input_gradient(hidden, _ones(hidden, cotangent))


def _parameter_grad_in_torch(
    x: Tensor, W: Tensor, a: Tensor, bias: Any, cotangent: Tensor, *native: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return _expressions.parameter_gradient(Hidden(x, W, a, bias, Native(*native)), cotangent)


# ---- the choice between them -----------------------------------------------------------------------------------------


def two_layer(*arguments: Any) -> Tensor:
    if _differentiates(arguments):
        return _call(TwoLayer, _TwoLayerForward, _two_layer_in_torch, arguments)
    return ops.two_layer.default(*arguments)


def value_and_grad(*arguments: Any) -> tuple[Tensor, Tensor]:
    if _differentiates(arguments):
        return _call(ValueAndGrad, _ValueAndGradForward, _value_and_grad_in_torch, arguments)
    return ops.two_layer_value_and_grad.default(*arguments)


def parameter_grad(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    if _differentiates(arguments):
        return _call(ParameterGrad, _ParameterGradForward, _parameter_grad_in_torch, arguments)
    return ops.two_layer_parameter_grad.default(*arguments)


def _differentiates(arguments: tuple[Any, ...]) -> bool:
    """Whether someone will ask for a derivative, or maps over a dimension: the raw ops know neither."""
    if torch.is_grad_enabled():
        for t in arguments[:-_NATIVE]:
            if t is not None and t.requires_grad:
                return True
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def _call(
    function: type[Function],
    with_forward_mode: type[Function],
    in_torch: Callable[..., Any],
    arguments: tuple[Any, ...],
) -> Any:
    """``function.apply``, with forward mode where it can be had, and without 40 µs of looking at signatures."""
    transformed = torch._C._are_functorch_transforms_active()
    if torch.compiler.is_dynamo_compiling():  # which refuses functions with a jvp
        forward_mode = forward_ad._current_level >= 0
        return in_torch(*arguments) if transformed or forward_mode else function.apply(*arguments)
    if transformed:
        return with_forward_mode.apply(*arguments)
    # From here on as Function.apply itself, after it has bound the arguments to the signature of `forward`.
    return super(Function, with_forward_mode).apply(*unwrap_dead_wrappers(arguments))  # type: ignore[misc]
