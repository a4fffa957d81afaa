"""The functional API: two-layer networks, their gradients, and one projected step of an attack."""

from __future__ import annotations

from typing import Any, NoReturn

import torch
from torch import Tensor

from . import _arguments, _fakes, autograd  # noqa: F401  (fakes register themselves)
from ._library import ops
from .activation import Activation, resolve

# Nothing is checked before a call: the ops refuse in C++ what is wrong, and only then is the reason looked for here.
_REFUSALS = (ValueError, RuntimeError, TypeError, AttributeError)


def two_layer(
    x: Tensor,
    W: Tensor,
    a: Tensor,
    *,
    bias: Tensor | None = None,
    head_bias: Tensor | None = None,
    activation: str | Activation = "relu",
    patches: int = 1,
) -> Tensor:
    r"""The two-layer network, summed over patches and differentiable to any order in every tensor.

    .. math:: f(x) = c + \sum_{p=1}^P \sum_{j=1}^m a_j\, \varphi(\langle w_j, x_p\rangle + b_j)

    Args:
        x: (..., P·d) points.  With batched networks, (\*S, n, P·d), or (n, P·d) shared by all.
        W: (\*S, m, d) first layers of independent networks S (usually none: (m, d)).
        a: (\*S, m) one head, or (\*S, k, m) for k of them.
        bias, head_bias: b (\*S, m) and c (\*S,), or (\*S, k).
        activation: a name or an object of :mod:`benign_kernels.activation`.
        patches: P; a point is P patches of length d.

    Returns f, shaped like x without its last dimension (\*S, n), and (..., k) where ``a`` has heads.  All tensors have
    one dtype: float32, float64, or bfloat16 (computed in float32).  Under autocast the network is computed in float32.
    The n×m hidden layer is never stored, except by double backward, by forward mode, and by torch.func inside of
    torch.compile.

    >>> x, W, a = torch.randn(100, 10), torch.randn(256, 10), torch.ones(256) / 16
    >>> bk.two_layer(x, W, a, activation="tanh").shape
    torch.Size([100])
    """
    try:
        native = *resolve(activation).native, patches
        if torch._C._is_any_autocast_enabled():
            x, W, a, bias, head_bias = _float32(x, W, a, bias, head_bias)
        return autograd.two_layer(x, W, a, bias, head_bias, *native)
    except _REFUSALS as error:
        _explain(error, {"x": x, "W": W, "a": a, "bias": bias, "head_bias": head_bias}, patches)


def two_layer_value_and_grad(
    x: Tensor,
    W: Tensor,
    a: Tensor,
    *,
    cotangent: Tensor | None = None,
    bias: Tensor | None = None,
    head_bias: Tensor | None = None,
    activation: str | Activation = "relu",
    patches: int = 1,
) -> tuple[Tensor, Tensor]:
    r"""The network and its input gradient in one pass, both differentiable.

    .. math:: g_p = \sum_{j=1}^m \Bigl(\sum_c r_c a_{cj}\Bigr)\, \varphi'(\langle w_j, x_p\rangle + b_j)\, w_j

    Args:
        cotangent: r, shaped like f; all ones by default.  The gradient is that of Σ r·f.

    The others as in :func:`two_layer`.  Returns f and g; g is shaped like x, with one gradient for each network
    (\*S, n, P·d) also where x is shared.

    >>> x, W, a = torch.randn(100, 10), torch.randn(256, 10), torch.ones(256) / 16
    >>> [out.shape for out in bk.two_layer_value_and_grad(x, W, a)]
    [torch.Size([100]), torch.Size([100, 10])]
    """
    try:
        native = *resolve(activation).native, patches
        if torch._C._is_any_autocast_enabled():
            x, W, a, bias, head_bias, cotangent = _float32(x, W, a, bias, head_bias, cotangent)
        return autograd.value_and_grad(x, W, a, bias, head_bias, cotangent, *native)
    except _REFUSALS as error:
        tensors = {"x": x, "W": W, "a": a, "bias": bias, "head_bias": head_bias, "cotangent": cotangent}
        _explain(error, tensors, patches)


