"""One projected step, and the norms and balls it is made of. Rows (n, d) throughout."""

from __future__ import annotations

from collections.abc import Callable
from math import nan

import torch
from torch import Tensor


def norm_of(rows: Tensor) -> Tensor:
    """‖row‖ (n,), scaled by the largest entry first: no overflow, no underflow."""
    size = largest(rows)
    return size * (rows / torch.where(size > 0, size, 1.0)[:, None]).square().sum(1).sqrt()


def largest(rows: Tensor) -> Tensor:
    return rows.abs().amax(1) if rows.shape[1] else rows.new_zeros(rows.shape[0])


def unit_rows(rows: Tensor) -> Tensor:
    """row / ‖row‖, and 0 for a zero row."""
    size = largest(rows)[:, None]
    scaled = rows / torch.where(size > 0, size, 1.0)
    norm = norm_of(scaled)[:, None]
    return scaled / torch.where(norm > 0, norm, 1.0)


def project_l2(delta: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    """δ moved back onto the ball, and the rows that were outside of it."""
    norm = norm_of(delta)
    outside = norm > radius
    return torch.where(outside[:, None], delta * (radius / norm)[:, None], delta), outside


def project_linf(delta: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    outside = largest(delta) > radius
    return torch.clamp(delta, -radius[:, None], radius[:, None]), outside


def is_finite(rows: Tensor) -> Tensor:
    return rows.isfinite().flatten(1).all(1)


def is_valid(step: Tensor, radius: Tensor) -> Tensor:
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
    good = is_valid(eta, epsilon) & is_finite(x) & is_finite(origin) & is_finite(grad)
    return torch.where(good[:, None], new, nan).reshape(shape)


def l2_pgd_step(x: Tensor, origin: Tensor, grad: Tensor, *, step: float | Tensor, radius: float | Tensor) -> Tensor:
    """x' = Π(x + η g/‖g‖), Π the projection on the ball of that radius around ``origin``"""
    return _pgd_step(x, origin, grad, step, radius, unit_rows, project_l2)


def linf_pgd_step(x: Tensor, origin: Tensor, grad: Tensor, *, step: float | Tensor, radius: float | Tensor) -> Tensor:
    """x' = Π(x + η sign(g)), Π the projection on the cube of that half-width around ``origin``"""
    return _pgd_step(x, origin, grad, step, radius, torch.sign, project_linf)
