"""ℓ2 and ℓ∞ PGD on two-layer networks: the whole attack in one op call."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from . import _arguments
from ._library import ops
from .activation import Activation, resolve

if TYPE_CHECKING:
    from .plan import Plan

ALGORITHMS = ("auto", "dense")


class DirectionRule(NamedTuple):
    """How a step's direction is taken from the network: what the C++ ``Threat`` holds."""

    direction: str  # "exact", or "loss" for the loss's own gradient
    floor_rule: str = "added"  # how the loss's gradient norm is kept off zero: "added", "clipped", "squared"
    floor: float = 0.0
    mean: bool = False  # the loss is a mean over the samples, not a sum


#: ``exact`` never sees the size of the loss's derivative, so that saturation cannot hide an attack.
#: The others are the gradients of the logistic or cross-entropy loss with that library's floor.
DIRECTIONS = {
    "exact": DirectionRule("exact"),
    "torchattacks": DirectionRule("loss", "added", 1e-10, mean=True),
    "foolbox": DirectionRule("loss", "clipped", 1e-12),
    "cleverhans": DirectionRule("loss", "squared", 1e-12, mean=True),
}


@dataclass(frozen=True)
class AttackResult:
    """What an attack found, one row per sample.

    ``x``: (..., n, P·d) the attacked points.  ``logits``: (..., n) or (..., n, k) the network there.
    ``margin``: (..., n), y·f, or f_y minus the largest other logit, or −‖f − y‖² for ``loss="squared"``.
    ``trajectory``: (K+1, ..., n, P·d) every iterate, when asked for; with restarts, (restarts, K+1, ...).
    """

    x: Tensor
    logits: Tensor
    margin: Tensor
    trajectory: Tensor | None
    loss: str = field(repr=False)
    problem: dict[str, Any] | None = field(repr=False)

    @property
    def success(self) -> Tensor:
        """(..., n): not (margin > 0), so that a NaN never looks robust."""
        if self.loss == "squared":
            raise ValueError(
                "success: regression has none, expected loss='margin'; see margin, minus the squared error"
            )
        return ~(self.margin > 0)

    @cached_property
    def plan(self) -> Plan | None:
        """The algorithm the attack ran, with its estimated cost and the reason; None where it went through autograd."""
        from .plan import plan

        return None if self.problem is None else plan(**self.problem)


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
    direction: str = "exact",
    box: tuple[float, float] | None = None,
    start: Tensor | None = None,
    restarts: int = 1,
    generator: torch.Generator | None = None,
    keep: str = "last",
    trajectory: bool = False,
    algorithm: str = "auto",
) -> AttackResult:
    r"""Projected gradient descent on the margin, in the ℓ2 ball around each sample.

    .. math:: x_{k+1} = \Pi_{B(x_0, \epsilon)}\Bigl(x_k + \eta\, \frac{g_k}{\lVert g_k\rVert}\Bigr), \qquad
              g_k = -y\, \nabla f(x_k)

    Args:
        x0: (..., n, P·d) samples.  With batched networks, (*S, n, P·d), or (n, P·d) shared by all.
        y: (..., n) labels ±1 for one head; class indices for k heads; targets shaped like f for ``loss="squared"``.
            One more dimension, of size 1, is dropped.
        W: (*S, m, d) first layers of independent networks S (usually none: (m, d)).
        a: (*S, m) one head, or (*S, k, m).
        bias, head_bias: (*S, m); (*S,) or (*S, k).
        activation: a name or an object of :mod:`benign_kernels.activation`.
        patches: P; a sample is P patches of length d, f sums over them.
        radius: ε ≥ 0, a number or one per sample; ``inf`` for no projection.
        step: η ≥ 0, a finite number or one per sample; 2.5·ε/steps by default.
        steps: K ≥ 0.
        loss: ``"margin"``, any monotone loss of it (for k heads the scale-free cross-entropy), or ``"squared"``.
        direction: ``"exact"``, free of the loss's saturation; or the loss gradient as ``"torchattacks"``, ``"foolbox"``
            or ``"cleverhans"`` takes it.
        box: (lo, hi) that x is clamped to after each projection.
        start: shaped like x0, where the first restart begins (clamped to the box, projected on the ball); or x0.
        restarts: how often to begin; the first at ``start``, the others uniformly in the ball, from ``generator``.
        keep: ``"last"``, the final iterate, or ``"worst"``, the iterate of least margin among x_0 … x_K; over
            restarts, the one of least margin either way.
        trajectory: whether to return every iterate.
        algorithm: ``"auto"``, or one by name.

    The result is computed in W's precision (float32 for bfloat16), without autograd.  A sample that is not finite, or
    becomes so, is NaN in the result and touches no other.

    >>> W, a = torch.randn(256, 10), torch.ones(256) / 16
    >>> x, y = torch.randn(100, 10), torch.ones(100)
    >>> bk.l2_pgd(x, y, W, a, radius=0.5).margin.shape
    torch.Size([100])
    """
    network = _Network(W, a, bias, head_bias, activation, patches)
    budget = _Budget("l2", radius, step, steps, loss, direction, box, start, restarts, generator, keep, trajectory)
    return _pgd(x0, y, network, budget, algorithm)


