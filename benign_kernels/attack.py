"""ℓ2 and ℓ∞ PGD on two-layer networks: the whole attack in one op call."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from . import _arguments
from ._budget import DIRECTIONS, Budget, checked_budget, per_row, step_size, uniform_in_ball
from ._library import ops
from .activation import Activation, resolve
from .plan import Plan, plan

ALGORITHMS = ("auto", "dense", "half_sparse", "gram")

#: What the planner is told of an attack: arguments of `plan`.
_PROBLEM = (
    *("n", "d", "m", "patches", "heads", "steps", "networks", "activation", "dtype", "device"),
    *("norm", "box", "trajectory", "start", "gram", "need", "algorithm"),
)

#: Of the op's arguments behind `steps`: where all are these, none is given, as converting them takes a few µs.
_DEFAULTS = tuple(a.default_value for a in ops.pgd.default._schema.arguments if a.has_default_value())


def _plan(problem: tuple[Any, ...]) -> Plan:
    return plan(**dict(zip(_PROBLEM, problem, strict=True)))


@dataclass(eq=False)
class AttackResult:
    """What an attack found, one row per sample.

    ``x``: (..., n, P·d) the attacked points, unless ``need="margin"``.
    ``logits``: (..., n) or (..., n, k) the network there.
    ``margin``: (..., n), y·f, or f_y minus the largest other logit, or −‖f − y‖² for ``loss="squared"``.
    ``trajectory``: (K+1, ..., n, P·d) every iterate, when asked for; with restarts, (restarts, K+1, ...).
    """

    points: Tensor | None = field(repr=False)
    logits: Tensor
    margin: Tensor
    trajectory: Tensor | None
    loss: str = field(repr=False)
    problem: tuple[Any, ...] | None = field(repr=False)  # the values of _PROBLEM

    @property
    def x(self) -> Tensor:
        """(..., n, P·d): the attacked points."""
        if self.points is None:
            raise ValueError("x: was not computed, as need='margin' was asked for; expected need='x'")
        return self.points

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
        return None if self.problem is None else _plan(self.problem)


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
    need: str = "x",
    early_stop: bool = False,
    gram: Tensor | None = None,
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
        need: ``"margin"`` where only margins and logits are wanted: the points, a good part of the work, are left out.
        early_stop: a sample rests at its first iterate whose margin is not positive.
        gram: (*S, m, m) W Wᵀ in the dtype of the result, where the same W is attacked again and again. Its values are
            not checked: with that of another W the attack, and the margins reported, are wrong.
        algorithm: ``"auto"`` leaves it to :func:`plan`. ``"dense"`` works in input space; ``"half_sparse"`` (piecewise
            linear, one head) too, but its gradient follows the gates that flip; ``"gram"`` (no box, no trajectory) in
            neuron space, where the cost of a step does not depend on d. All are exact, and agree up to rounding.

    The result is computed in W's precision (float32 for bfloat16), without autograd.  On CUDA, float32 products are as
    accurate as float32's own, but where ``torch.backends.cuda.matmul.fp32_precision`` is ``"tf32"``: each is then
    within 2^-10 of itself.  A sample that is not finite, or becomes so, is NaN in the result
    and touches no other.

    >>> W, a = torch.randn(256, 10), torch.ones(256) / 16
    >>> x, y = torch.randn(100, 10), torch.ones(100)
    >>> bk.l2_pgd(x, y, W, a, radius=0.5).margin.shape
    torch.Size([100])
    """
    budget = checked_budget(
        *("l2", radius, step, steps, loss, direction, box, start),
        *(restarts, generator, keep, trajectory, need, early_stop),
    )
    network = _checked_network(W, a, bias, head_bias, activation, patches)
    return _pgd(x0, y, network, budget, gram, algorithm)


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
    need: str = "x",
    early_stop: bool = False,
    algorithm: str = "auto",
) -> AttackResult:
    r"""Projected sign-gradient descent on the margin, in the ℓ∞ ball; arguments and result as :func:`l2_pgd`.

    .. math:: x_{k+1} = \Pi_{\lVert x - x_0\rVert_\infty \le \epsilon}\bigl(x_k + \eta\, \mathrm{sign}(g_k)\bigr)

    >>> W, a = torch.randn(256, 10), torch.ones(256) / 16
    >>> x, y = torch.randn(100, 10), torch.ones(100)
    >>> bool(((bk.linf_pgd(x, y, W, a, radius=0.1).x - x).abs() <= 0.1 + 1e-6).all())
    True
    """
    budget = checked_budget(
        *("linf", radius, step, steps, loss, direction, box, start),
        *(restarts, generator, keep, trajectory, need, early_stop),
    )
    network = _checked_network(W, a, bias, head_bias, activation, patches)
    return _pgd(x0, y, network, budget, None, algorithm)


_Network = tuple[Tensor, Tensor, "Tensor | None", "Tensor | None", Activation, int]


