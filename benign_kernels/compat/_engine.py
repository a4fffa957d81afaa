"""What the adapters share: a library's PGD as a recipe, run by the fused ops where the model is a two-layer network."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .. import _arguments
from .._budget import DirectionRule
from .._library import ops
from ..gradient_attack import STEPS, floored_step, loss_cotangent, value_and_grad
from ..model_attack import read_labels, warn_slow
from ..network import TwoLayerView, recognise
from ..ops import two_layer_value_and_grad

_GENERATOR: ContextVar[torch.Generator | None] = ContextVar("generator", default=None)


@contextmanager
def random_starts(generator: torch.Generator) -> Iterator[None]:
    """Within this context random starts are drawn from ``generator``, and torch's global generator is left alone.

    >>> import torch
    >>> import benign_kernels.compat.torchattacks as torchattacks
    >>> from benign_kernels.compat import random_starts
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> x, before = torch.rand(3, 4), torch.get_rng_state()
    >>> with random_starts(torch.Generator().manual_seed(0)):
    ...     adversarial = torchattacks.PGDL2(model)(x, torch.tensor([0, 1, 0]))
    >>> torch.equal(before, torch.get_rng_state())
    True
    """
    token = _GENERATOR.set(generator)
    try:
        yield
    finally:
        _GENERATOR.reset(token)


def generator() -> torch.Generator | None:
    """Where random starts come from; None is torch's global generator, as in the libraries themselves."""
    return _GENERATOR.get()


@dataclass(frozen=True)
class Recipe:
    """A library's PGD: K steps of size ``step`` along its loss gradient, projection, box."""

    norm: str
    radius: float
    step: float
    steps: int
    rule: DirectionRule
    box: tuple[float, float] | None = None
    targeted: bool = False  # the labels are targets: descend
    box_before_projection: bool = False  # and after it, as cleverhans has it

    def scale(self, samples: int) -> float:
        """What ℓ' is multiplied by: the loss's reduction, and its sign."""
        size = 1 / max(samples, 1) if self.rule.mean else 1.0
        return -size if self.targeted else size


class Names(NamedTuple):
    """What a library calls the points and the labels, for messages."""

    x: str
    y: str