def linf_pgd(
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
    direction: str = "exact",
    box: tuple[float, float] | None = None,
    start: Tensor | None = None,
    restarts: int = 1,
    generator: torch.Generator | None = None,
    keep: str = "last",
    trajectory: bool = False,
    algorithm: str = "auto",
) -> AttackResult:
    r"""Projected sign-gradient descent on the margin, in the ℓ∞ ball; arguments and result as :func:`l2_pgd`.

    .. math:: x_{k+1} = \Pi_{\lVert x - x_0\rVert_\infty \le \epsilon}\bigl(x_k + \eta\, \mathrm{sign}(g_k)\bigr)

    >>> W, a = torch.randn(256, 10), torch.ones(256) / 16
    >>> x, y = torch.randn(100, 10), torch.ones(100)
    >>> bool(((bk.linf_pgd(x, y, W, a, radius=0.1).x - x).abs() <= 0.1 + 1e-6).all())
    True
    """
    network = _Network(W, a, bias, head_bias, activation, patches)
    budget = _Budget("linf", radius, step, steps, loss, direction, box, start, restarts, generator, keep, trajectory)
    return _pgd(x0, y, network, budget, algorithm)


class _Network(NamedTuple):
    W: Any
    a: Any
    bias: Any
    head_bias: Any
    activation: str | Activation
    patches: int


class _Budget(NamedTuple):
    norm: str
    radius: Any
    step: Any
    steps: int
    loss: str
    direction: str
    box: tuple[float, float] | None
    start: Any
    restarts: int
    generator: torch.Generator | None
    keep: str
    trajectory: bool


