"""What an attacker may do and wants, checked: the ball, the steps, the direction, and what is asked of the result."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from . import _arguments


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


_DIRECTION_NAMES = tuple(DIRECTIONS)


class Budget(NamedTuple):
    """The arguments of `l2_pgd` that are the attacker's, in plain types: see `checked_budget`."""

    norm: str
    radius: float | Tensor
    step: float | Tensor | None
    steps: int
    loss: str
    direction: str
    box: tuple[float, float] | None
    start: Tensor | None
    restarts: int
    generator: torch.Generator | None
    keep: str
    trajectory: bool
    need: str
    early_stop: bool


def checked_budget(
    norm: str,
    radius: Any,
    step: Any,
    steps: Any,
    loss: Any,
    direction: Any,
    box: Any,
    start: Any,
    restarts: Any,
    generator: Any,
    keep: Any,
    trajectory: Any,
    need: Any,
    early_stop: Any,
) -> Budget:
    """Numbers, tensors, and a box of two numbers; or an error that names the argument."""
    _arguments.one_of("loss", loss, ("margin", "squared"))
    _arguments.one_of("direction", direction, _DIRECTION_NAMES)
    _arguments.one_of("keep", keep, ("last", "worst"))
    _arguments.one_of("need", need, ("x", "margin"))
    radius = _arguments.number_or_tensor("radius", radius, "sample")
    _arguments.not_negative("radius", radius)
    if step is not None:
        step = _arguments.number_or_tensor("step", step, "sample")
        _arguments.not_negative("step", step, finite=True)
    steps = _arguments.integer("steps", steps, 0)
    restarts = _arguments.integer("restarts", restarts, 1)
    if restarts > 1 and _infinite(radius):
        raise ValueError("restarts: got more than one with an infinite radius, expected a finite radius to start in")
    if generator is not None and not isinstance(generator, torch.Generator):
        raise TypeError(f"generator: got {type(generator).__name__}, expected a torch.Generator or None")
    trajectory, early_stop = _arguments.switch("trajectory", trajectory), _arguments.switch("early_stop", early_stop)
    if early_stop and loss == "squared":
        raise ValueError("early_stop: got True with loss='squared', which has no success, expected loss='margin'")
    if trajectory and need == "margin":
        raise ValueError("need: got 'margin' with trajectory=True, expected 'x'")
    box, start = _checked_box(box), _arguments.optional("start", start)
    # fmt: off
    return Budget(
        norm, radius, step, steps, loss, direction, box, start, restarts, generator, keep, trajectory, need, early_stop
    )
    # fmt: on


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


def _infinite(radius: float | Tensor) -> bool:
    if isinstance(radius, Tensor):
        return _arguments.readable(radius) and bool(radius.isinf().any())
    return radius == math.inf  # math.isinf knows no symbolic numbers


# ---- what follows from it --------------------------------------------------------------------------------------------


def step_size(budget: Budget) -> float | Tensor:
    if budget.step is not None:
        return budget.step
    if budget.steps == 0:
        return 0.0
    if _infinite(budget.radius):
        raise ValueError("step: got None, expected a number when radius is infinite")
    return budget.radius * (2.5 / budget.steps)


def per_row(name: str, value: float | Tensor, rows: Sequence[int], dtype: torch.dtype) -> tuple[float, Tensor | None]:
    """The number, or 0 and one number per row."""
    if not isinstance(value, Tensor):
        return value, None
    return 0.0, _arguments.per_row(name, value.to(dtype), rows, "sample")


def uniform_in_ball(
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
