"""The losses, and the attack as a loop of steps."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf, nan
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from ..activation import Activation
from .network import Network, each_network, head_shape, row_shape, rows_of_each
from .step import is_finite, is_valid, largest, norm_of, project_l2, project_linf, unit_rows

_ROUNDOFF = 2.0**-53


class DirectionRule(Protocol):
    """Direction "loss": the loss's own gradient, times ``loss_scale``, divided by a norm kept off zero by the floor."""

    floor_rule: str
    floor: float
    loss_scale: float


class Attacked(NamedTuple):
    x: Tensor
    logits: Tensor
    margin: Tensor
    trajectory: Tensor | None


# ---- losses ----------------------------------------------------------------------------------------------------------
# f (n, k); y (n,) labels ±1 for one head, (n,) class indices for several, (n, k) targets for the squared loss.


def _one_hot(y: Tensor, f: Tensor) -> Tensor:
    return torch.nn.functional.one_hot(y.long().clamp(0, f.shape[1] - 1), f.shape[1]).bool()


def _margin(f: Tensor, y: Tensor, loss: str) -> Tensor:
    if loss == "squared":
        return -(f - y).square().sum(1)
    if f.shape[1] == 1:
        return y * f[:, 0]
    chosen = _one_hot(y, f)
    return f[chosen] - f.masked_fill(chosen, -inf).amax(1)


def _exact_cotangent(f: Tensor, y: Tensor, loss: str) -> Tensor:
    """R such that Σ R·∇f points where the loss grows, free of the size of ℓ'."""
    if loss == "squared":
        residual = f - y
        size = largest(residual)[:, None]
        return residual / torch.where(size > 0, size, 1.0)
    if f.shape[1] == 1:
        return -y[:, None]
    chosen = _one_hot(y, f)
    others = torch.softmax(f.masked_fill(chosen, -inf), 1)
    return torch.where(chosen, -1.0, others)


def _loss_cotangent(f: Tensor, y: Tensor, loss: str) -> Tensor:
    """ℓ'(f) of the logistic, cross-entropy or squared loss."""
    if loss == "squared":
        return 2 * (f - y)
    if f.shape[1] == 1:
        return -y[:, None] * torch.sigmoid(-y[:, None] * f)
    return torch.softmax(f, 1) - _one_hot(y, f).double()


def _floored(norm: Tensor, rule: DirectionRule) -> Tensor:
    floor = torch.full_like(norm, rule.floor)
    if rule.floor_rule == "added":
        return norm + floor
    if rule.floor_rule == "clipped":
        return torch.maximum(norm, floor)
    if rule.floor_rule == "squared":
        return torch.maximum(norm.square(), floor).sqrt()
    raise ValueError(f"floor_rule: got {rule.floor_rule!r}, expected added, clipped or squared")


# ---- the attack ------------------------------------------------------------------------------------------------------