def _pgd(x0: Any, y: Any, network: _Network, budget: Budget, gram: Any, algorithm: str) -> AttackResult:
    """One op call for each restart.  Small attacks take as long as this function: it makes no tensor that is there."""
    _arguments.one_of("algorithm", algorithm, ALGORITHMS)
    W, a, bias, head_bias, phi, patches = network
    *networks, m, d = W.shape
    dtype = torch.float32 if W.dtype == torch.bfloat16 else W.dtype
    x0, start = _widened(_arguments.tensor("x0", x0)), _widened(budget.start)
    *rows, size = x0.shape or (None,)
    if size != patches * d:
        raise ValueError(f"x0: got shape {tuple(x0.shape)}, expected (..., {patches * d})")
    if networks:
        rows = [*networks, *rows[-1:]]
    several, device = math.prod(networks), x0.device
    samples = max(1, math.prod(rows) // max(1, several))
    heads = a.shape[-2] if a.dim() == W.dim() else None
    y = _targets(y, tuple(rows), heads, budget.loss, dtype, device)
    radius, radius_rows = per_row("radius", budget.radius, rows, dtype)
    step, step_rows = per_row("step", step_size(budget), rows, dtype)
    lo, hi = budget.box if budget.box is not None else (None, None)
    gram = _arguments.optional("gram", gram)
    rule = DIRECTIONS[budget.direction]
    scale = 1 / samples if rule.mean else 1.0
    problem = (
        *(samples, d, m, patches, heads or 1, budget.steps, several, phi, W.dtype, device),
        *(budget.norm, budget.box is not None, budget.trajectory, start is not None, gram is not None),
        *(budget.need, algorithm),
    )
    options: tuple[Any, ...] = (
        *(budget.norm, budget.loss, rule.direction, rule.floor_rule, rule.floor, scale, budget.keep == "worst"),
        *(lo, hi, budget.trajectory, budget.early_stop, budget.need == "x", algorithm, *phi.native, patches),
    )
    if options == _DEFAULTS:
        options = ()

    def attack_from(start: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        tensors = (x0, y, W, a, bias, head_bias, gram, start, radius_rows, step_rows)
        return ops.pgd.default(*tensors, radius, step, budget.steps, *options)

    points = (*rows, size)
    if start is not None:
        start = _boxed(start.expand(points) if start.shape == x0.shape else start, budget.box)
    planned = budget.restarts > 1 and gram is None and not torch.compiler.is_compiling()
    if planned and _plan(problem).algorithm == "gram":
        gram = W.to(dtype) @ W.to(dtype).mT  # once for all restarts
    found = attack_from(start)
    paths = [found[3]]
    for _ in range(budget.restarts - 1):
        reach, like = radius if radius_rows is None else radius_rows, {"dtype": dtype, "device": device}
        offset = uniform_in_ball(budget.norm, points, reach, budget.generator, like)
        other = attack_from(_boxed(x0 + offset, budget.box))
        paths.append(other[3])
        found = _worse(found, other)
    x, logits, margin, _ = found
    path = None
    if budget.trajectory:
        path = paths[0] if budget.restarts == 1 else torch.stack(paths)
    return AttackResult(x if budget.need == "x" else None, logits, margin, path, budget.loss, problem)


def _boxed(points: Tensor, box: tuple[float, float] | None) -> Tensor:
    return points if box is None else points.clamp(*box)


def _worse(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of each sample the restart of less margin. A NaN wins: once not finite a sample stays so, as within a restart."""
    worse = (other[2] < one[2]) | other[2].isnan()

    def chosen(left: Tensor, right: Tensor) -> Tensor:
        return torch.where(worse if left.dim() == worse.dim() else worse.unsqueeze(-1), right, left)

    x = chosen(one[0], other[0]) if one[0].dim() > worse.dim() else one[0]  # or only margins were asked for
    return x, chosen(one[1], other[1]), chosen(one[2], other[2]), one[3]


def _widened(points: Any) -> Any:
    """Iterates are float32 for bfloat16 networks: a bfloat16 iterate cannot hold a small step."""
    return points.float() if points is not None and points.dtype == torch.bfloat16 else points


def _targets(
    y: Any, rows: tuple[int, ...], heads: int | None, loss: str, dtype: torch.dtype, device: torch.device
) -> Tensor:
    y = _arguments.tensor("y", y)
    if y.device != device:
        raise ValueError(f"y: is on {y.device}, expected {device}, where x0 is")
    classes = loss == "margin" and heads is not None and heads > 1
    shape = rows if loss == "margin" or heads is None else (*rows, heads)
    if y.shape != shape:
        y = y.squeeze(-1) if y.shape == (*shape, 1) else y
        try:
            y = y.expand(shape)
        except RuntimeError:
            raise ValueError(f"y: got shape {tuple(y.shape)}, expected {tuple(shape)}") from None
    wanted = torch.int64 if classes else dtype
    if y.dtype == wanted:
        return y
    if classes and y.is_floating_point():
        raise TypeError(f"y: got {y.dtype}, expected class indices (int64) for a network of {heads} heads")
    return y.to(wanted)


def _checked_network(W: Any, a: Any, bias: Any, head_bias: Any, activation: str | Activation, patches: Any) -> _Network:
    """Its tensors without history, and the shapes that y and x0 are read by; the rest is checked by the op."""
    W, a = _arguments.tensor("W", W), _arguments.tensor("a", a)
    if W.dim() < 2:
        raise ValueError(f"W: got shape {tuple(W.shape)}, expected (m, d) or (networks..., m, d)")
    if a.dim() not in (W.dim() - 1, W.dim()) or a.shape[-1] != W.shape[-2]:
        *networks, m = W.shape[:-1]
        several = ", ".join(map(str, (*networks, "k", m)))
        raise ValueError(f"a: got shape {tuple(a.shape)}, expected {(*networks, m)}, or ({several}) for k heads")
    bias, head_bias = _arguments.optional("bias", bias), _arguments.optional("head_bias", head_bias)
    return W, a, bias, head_bias, resolve(activation), _arguments.integer("patches", patches, 1)
