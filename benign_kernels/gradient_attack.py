"""PGD on any model: autograd's gradient, the fused step, and losses that cannot saturate."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ._budget import DIRECTIONS, Budget, DirectionRule, per_row, step_size, uniform_in_ball
from .attack import AttackResult
from .ops import l2_pgd_step, linf_pgd_step

Model = Callable[[Tensor], Tensor]
STEPS = {"l2": l2_pgd_step, "linf": linf_pgd_step}


@contextmanager
def evaluation_mode(model: Any) -> Iterator[None]:
    """Every module of ``model`` in evaluation mode, and afterwards each in the mode it had."""
    modules = list(model.modules()) if isinstance(model, nn.Module) else []
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.training = False
        yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.training = mode


def value_and_grad(model: Model, x: Tensor, cotangent: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The logits f at x, and the gradient of Σ R·f with respect to x alone, where R = cotangent(f)."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = x.clone().detach().requires_grad_()
        f = model(leaf)
        if not f.requires_grad:
            raise TypeError("model: its output carries no gradient with respect to its input")
        (g,) = torch.autograd.grad(f, leaf, cotangent(f.detach()), allow_unused=True)
    return f.detach(), torch.zeros_like(x) if g is None else g


# ---- losses ----------------------------------------------------------------------------------------------------------
# f (n, k); y (n,) labels ±1 for one logit, (n,) class indices for several, (n, k) targets for the squared loss.


def exact_cotangent(f: Tensor, y: Tensor, loss: str) -> Tensor:
    """R such that Σ R·f grows where the loss does, free of the size of ℓ', which underflows and masks the attack."""
    if loss == "squared":
        residual = f - y
        size = residual.abs().amax(-1, keepdim=True)
        return residual / torch.where(size > 0, size, 1.0)
    if f.shape[-1] == 1:
        return -y.unsqueeze(-1)
    chosen = _one_hot(y, f)
    return torch.where(chosen, -1.0, f.masked_fill(chosen, -torch.inf).softmax(-1))


def loss_cotangent(f: Tensor, y: Tensor, loss: str, scale: float) -> Tensor:
    """ℓ'(f) of the logistic, cross-entropy or squared loss, times ``scale``."""
    if loss == "squared":
        return 2 * scale * (f - y)
    if f.shape[-1] == 1:
        signs = y.unsqueeze(-1)
        return -scale * signs * torch.sigmoid(-signs * f)
    return scale * (f.softmax(-1) - _one_hot(y, f).to(f.dtype))


def margin_of(f: Tensor, y: Tensor, loss: str) -> Tensor:
    """y·f, or f_y minus the largest other logit, or −‖f − y‖²."""
    if loss == "squared":
        return -(f - y).square().sum(-1)
    if f.shape[-1] == 1:
        return y * f[..., 0]
    chosen = _one_hot(y, f)
    return f.masked_fill(~chosen, 0.0).sum(-1) - f.masked_fill(chosen, -torch.inf).amax(-1)


def _one_hot(y: Tensor, f: Tensor) -> Tensor:
    return y.unsqueeze(-1) == torch.arange(f.shape[-1], device=f.device)


def floored_step(grad: Tensor, step: float | Tensor, rule: DirectionRule) -> float | Tensor:
    """The step along g/‖g‖ that moves as far as η along g/floored(‖g‖), the quotient that other libraries form."""
    if rule.direction == "exact":
        return step
    norm = grad.norm(dim=-1)
    if rule.floor_rule == "added":
        floored = norm + rule.floor
    elif rule.floor_rule == "clipped":
        floored = norm.clamp_min(rule.floor)
    else:
        floored = norm.square().clamp_min(rule.floor).sqrt()
    # inf/inf is a gradient that overflowed, which those libraries divide down to no step.
    return step * (norm / torch.where(floored > 0, floored, 1.0)).nan_to_num(nan=0.0)


# ---- the attack ------------------------------------------------------------------------------------------------------


class _Iterates(NamedTuple):
    """One restart's outcome: points (n, D), logits (n, k), margins (n,), and all points (K+1, n, D) if asked for."""

    x: Tensor
    logits: Tensor
    margin: Tensor
    trajectory: list[Tensor]

    def take(self, rows: Tensor, other: _Iterates) -> _Iterates:
        """This, with the given rows from ``other``."""
        return self._replace(
            x=torch.where(rows.unsqueeze(-1), other.x, self.x),
            logits=torch.where(rows.unsqueeze(-1), other.logits, self.logits),
            margin=torch.where(rows, other.margin, self.margin),
        )


def attack_by_gradient(model: Model, x: Tensor, read: Callable[[int], Tensor], budget: Budget) -> AttackResult:
    """`attack_model` on a model that is no two-layer network; ``read(k)`` gives the labels for a model of k logits."""
    if not x.is_floating_point():
        raise TypeError(f"x: got {x.dtype}, expected floating-point samples")
    with evaluation_mode(model), torch.no_grad():
        walk = _Walk(model, x, read, budget)
        best = walk.from_point(walk.origin if budget.start is None else walk.projected(budget.start))
        paths = best.trajectory
        for _ in range(budget.restarts - 1):
            found = walk.from_point(walk.random_point(budget.generator))
            best = best.take((found.margin < best.margin) | found.margin.isnan(), found)
            paths = paths + found.trajectory
    trajectory = None
    if budget.trajectory:
        restarts = () if budget.restarts == 1 else (budget.restarts,)
        trajectory = torch.stack(paths).reshape(*restarts, budget.steps + 1, *x.shape)
    logits = best.logits.reshape(walk.logits_shape)
    points = best.x.reshape(x.shape) if budget.need == "x" else None
    return AttackResult(points, logits, best.margin, trajectory, budget.loss, problem=None)