@dataclass
class _Threat:
    norm: str
    loss: str
    direction: str | DirectionRule
    box: tuple[float, float] | None
    steps: int
    early_stop: bool

    def project(self, delta: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        return (project_l2 if self.norm == "l2" else project_linf)(delta, radius)

    def valid_target(self, f: Tensor, y: Tensor) -> Tensor:
        if self.loss == "squared":
            return is_finite(y)
        if f.shape[1] == 1:
            return y.abs() == 1
        return (y == y.floor()) & (y >= 0) & (y < f.shape[1])

    def ascent(self, net: Network, X: Tensor, f: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient (n, P·d) and the direction of the step, zero where none is made."""
        unit = unit_rows if self.norm == "l2" else torch.sign
        if isinstance(self.direction, str):
            R = _exact_cotangent(f, y, self.loss)
            g = net.input_gradient(X, R).flatten(1)
            # With paired neurons the gradient is zero, and what is computed for it is rounding noise of this size.
            noise = 8 * _ROUNDOFF * (net.gate(X, R).abs() @ net.W.norm(dim=1)).sum(1)
            return g, torch.where((norm_of(g) <= noise)[:, None], 0.0, unit(g))
        g = self.direction.loss_scale * net.input_gradient(X, _loss_cotangent(f, y, self.loss)).flatten(1)
        if self.norm == "linf":
            return g, torch.sign(g)
        floored = _floored(norm_of(g), self.direction)[:, None]
        return g, g / torch.where(floored > 0, floored, 1.0)


def _walk(
    threat: _Threat, net: Network, x0: Tensor, y: Tensor, epsilon: Tensor, eta: Tensor, start: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """x_0 … x_K of the rows of one network with their logits and margins: (K+1, n, P, d), (K+1, n, k), (K+1, n)."""
    shape, x0 = x0.shape, x0.flatten(1)
    delta, x = torch.zeros_like(x0), x0
    if start is not None:
        start = start if threat.box is None else start.clamp(*threat.box)
        delta, _ = threat.project(start - x0, epsilon)
        x = torch.where((epsilon == 0)[:, None], x0, x0 + delta)
    good = is_valid(eta, epsilon) & is_finite(x0)
    path = []
    for k in range(threat.steps + 1):
        X = x.reshape(shape)
        f = net.output(X)
        g, u = threat.ascent(net, X, f, y)
        margin = _margin(f, y, threat.loss)
        rests = ~(margin > 0) if threat.early_stop else torch.zeros_like(good)
        good = good & is_finite(x) & is_finite(f) & threat.valid_target(f, y)
        if k < threat.steps:
            good = good & (is_finite(g) | rests)
        path.append((X, f, margin))
        path[-1] = tuple(torch.where(good.reshape(-1, *[1] * (t.dim() - 1)), t, nan) for t in path[-1])  # type: ignore

        moved = (eta > 0) & (u != 0).any(1)
        delta, outside = threat.project(delta + torch.where(moved, eta, 0.0)[:, None] * u, epsilon)
        changed = ((moved | outside) & (epsilon > 0) & ~rests)[:, None]
        x = torch.where(changed, x0 + delta, x)
        if threat.box is not None:
            x = torch.where(changed, x.clamp(*threat.box), x)
            delta = torch.where(changed, x - x0, delta)
    xs, fs, margins = (torch.stack(list(parts)) for parts in zip(*path, strict=True))
    return xs, fs, margins


def _worst(margins: Tensor) -> Tensor:
    """For each row the iterate with the least margin, the earliest of equals; the last if any is NaN."""
    worst = torch.zeros_like(margins[0], dtype=torch.long)
    least = margins[0]
    for k in range(1, margins.shape[0]):
        better = (margins[k] < least) | margins[k].isnan()
        worst, least = torch.where(better, k, worst), torch.where(better, margins[k], least)
    return worst


def l2_pgd(
    x0: Tensor,
    y: Tensor,
    W: Tensor,
    a: Tensor,
    *,
    bias: Tensor | None = None,
    head_bias: Tensor | None = None,
    activation: str | Activation = "relu",
    patches: int = 1,
    radius: float | Tensor,
    step: float | Tensor | None = None,
    steps: int = 20,
    loss: str = "margin",
    direction: str | DirectionRule = "exact",
    box: tuple[float, float] | None = None,
    start: Tensor | None = None,
    keep: str = "last",
    trajectory: bool = False,
    early_stop: bool = False,
    norm: str = "l2",
) -> Attacked:
    """K steps x ← Π(x + η g/‖g‖) from x0, or from ``start``, with g the gradient of the loss.

    ``early_stop``: a row rests at its first iterate whose margin is not positive; the gradient there is not looked at.
    """
    rows, heads, dim = row_shape(x0, W), head_shape(W, a), x0.shape[-1:]
    path_shape = (steps + 1, *rows, *dim)
    if not rows.numel():
        nothing = x0.new_zeros(rows, dtype=torch.float64)
        path = nothing.reshape(path_shape) if trajectory else None
        return Attacked(nothing.reshape(rows + dim), nothing.reshape(rows + heads), nothing, path)
    threat = _Threat(norm, loss, direction, box, steps, early_stop)
    networks = list(each_network(x0, W, a, bias, head_bias, activation, patches))

    def each(value: float | Tensor, *shape: torch.Size) -> Tensor:
        """One row of values for each network."""
        full = torch.as_tensor(value, dtype=torch.float64, device=x0.device).expand(sum(shape, torch.Size()))
        return full.reshape(len(networks), rows_of_each(x0, W), *full.shape[len(rows) :])

    target = each(y, rows, heads) if loss == "squared" else each(y, rows)
    if loss == "squared" and not heads:
        target = target[..., None]
    epsilon = each(radius, rows)
    eta = 2.5 * epsilon / max(steps, 1) if step is None else each(step, rows)
    starts = [None] * len(networks) if start is None else each(start, rows, dim)
    walks = [_walk(threat, net, X, target[i], epsilon[i], eta[i], starts[i]) for i, (X, net) in enumerate(networks)]
    path, logits, margins = (torch.stack(list(parts), 1).flatten(1, 2) for parts in zip(*walks, strict=True))
    kept = _worst(margins) if keep == "worst" else torch.full_like(margins[0], steps, dtype=torch.long)
    row = torch.arange(len(kept), device=kept.device)
    return Attacked(
        path[kept, row].reshape(rows + dim),
        logits[kept, row].reshape(rows + heads),
        margins[kept, row].reshape(rows),
        path.reshape(path_shape) if trajectory else None,
    )


def linf_pgd(x0: Tensor, y: Tensor, W: Tensor, a: Tensor, *, radius: float | Tensor, **keywords: Any) -> Attacked:
    """K steps x ← Π(x + η sign(g)) in the cube of half-width ``radius``; the arguments of :func:`l2_pgd`."""
    return l2_pgd(x0, y, W, a, radius=radius, norm="linf", **keywords)