@torch.no_grad()
def _pgd(x0: Any, y: Any, network: _Network, budget: _Budget, algorithm: str) -> AttackResult:
    budget, network = _checked(budget, algorithm), _checked_network(network)
    phi, patches = resolve(network.activation), network.patches
    W, a, bias, head_bias = network[:4]
    dtype = torch.float32 if W.dtype == torch.bfloat16 else W.dtype
    x0, start = _widened(_arguments.tensor("x0", x0)), _widened(budget.start)
    if x0.shape[-1:] != (patches * W.shape[-1],):
        raise ValueError(f"x0: got shape {tuple(x0.shape)}, expected (..., {patches * W.shape[-1]})")

    networks = W.shape[:-2]
    rows = x0.shape[:-1] if not networks else (*networks, *x0.shape[-2:-1])
    points = (*rows, *x0.shape[-1:])
    lo, hi = budget.box if budget.box is not None else (-math.inf, math.inf)
    if start is not None:
        start = (start.expand(points) if start.shape == x0.shape else start).clamp(lo, hi)
    like = {"dtype": dtype, "device": x0.device}
    y = _targets(y, rows, a.shape[-2] if a.dim() == W.dim() else None, budget.loss, like)
    radius, radius_rows = _per_row("radius", budget.radius, rows, like)
    step, step_rows = _per_row("step", _step_size(budget), rows, like)
    rule = DIRECTIONS[budget.direction]
    samples = max(1, math.prod(rows) // max(1, math.prod(networks)))

    def attack_from(start: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        return ops.pgd.default(
            *(x0, y, W, a, bias, head_bias, start, radius_rows, step_rows, radius, step, budget.steps),
            *(budget.norm, budget.loss, rule.direction, rule.floor_rule, rule.floor, 1 / samples if rule.mean else 1.0),
            *(budget.keep == "worst", lo, hi, budget.trajectory, *phi.native, patches),
        )

    x, logits, margin, path = attack_from(start)
    paths = [path]
    for _ in range(budget.restarts - 1):
        offset = _uniform_in_ball(
            budget.norm, points, radius if radius_rows is None else radius_rows, budget.generator, like
        )
        found = attack_from((x0 + offset).clamp(lo, hi))
        # A NaN wins: once a sample is not finite it stays so, as it does within one attack.
        worse = (found[2] < margin) | found[2].isnan()
        x = torch.where(worse.unsqueeze(-1), found[0], x)
        logits = torch.where(worse if logits.dim() == worse.dim() else worse.unsqueeze(-1), found[1], logits)
        margin = torch.where(worse, found[2], margin)
        paths.append(found[3])

    trajectory = None
    if budget.trajectory:
        trajectory = paths[0] if budget.restarts == 1 else torch.stack(paths)
    heads = a.shape[-2] if a.dim() == W.dim() else 1
    shape = {"n": samples, "d": W.shape[-1], "m": W.shape[-2], "patches": patches, "heads": heads}
    shape["steps"] = budget.steps
    problem = {**shape, "networks": math.prod(networks), "activation": phi, "dtype": W.dtype, "device": x0.device.type}
    return AttackResult(x, logits, margin, trajectory, budget.loss, {**problem, "algorithm": algorithm})


def _widened(points: Any) -> Any:
    """Iterates are float32 for bfloat16 networks: a bfloat16 iterate cannot hold a small step."""
    return points.float() if points is not None and points.dtype == torch.bfloat16 else points


def _targets(y: Any, rows: tuple[int, ...], heads: int | None, loss: str, like: dict[str, Any]) -> Tensor:
    y = _arguments.tensor("y", y)
    if y.device != like["device"]:
        raise ValueError(f"y: is on {y.device}, expected {like['device']}, where x0 is")
    classes = loss == "margin" and heads is not None and heads > 1
    shape = rows if loss == "margin" or heads is None else (*rows, heads)
    y = y.squeeze(-1) if y.shape == (*shape, 1) else y
    try:
        y = y.expand(shape)
    except RuntimeError:
        raise ValueError(f"y: got shape {tuple(y.shape)}, expected {tuple(shape)}") from None
    if not classes:
        return y.to(like["dtype"])
    if y.is_floating_point():
        raise TypeError(f"y: got {y.dtype}, expected class indices (int64) for a network of {heads} heads")
    return y.long()


def _per_row(
    name: str, value: float | Tensor, rows: tuple[int, ...], like: dict[str, Any]
) -> tuple[float, Tensor | None]:
    """The number, or 0 and one number per row."""
    if not isinstance(value, Tensor):
        return value, None
    return 0.0, _arguments.per_row(name, value.to(like["dtype"]), rows, "sample")


def _step_size(budget: _Budget) -> float | Tensor:
    if budget.step is not None:
        return budget.step
    if budget.steps == 0:
        return 0.0
    if _infinite(budget.radius):
        raise ValueError("step: got None, expected a number when radius is infinite")
    return budget.radius * (2.5 / budget.steps)


def _infinite(radius: float | Tensor) -> bool:
    if isinstance(radius, Tensor):
        return _arguments.readable(radius) and bool(radius.isinf().any())
    return math.isinf(radius)


def _uniform_in_ball(
    norm: str, points: tuple[int, ...], radius: float | Tensor, generator: torch.Generator | None, like: dict[str, Any]
) -> Tensor:
    radius = radius.unsqueeze(-1) if isinstance(radius, Tensor) else radius
    # A compiled torch.rand with symbolic sizes refuses even generator=None.
    drawn = like if generator is None else {**like, "generator": generator}
    if norm == "linf":
        return (2 * torch.rand(points, **drawn) - 1) * radius
    direction = torch.nn.functional.normalize(torch.randn(points, **drawn), dim=-1)
    volume = torch.rand((*points[:-1], 1), **drawn)
    return direction * volume ** (1 / max(1, points[-1])) * radius


def _checked(budget: _Budget, algorithm: str) -> _Budget:
    """The budget in plain types: numbers, tensors, and a box of two numbers."""
    _arguments.one_of("algorithm", algorithm, ALGORITHMS)
    _arguments.one_of("loss", budget.loss, ("margin", "squared"))
    _arguments.one_of("direction", budget.direction, tuple(DIRECTIONS))
    _arguments.one_of("keep", budget.keep, ("last", "worst"))
    radius = _arguments.number_or_tensor("radius", budget.radius, "sample")
    _arguments.not_negative("radius", radius)
    step = None
    if budget.step is not None:
        step = _arguments.number_or_tensor("step", budget.step, "sample")
        _arguments.not_negative("step", step, finite=True)
    steps = _arguments.integer("steps", budget.steps, 0)
    restarts = _arguments.integer("restarts", budget.restarts, 1)
    if restarts > 1 and _infinite(radius):
        raise ValueError("restarts: got more than one with an infinite radius, expected a finite radius to start in")
    if budget.generator is not None and not isinstance(budget.generator, torch.Generator):
        raise TypeError(f"generator: got {type(budget.generator).__name__}, expected a torch.Generator or None")
    if not isinstance(budget.trajectory, (bool, np.bool_)):
        raise TypeError(f"trajectory: got {budget.trajectory!r}, expected True or False")
    return budget._replace(
        radius=radius,
        step=step,
        steps=steps,
        box=_checked_box(budget.box),
        start=_arguments.optional("start", budget.start),
        restarts=restarts,
        trajectory=bool(budget.trajectory),
    )


def _checked_box(box: Any) -> tuple[float, float] | None:
    if box is None:
        return None
    try:
        lo, hi = (float(end) for end in box)
    except (TypeError, ValueError):
        raise TypeError(f"box: got {box!r}, expected (lo, hi), two numbers") from None
    if not lo <= hi:
        raise ValueError(f"box: got ({lo:.15g}, {hi:.15g}), expected lo ≤ hi")
    return lo, hi


def _checked_network(network: _Network) -> _Network:
    """Its tensors without history, and the shapes that y and x0 are read by; the rest is checked by the op."""
    W, a = _arguments.tensor("W", network.W), _arguments.tensor("a", network.a)
    if W.dim() < 2:
        raise ValueError(f"W: got shape {tuple(W.shape)}, expected (m, d) or (networks..., m, d)")
    if a.dim() not in (W.dim() - 1, W.dim()) or a.shape[-1] != W.shape[-2]:
        *networks, m = W.shape[:-1]
        several = ", ".join(map(str, (*networks, "k", m)))
        raise ValueError(f"a: got shape {tuple(a.shape)}, expected {(*networks, m)}, or ({several}) for k heads")
    return network._replace(
        W=W,
        a=a,
        bias=_arguments.optional("bias", network.bias),
        head_bias=_arguments.optional("head_bias", network.head_bias),
        patches=_arguments.integer("patches", network.patches, 1),
    )
