"""The definition of correctness: every op in float64, written as its formula and never fast.

Same names, arguments and shapes as the public functions. Arrays n×m are formed freely, independent networks are looped
over, and everything is computed in float64 whatever came in. The tests know no other oracle.

Letters: n samples, d dimension, m neurons, P patches, k heads, K steps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import inf, nan
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from .activation import Activation, resolve

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


# ---- one network -----------------------------------------------------------------------------------------------------


@dataclass
class Network:
    """f(x) = c + Σ_p Σ_j a_j φ(<w_j, x_p> + b_j) for points X (n, P, d)."""

    W: Tensor  # (m, d)
    a: Tensor  # (k, m)
    b: Tensor  # (m,)
    c: Tensor  # (k,)
    phi: Activation

    def preactivation(self, X: Tensor) -> Tensor:  # (n, P, m)
        return torch.einsum("npd,md->npm", X, self.W) + self.b

    def output(self, X: Tensor) -> Tensor:  # (n, k)
        return self.c + torch.einsum("npm,km->nk", self.phi.value(self.preactivation(X)), self.a)

    def gate(self, X: Tensor, R: Tensor) -> Tensor:
        """U_pj = φ'(h_pj) Σ_c R_c a_cj: the gradient of Σ R·f in neuron space, (n, P, m)."""
        return self.phi.first(self.preactivation(X)) * (R @ self.a)[:, None, :]

    def input_gradient(self, X: Tensor, R: Tensor) -> Tensor:  # (n, P, d)
        return self.gate(X, R) @ self.W

    def parameter_gradient(self, X: Tensor, R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        U = self.gate(X, R)
        gW = torch.einsum("npm,npd->md", U, X)
        ga = torch.einsum("nk,npm->km", R, self.phi.value(self.preactivation(X)))
        return gW, ga, U.sum((0, 1))


def _networks(
    x: Tensor,
    W: Tensor,
    a: Tensor,
    bias: Tensor | None,
    head_bias: Tensor | None,
    activation: str | Activation,
    patches: int,
) -> Iterator[tuple[Tensor, Network]]:
    """Each network with its points (n, P, d)."""
    S, (m, d) = W.shape[:-2], W.shape[-2:]
    networks, rows = S.numel(), _rows_of_each(x, W)
    heads = _head_shape(W, a).numel()
    points = x.double().expand(*S, *x.shape[-2:]) if S else x.double()
    points = points.reshape(networks, rows, patches, d)
    b = W.new_zeros(networks, m, dtype=torch.float64) if bias is None else bias.double().reshape(networks, m)
    c = (
        W.new_zeros(networks, heads, dtype=torch.float64)
        if head_bias is None
        else head_bias.double().reshape(networks, heads)
    )
    W, a = W.double().reshape(networks, m, d), a.double().reshape(networks, heads, m)
    for i in range(networks):
        yield points[i], Network(W[i], a[i], b[i], c[i], resolve(activation))


def _row_shape(x: Tensor, W: Tensor) -> torch.Size:
    """Of the results: one entry for each row of each network."""
    return W.shape[:-2] + x.shape[-2:-1] if W.dim() > 2 else x.shape[:-1]


def _rows_of_each(x: Tensor, W: Tensor) -> int:
    return _row_shape(x, W)[W.dim() - 2 :].numel()


def _head_shape(W: Tensor, a: Tensor) -> torch.Size:
    return a.shape[-2:-1] if a.dim() == W.dim() else torch.Size()


def _stack(parts: list[Tensor], shape: torch.Size, like: Tensor) -> Tensor:
    return torch.stack(parts).reshape(shape) if parts else like.new_zeros(shape, dtype=torch.float64)


# ---- value and gradients ---------------------------------------------------------------------------------------------


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
    """f(x) = c + Σ_p Σ_j a_j φ(<w_j, x_p> + b_j)"""
    f = [net.output(X) for X, net in _networks(x, W, a, bias, head_bias, activation, patches)]
    return _stack(f, _row_shape(x, W) + _head_shape(W, a), x)


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
    """f, and the gradient of Σ cotangent·f with respect to x (for each network its own, also where x is shared)."""
    rows, heads = _row_shape(x, W), _head_shape(W, a)
    R = W.new_ones(rows + heads, dtype=torch.float64) if cotangent is None else cotangent.double()
    networks = list(_networks(x, W, a, bias, head_bias, activation, patches))
    R = R.reshape(len(networks), _rows_of_each(x, W), heads.numel())
    f = [net.output(X) for X, net in networks]
    g = [net.input_gradient(X, R[i]) for i, (X, net) in enumerate(networks)]
    return _stack(f, rows + heads, x), _stack(g, rows + x.shape[-1:], x)


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
    """The gradients of Σ cotangent·f with respect to W, a and bias."""
    networks = list(_networks(x, W, a, bias, None, activation, patches))
    R = cotangent.double().reshape(len(networks), _rows_of_each(x, W), _head_shape(W, a).numel())
    grads = [net.parameter_gradient(X, R[i]) for i, (X, net) in enumerate(networks)]
    gW, ga, gb = zip(*grads, strict=True) if grads else ([], [], [])
    return _stack(list(gW), W.shape, x), _stack(list(ga), a.shape, x), _stack(list(gb), W.shape[:-1], x)


# ---- one projected step ----------------------------------------------------------------------------------------------


def _norm(rows: Tensor) -> Tensor:
    """‖row‖ (n,), scaled by the largest entry first: no overflow, no underflow."""
    size = _largest(rows)
    return size * (rows / torch.where(size > 0, size, 1.0)[:, None]).square().sum(1).sqrt()


def _largest(rows: Tensor) -> Tensor:
    return rows.abs().amax(1) if rows.shape[1] else rows.new_zeros(rows.shape[0])


def _unit(rows: Tensor) -> Tensor:
    """row / ‖row‖, and 0 for a zero row."""
    size = _largest(rows)[:, None]
    scaled = rows / torch.where(size > 0, size, 1.0)
    norm = _norm(scaled)[:, None]
    return scaled / torch.where(norm > 0, norm, 1.0)


def _project_l2(delta: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """δ moved back onto the ball, and the rows that were outside of it."""
    norm = _norm(delta)
    outside = norm > radius
    return torch.where(outside[:, None], delta * (radius / norm)[:, None], delta), outside


def _project_linf(delta: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    outside = _largest(delta) > radius
    return torch.clamp(delta, -radius[:, None], radius[:, None]), outside


def _finite(rows: Tensor) -> Tensor:
    return rows.isfinite().flatten(1).all(1)


def _valid(step: Tensor, radius: Tensor) -> Tensor:
    return (step >= 0) & step.isfinite() & (radius >= 0)


def _per_row(value: float | Tensor, x: Tensor) -> Tensor:
    rows = x.shape[:-1]
    return torch.as_tensor(value, dtype=torch.float64, device=x.device).expand(rows).reshape(-1)


def _pgd_step(
    x: Tensor,
    origin: Tensor,
    grad: Tensor,
    step: float | Tensor,
    radius: float | Tensor,
    direction: Callable[[Tensor], Tensor],
    project: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
) -> Tensor:
    shape, rows = x.shape, x.shape[:-1]
    eta, epsilon = _per_row(step, x), _per_row(radius, x)
    x, origin, grad = (t.double().reshape(rows.numel(), shape[-1]) for t in (x, origin, grad))
    u = direction(grad)
    moved = (eta > 0) & (u != 0).any(1)
    delta, outside = project((x - origin) + torch.where(moved, eta, 0.0)[:, None] * u, epsilon)
    new = torch.where((moved | outside)[:, None], origin + delta, x)
    new = torch.where((epsilon == 0)[:, None], origin, new)
    good = _valid(eta, epsilon) & _finite(x) & _finite(origin) & _finite(grad)
    return torch.where(good[:, None], new, nan).reshape(shape)


def l2_pgd_step(x: Tensor, origin: Tensor, grad: Tensor, *, step: float | Tensor, radius: float | Tensor) -> Tensor:
    """x' = Π(x + η g/‖g‖), Π the projection on the ball of that radius around ``origin``"""
    return _pgd_step(x, origin, grad, step, radius, _unit, _project_l2)


def linf_pgd_step(x: Tensor, origin: Tensor, grad: Tensor, *, step: float | Tensor, radius: float | Tensor) -> Tensor:
    """x' = Π(x + η sign(g)), Π the projection on the cube of that half-width around ``origin``"""
    return _pgd_step(x, origin, grad, step, radius, torch.sign, _project_linf)


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
        size = _largest(residual)[:, None]
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

    def project(self, delta: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
        return (_project_l2 if self.norm == "l2" else _project_linf)(delta, radius)

    def valid_target(self, f: Tensor, y: Tensor) -> Tensor:
        if self.loss == "squared":
            return _finite(y)
        if f.shape[1] == 1:
            return y.abs() == 1
        return (y == y.floor()) & (y >= 0) & (y < f.shape[1])

    def ascent(self, net: Network, X: Tensor, f: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient (n, P·d) and the direction of the step, zero where none is made."""
        unit = _unit if self.norm == "l2" else torch.sign
        if isinstance(self.direction, str):
            R = _exact_cotangent(f, y, self.loss)
            g = net.input_gradient(X, R).flatten(1)
            # With paired neurons the gradient is zero, and what is computed for it is rounding noise of this size.
            noise = 8 * _ROUNDOFF * (net.gate(X, R).abs() @ net.W.norm(dim=1)).sum(1)
            return g, torch.where((_norm(g) <= noise)[:, None], 0.0, unit(g))
        g = self.direction.loss_scale * net.input_gradient(X, _loss_cotangent(f, y, self.loss)).flatten(1)
        if self.norm == "linf":
            return g, torch.sign(g)
        floored = _floored(_norm(g), self.direction)[:, None]
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
    good = _valid(eta, epsilon) & _finite(x0)
    path = []
    for k in range(threat.steps + 1):
        X = x.reshape(shape)
        f = net.output(X)
        g, u = threat.ascent(net, X, f, y)
        good = good & _finite(x) & _finite(f) & threat.valid_target(f, y)
        if k < threat.steps:
            good = good & _finite(g)
        path.append((X, f, _margin(f, y, threat.loss)))
        path[-1] = tuple(torch.where(good.reshape(-1, *[1] * (t.dim() - 1)), t, nan) for t in path[-1])  # type: ignore

        moved = (eta > 0) & (u != 0).any(1)
        delta, outside = threat.project(delta + torch.where(moved, eta, 0.0)[:, None] * u, epsilon)
        changed = ((moved | outside) & (epsilon > 0))[:, None]
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
    norm: str = "l2",
) -> Attacked:
    """K steps x ← Π(x + η g/‖g‖) from x0, or from ``start``, with g the gradient of the loss."""
    rows, heads, dim = _row_shape(x0, W), _head_shape(W, a), x0.shape[-1:]
    path_shape = (steps + 1, *rows, *dim)
    if not rows.numel():
        nothing = x0.new_zeros(rows, dtype=torch.float64)
        path = nothing.reshape(path_shape) if trajectory else None
        return Attacked(nothing.reshape(rows + dim), nothing.reshape(rows + heads), nothing, path)
    threat = _Threat(norm, loss, direction, box, steps)
    networks = list(_networks(x0, W, a, bias, head_bias, activation, patches))

    def each(value: float | Tensor, *shape: torch.Size) -> Tensor:
        """One row of values for each network."""
        full = torch.as_tensor(value, dtype=torch.float64, device=x0.device).expand(sum(shape, torch.Size()))
        return full.reshape(len(networks), -1, *full.shape[len(rows) :])

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