class _Walk:
    """K steps from a given point, for the samples of one attack."""

    def __init__(self, model: Model, x: Tensor, read: Callable[[int], Tensor], budget: Budget) -> None:
        self.model, self.shape, self.model_dtype, self.budget = model, x.shape, x.dtype, budget
        # A half-precision iterate cannot hold a small step.
        dtype = torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype
        n = x.shape[0]
        self.origin = x.reshape(n, x.shape[1:].numel()).to(dtype)
        f = model(x)
        if not isinstance(f, Tensor) or f.ndim not in (1, 2) or f.shape[0] != n:
            got = tuple(f.shape) if isinstance(f, Tensor) else type(f).__name__
            raise ValueError(f"model: returned {got}, expected logits of shape ({n},) or ({n}, k)")
        self.logits_shape = f.shape if f.ndim == 2 and f.shape[1] > 1 else (n,)
        y = read(1 if f.ndim == 1 else f.shape[1])
        self.y = y if not y.is_floating_point() else y.to(dtype)
        like = {"dtype": dtype, "device": x.device}
        radius, radius_rows = per_row("radius", budget.radius, (n,), dtype)
        step, step_rows = per_row("step", step_size(budget), (n,), dtype)
        self.radius: float | Tensor = radius if radius_rows is None else radius_rows
        self.step: float | Tensor = step if step_rows is None else step_rows
        self.rule = DIRECTIONS[budget.direction]
        self.scale = 1 / max(n, 1) if self.rule.mean else 1.0
        self.like = like

    def logits(self, rows: Tensor) -> Tensor:
        """(n, k), k = 1 for models that return (n,)."""
        f = self.model(rows.to(self.model_dtype).reshape(self.shape))
        return (f.unsqueeze(-1) if f.ndim == 1 else f).to(rows.dtype)

    def cotangent(self, f: Tensor) -> Tensor:
        if self.rule.direction == "exact":
            return exact_cotangent(f, self.y, self.budget.loss).to(f.dtype)
        return loss_cotangent(f, self.y, self.budget.loss, self.scale)

    def projected(self, start: Tensor) -> Tensor:
        if start.shape not in (self.shape, self.origin.shape):
            raise ValueError(f"start: got shape {tuple(start.shape)}, expected {tuple(self.shape)}")
        start = start.to(self.origin.dtype).reshape(self.origin.shape)
        start = start if self.budget.box is None else start.clamp(*self.budget.box)
        return STEPS[self.budget.norm](start, self.origin, torch.zeros_like(start), step=0.0, radius=self.radius)

    def random_point(self, generator: torch.Generator | None) -> Tensor:
        offset = uniform_in_ball(self.budget.norm, tuple(self.origin.shape), self.radius, generator, self.like)
        return self.boxed(self.origin + offset, self.origin)

    def boxed(self, new: Tensor, old: Tensor) -> Tensor:
        """``new`` clamped to the box, but for rows that did not move."""
        if self.budget.box is None:
            return new
        return torch.where((new != old).any(-1, keepdim=True), new.clamp(*self.budget.box), new)

    def advance(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The logits at x, and the next iterate."""
        f, g = value_and_grad(self.logits, x, self.cotangent)
        step = floored_step(g, self.step, self.rule) if self.budget.norm == "l2" else self.step
        new = STEPS[self.budget.norm](x, self.origin, g, step=step, radius=self.radius)
        return f, self.boxed(new, x)

    def from_point(self, x: Tensor) -> _Iterates:
        steps, worst = self.budget.steps, self.budget.keep == "worst"
        best: _Iterates | None = None
        path: list[Tensor] = []
        for k in range(steps + 1):
            f, new = self.advance(x) if k < steps else (self.logits(x), x)
            here = self.checked(x, f, new)
            path += [here.x] if self.budget.trajectory else []
            if best is None:
                best = here
            else:
                better = (
                    (here.margin < best.margin) | here.margin.isnan() if worst else torch.ones_like(here.margin).bool()
                )
                best = best.take(better, here)
            new = torch.where(self.rests(here.margin).unsqueeze(-1), x, new)
            x = torch.where(here.margin.isnan().unsqueeze(-1), torch.nan, new)
        assert best is not None
        return best._replace(trajectory=path)

    def rests(self, margin: Tensor) -> Tensor:
        """Where to go no further."""
        return ~(margin > 0) & self.budget.early_stop

    def checked(self, x: Tensor, f: Tensor, new: Tensor) -> _Iterates:
        """This iterate with its margin; rows with anything that is not finite, or a label out of range, are NaN."""
        margin = margin_of(f, self.y, self.budget.loss)
        wrong = ~(x.isfinite().all(-1) & f.isfinite().all(-1) & margin.isfinite())
        wrong |= new.isnan().any(-1) & ~self.rests(margin)
        if self.budget.loss == "margin":
            wrong |= (self.y.abs() != 1) if f.shape[-1] == 1 else (self.y < 0) | (self.y >= f.shape[-1])
        nan = torch.nan
        return _Iterates(
            x.masked_fill(wrong.unsqueeze(-1), nan),
            f.masked_fill(wrong.unsqueeze(-1), nan),
            margin.masked_fill(wrong, nan),
            [],
        )
