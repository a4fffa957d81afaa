"""What no attack can push a margin below: a bound for two-layer networks with convex φ."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import _arguments
from ..activation import Activation, resolve

__all__ = ["margin_bound"]

_CONVEX = ("identity", "relu", "leaky_relu", "smooth_leaky_relu", "relu_power", "smoothed_relu", "softplus")


def margin_bound(
    x: Tensor, y: Tensor, W: Tensor, a: Tensor, *, activation: str | Activation = "relu", radius: float | Tensor
) -> Tensor:
    r"""A lower bound of y f over the ℓ2 ball around each sample, for one output and convex φ; exact up to rounding.

    .. math:: \min_{\lVert\delta\rVert\le\epsilon} y f(x+\delta) \ge \sum_j y a_j v_j - \epsilon\,\Bigl\lVert
              \sum_j y a_j s_j w_j\Bigr\rVert

    φ lies above its tangent at h_j: where y a_j > 0, v = φ(h) and s = φ'(h). Over what h_j can reach, h_j ± c with c =
    ε‖w_j‖, it lies below its chord: where y a_j < 0, v = (φ(h+c) + φ(h−c))/2 and s = (φ(h+c) − φ(h−c))/2c.

    ``x``: (*S, n, d). ``y``: (*S, n) labels ±1. ``W``: (*S, m, d). ``a``: (*S, m). ``radius``: a number, or one per
    sample. Returns (*S, n): where it is positive, every attack within the radius fails.

    >>> from benign_kernels import theory
    >>> W, a = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([1.0, -1.0])
    >>> theory.margin_bound(torch.tensor([[3.0, 1.0]]), torch.ones(1), W, a, radius=1.0)
    tensor([0.5858])
    """
    phi = resolve(activation)
    if phi.name not in _CONVEX or getattr(phi, "slope", 0) > 1:
        raise ValueError(f"activation: got {phi!r}, expected a convex one: {', '.join(_CONVEX)} with slope ≤ 1")
    x, y, W, a = (_arguments.tensor(name, t) for name, t in (("x", x), ("y", y), ("W", W), ("a", a)))
    h = x @ W.mT
    reach = radius.unsqueeze(-1) if isinstance(radius, Tensor) else radius
    c = reach * torch.linalg.vector_norm(W, dim=-1).unsqueeze(-2)
    high, low = phi.value(h + c), phi.value(h - c)
    signed = y.unsqueeze(-1) * a.unsqueeze(-2)
    chord = (signed < 0) & (c > 0)
    value = torch.where(chord, (high + low) / 2, phi.value(h))
    slope = torch.where(chord, (high - low) / (2 * c), phi.first(h))
    steepest = torch.linalg.vector_norm((signed * slope) @ W, dim=-1)
    return (signed * value).sum(-1) - radius * steepest