def expect_size(name: str, value: Any, *, finite: bool = False) -> None:
    """Refuses what is no radius or, with ``finite``, no step."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: got {value!r}, expected a number ≥ 0") from None
    _arguments.not_negative(name, number, finite=finite)


class Victim:
    """A model under attack.

    Args:
        model: maps points to logits.
        x: the points that will be attacked.
        names: what the library calls the points and their labels.
        core: the module to be recognised, if not ``model`` itself.
        normalization: (mean, std), if ``model(x)`` is ``core((x − mean) / std)``; broadcast against x.
    """

    def __init__(
        self,
        model: Any,
        x: Tensor,
        names: Names,
        *,
        core: Any = None,
        normalization: tuple[Tensor, Tensor] | None = None,
    ) -> None:
        self.model, self.names = model, names
        found = recognise(model if core is None else core)
        if isinstance(found, TwoLayerView) and found.W.ndim > 2:
            found = "it is a batch of networks"
        if isinstance(found, TwoLayerView):
            _expect_points(found, x, names.x)
        if isinstance(found, TwoLayerView) and normalization is not None:
            found = _normalized(found, *(t.expand(1, *x.shape[1:]).flatten() for t in normalization))
        self.found = found
        self.rows = x.shape[:1]

    def read(self, labels: Tensor, logits: int) -> Tensor:
        """Class indices; for one logit whichever of ±1 and 0/1 they are."""
        return read_labels(labels, logits, None, self.rows, name=self.names.y)


def _expect_points(view: TwoLayerView, x: Tensor, name: str) -> None:
    if x.shape[1:].numel() != view.input_size:
        raise ValueError(f"{name}: got shape {tuple(x.shape)}, expected samples of {view.input_size} numbers each")
    computed = torch.float32 if view.W.dtype == torch.bfloat16 else view.W.dtype
    if _computed_in(x) != computed:
        raise ValueError(f"{name}: got dtype {x.dtype}, expected {computed}, in which the model is computed")


def _computed_in(x: Tensor) -> torch.dtype:
    """A half-precision iterate cannot hold a small step."""
    return torch.float32 if x.dtype in (torch.float16, torch.bfloat16) else x.dtype


def _normalized(view: TwoLayerView, mean: Tensor, std: Tensor) -> TwoLayerView | str:
    """The network x ↦ f((x − μ)/σ): W/σ and b − (W/σ) μ; or why it should not be formed."""
    if view.patches != 1 or view.W.dtype == torch.bfloat16:
        return "its normalization cannot be folded into patches, nor into bfloat16 without loss"
    mean, std = mean.to(view.W), std.to(view.W)
    W = view.W / std
    shift = W @ mean
    return dataclasses.replace(view, W=W, bias=-shift if view.bias is None else view.bias - shift)


@torch.no_grad()
def attack(victim: Victim, x: Tensor, labels: Tensor, recipe: Recipe, start: Tensor | None = None) -> Tensor:
    """x_K, shaped like x: the steps of ``recipe`` from ``start``, or from x."""
    view = victim.found
    dtype = _computed_in(x)
    origin = x.flatten(1).to(dtype)
    first = origin if start is None else start.flatten(1).to(dtype)
    if isinstance(view, TwoLayerView):
        y = victim.read(labels, view.heads or 1)
        if _one_call(recipe, origin, first):
            out = _native(view, origin, y, recipe, None if start is None else first)
        else:
            out = _loop(_view_gradient(view, y, recipe), origin, first, recipe)
    else:
        warn_slow(view)
        out = _loop(_model_gradient(victim, x, labels, recipe), origin, first, recipe)
    return out.to(x.dtype).reshape(x.shape)


def _one_call(recipe: Recipe, origin: Tensor, start: Tensor) -> bool:
    """Whether the op's walk is the library's: it begins in the ball, and boxes after the projection only.

    Outside of the box the libraries' starts lie outside of the ball too, and the op would project them first.
    """
    if start is not origin:
        delta = start - origin
        size = delta.norm(dim=1) if recipe.norm == "l2" else delta.abs()
        if not bool((size <= recipe.radius * (1 + 1e-6)).all()):
            return False
    if recipe.box is None:
        return True
    if recipe.box_before_projection and recipe.norm == "l2":
        return False
    lo, hi = recipe.box
    return bool(((origin >= lo) & (origin <= hi)).all())


def _native(view: TwoLayerView, origin: Tensor, y: Tensor, recipe: Recipe, start: Tensor | None) -> Tensor:
    lo, hi = recipe.box if recipe.box is not None else (-torch.inf, torch.inf)
    y = y.to(origin.dtype) if y.is_floating_point() else y
    x: Tensor = ops.pgd.default(
        *(origin, y, view.W, view.a, view.bias, view.head_bias, None, start, None, None),
        *(float(recipe.radius), float(recipe.step), recipe.steps, recipe.norm, "margin"),
        *("loss", recipe.rule.floor_rule, recipe.rule.floor, recipe.scale(len(origin)), False, lo, hi),
        *(False, False, True, "auto", *view.activation.native, view.patches),
    )[0]
    return x


Gradient = Callable[[Tensor], Tensor]


def _view_gradient(view: TwoLayerView, y: Tensor, recipe: Recipe) -> Gradient:
    def gradient(rows: Tensor) -> Tensor:
        f = view(rows)
        R = loss_cotangent(f.reshape(len(rows), view.heads or 1), y, "margin", recipe.scale(len(rows)))
        return two_layer_value_and_grad(rows, view.W, view.a, cotangent=R.reshape(f.shape), **view.keywords())[1]

    return gradient


def _model_gradient(victim: Victim, x: Tensor, labels: Tensor, recipe: Recipe) -> Gradient:
    read: dict[int, Tensor] = {}

    def cotangent(f: Tensor) -> Tensor:
        logits = f.reshape(len(x), f.shape[1:].numel())
        k = logits.shape[1]
        y = read[k] if k in read else read.setdefault(k, victim.read(labels, k))
        return loss_cotangent(logits, y, "margin", recipe.scale(len(x))).to(f.dtype).reshape(f.shape)

    def gradient(rows: Tensor) -> Tensor:
        g = value_and_grad(victim.model, rows.to(x.dtype).reshape(x.shape), cotangent)[1]
        return g.flatten(1).to(rows.dtype)

    return gradient


def _loop(gradient: Gradient, origin: Tensor, x: Tensor, recipe: Recipe) -> Tensor:
    """The library's loop with the fused step, one gradient at a time."""
    advance = STEPS[recipe.norm]
    box = (None, None) if recipe.box is None else recipe.box
    boxed: Callable[[Tensor], Tensor] = (lambda x: x) if recipe.box is None else (lambda x: x.clamp(*box))
    for _ in range(recipe.steps):
        g = gradient(x)
        step = floored_step(g, recipe.step, recipe.rule) if recipe.norm == "l2" else recipe.step
        if recipe.box_before_projection:
            x = boxed(advance(x, origin, g, step=step, radius=torch.inf))
            x = advance(x, origin, torch.zeros_like(g), step=0.0, radius=recipe.radius)
        else:
            x = advance(x, origin, g, step=step, radius=recipe.radius)
        x = boxed(x)
    return x


def predicted(f: Tensor) -> Tensor:
    """(n,): the class with the largest logit; 0/1 by the sign of a single one."""
    f = f.unsqueeze(-1) if f.ndim == 1 else f
    return (f[:, 0] > 0).long() if f.shape[1] == 1 else f.argmax(-1)


def per_sample(values: Tensor, x: Tensor) -> Tensor:
    """(n,) values in a shape that broadcasts against x (n, ...)."""
    return values.reshape(-1, *[1] * (x.ndim - 1))