def two_layer_parameter_grad(
    x: Tensor,
    W: Tensor,
    a: Tensor,
    *,
    cotangent: Tensor,
    bias: Tensor | None = None,
    activation: str | Activation = "relu",
    patches: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    r"""The gradients of Σ r·f with respect to W, a and bias in one pass, all differentiable.

    .. math:: \bar W = \sum_p U_p^\top X_p,\quad \bar a = r^\top \sum_p \varphi(H_p),\quad \bar b = \sum_{n, p} U_{np},
              \qquad U_p = (r a^\top) \circ \varphi'(H_p)

    Args:
        cotangent: r, shaped like f.

    The others as in :func:`two_layer`.  Returns three tensors shaped like W, a and bias (the last also without a bias).

    >>> x, W, a = torch.randn(100, 10), torch.randn(256, 10), torch.ones(256) / 16
    >>> [out.shape for out in bk.two_layer_parameter_grad(x, W, a, cotangent=torch.ones(100))]
    [torch.Size([256, 10]), torch.Size([256]), torch.Size([256])]
    """
    try:
        native = *resolve(activation).native, patches
        if torch._C._is_any_autocast_enabled():
            x, W, a, bias, cotangent = _float32(x, W, a, bias, cotangent)
        return autograd.parameter_grad(x, W, a, bias, cotangent, *native)
    except _REFUSALS as error:
        required = {"x": x, "W": W, "a": a, "cotangent": cotangent}
        _explain(error, {**required, "bias": bias}, patches, required=tuple(required))


def l2_pgd_step(x: Tensor, origin: Tensor, grad: Tensor, *, step: float | Tensor, radius: float | Tensor) -> Tensor:
    r"""One normalised ascent step, projected on the ball around ``origin``; works for any model's gradient.

    .. math:: x' = \Pi_{B(x_0, \epsilon)}\bigl(x + \eta\, g / \lVert g\rVert\bigr)

    Args:
        x, origin, grad: (..., d), of one dtype: float32, float64, or bfloat16 (computed in float32).  Under autocast
            too the step is made in x's dtype; a gradient of another dtype is then converted to it.
        step, radius: η and ε, a number ≥ 0 or one per row (...); an infinite radius projects nothing, an infinite step
            is refused.  On other devices than the CPU, whose values are not read, it makes its row NaN.

    The result is detached.  A zero gradient makes no step, gradients of 1e-30 and 1e+30 make the same; a row that is
    not finite is NaN in the result and touches no other.

    >>> x, g = torch.zeros(2, 3), torch.tensor([[1e-30, 0, 0], [0, 5.0, 0]])
    >>> bk.l2_pgd_step(x, x, g, step=0.5, radius=0.25)
    tensor([[0.2500, 0.0000, 0.0000],
            [0.0000, 0.2500, 0.0000]])
    """
    return _pgd_step(ops.l2_pgd_step.default, x, origin, grad, step, radius)


def l2_pgd_step_(x: Tensor, origin: Tensor, grad: Tensor, *, step: float | Tensor, radius: float | Tensor) -> Tensor:
    """:func:`l2_pgd_step` in place: overwrites x, without autograd, and returns it.

    >>> x = torch.zeros(2, 3)
    >>> bk.l2_pgd_step_(x, torch.zeros(2, 3), torch.ones(2, 3), step=0.5, radius=1.0) is x
    True
    """
    _pgd_step(ops.l2_pgd_step_.default, x, origin, grad, step, radius)
    return _overwritten(x)


def linf_pgd_step(x: Tensor, origin: Tensor, grad: Tensor, *, step: float | Tensor, radius: float | Tensor) -> Tensor:
    r"""One sign-gradient step, projected on the cube around ``origin``; arguments and rules of :func:`l2_pgd_step`.

    .. math:: x' = \Pi_{\lVert x - x_0\rVert_\infty \le \epsilon}\bigl(x + \eta\, \mathrm{sign}(g)\bigr)

    >>> x, g = torch.zeros(2, 2), torch.tensor([[1e-30, -3.0], [0.0, 5.0]])
    >>> bk.linf_pgd_step(x, x, g, step=0.5, radius=0.25)
    tensor([[ 0.2500, -0.2500],
            [ 0.0000,  0.2500]])
    """
    return _pgd_step(ops.linf_pgd_step.default, x, origin, grad, step, radius)


def linf_pgd_step_(x: Tensor, origin: Tensor, grad: Tensor, *, step: float | Tensor, radius: float | Tensor) -> Tensor:
    """:func:`linf_pgd_step` in place: overwrites x, without autograd, and returns it.

    >>> x = torch.zeros(2, 3)
    >>> bk.linf_pgd_step_(x, torch.zeros(2, 3), torch.ones(2, 3), step=0.5, radius=1.0) is x
    True
    """
    _pgd_step(ops.linf_pgd_step_.default, x, origin, grad, step, radius)
    return _overwritten(x)


# ---- on the way to an op ---------------------------------------------------------------------------------------------


def _float32(*tensors: Any) -> tuple[Any, ...]:
    """What autocast does before an op, done where autograd sees it: gradients come back in the inputs' own dtypes."""
    if not torch.is_autocast_enabled(tensors[0].device.type):
        return tensors
    return tuple(t if t is None or t.dtype == torch.float64 else t.float() for t in tensors)


def _pgd_step(op: Any, x: Tensor, origin: Tensor, grad: Tensor, step: float | Tensor, radius: float | Tensor) -> Tensor:
    try:
        step_rows, step_number = _per_row("step", step, x)
        radius_rows, radius_number = _per_row("radius", radius, x)
        if torch.is_grad_enabled() and (x.requires_grad or origin.requires_grad or grad.requires_grad):
            x, origin, grad = x.detach(), origin.detach(), grad.detach()
        if torch._C._is_any_autocast_enabled() and torch.is_autocast_enabled(x.device.type):
            grad = grad.to(x.dtype)
        return op(x, origin, grad, step_rows, radius_rows, step_number, radius_number)
    except _REFUSALS as error:
        if op._schema.is_mutable and isinstance(x, Tensor) and torch._debug_has_internal_overlap(x) == 1:
            raise ValueError("x: got an expanded tensor, expected one with memory for each element") from None
        _explain(error, {"x": x, "origin": origin, "grad": grad}, 1, required=("x", "origin", "grad"))


def _overwritten(x: Tensor) -> Tensor:
    """Tells autograd, which an op of a library does not: a backward that needs the old value then refuses."""
    torch.autograd.graph.increment_version(x)
    return x


def _per_row(name: str, value: float | Tensor, x: Tensor) -> tuple[Tensor | None, float]:
    value = _arguments.number_or_tensor(name, value, "row")
    if not isinstance(value, Tensor):
        return None, value
    rows = _arguments.per_row(name, value, x.shape[:-1], "row of x")
    return rows.to(torch.float32 if x.dtype == torch.bfloat16 else x.dtype), 0.0


def _explain(
    error: Exception, tensors: dict[str, Any], patches: Any, required: tuple[str, ...] = ("x", "W", "a")
) -> NoReturn:
    """Raises what was wrong with the arguments, or the error itself where it was something else."""
    for name, value in tensors.items():
        if value is None and name not in required:
            continue
        if not isinstance(value, Tensor):
            raise TypeError(f"{name}: got {type(value).__name__}, expected a tensor") from None
        if value.layout != torch.strided:
            raise TypeError(f"{name}: got layout {value.layout}, expected a dense tensor") from None
    if isinstance(patches, bool) or not isinstance(patches, (int, torch.SymInt)):
        raise TypeError(f"patches: got {type(patches).__name__}, expected an integer") from None
    if isinstance(error, NotImplementedError):
        x = tensors["x"]
        raise ValueError(f"x: is on {x.device}, expected a device that this build has kernels for") from error
    raise error
