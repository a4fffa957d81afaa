"""Training in native code: many iterations in one call, where the op `train` knows all that is asked for."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._budget import checked_budget, per_row, step_size
from ._engine import Engine, Parameters, State
from ._library import ops

#: Gram matrices are carried through the iterations where that takes less work (csrc/cpu/training_network.h).
_SAVING = 2.0


class Looks(NamedTuple):
    """What iterations came upon before their updates, one entry for each that is written down."""

    f: Tensor  # (records, *S, n, k) at the attacked points
    clean: Tensor | None  # (records, *S, n, k)
    scalars: dict[str, Tensor]  # (records, *S) each, of those that were asked for


_SCALARS = ("robust_loss", "clean_loss", "weight_norm", "distance", "gradient_norm")


#: Attacks that are no PGD of K steps. Of a linear f the farthest point is one step away.
_STEPS = {"none": 0, "one_step": 1, "exact": 1}


def reason_against(engine: Engine) -> str | None:
    """Why a training runs in Python; None if it runs in native code."""
    recipe, W = engine.recipe, engine.initial.W
    if W.device.type != "cpu":
        return f"the network is on {W.device.type}"
    if recipe.batch_size is not None:
        return "mini-batches are drawn"
    if recipe.attack == "none":
        return None
    if callable(recipe.attack):
        return "the attack is a function"
    if recipe.norm != "l2":
        return f"norm={recipe.norm!r}"
    if recipe.box is not None or recipe.random_start:
        return "the attack has a box" if recipe.box is not None else "the attack starts at random"
    if recipe.algorithm not in ("auto", "gram"):
        return f"algorithm={recipe.algorithm!r}"
    m, d = W.shape[-2:]
    rows, steps = engine.samples * engine.patches, _STEPS.get(recipe.attack, recipe.steps)
    if recipe.algorithm == "auto" and m * (rows + d / 2) > 2 * steps * rows * d:
        return f"W Wᵀ of {m} neurons in {d} dimensions takes longer than {steps} steps"
    return None


class Native:
    """An engine's data and recipe as the op takes them."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        recipe, data, first = engine.recipe, engine.data, engine.initial
        self.networks = tuple(first.W.shape[:-2])
        self.count = math.prod(self.networks)
        self.labels = engine._native(data.y).contiguous()
        rows = (*self.networks, engine.samples)
        steps = _STEPS.get(str(recipe.attack), recipe.steps)
        given = data.step if recipe.attack == "pgd" else data.radius
        budget = checked_budget(
            *("l2", data.radius, given, steps, "margin", "exact", None, None, 1, None, "last", False, "x", False)
        )
        radius, radius_rows = per_row("radius", budget.radius, rows, first.W.dtype)
        step, step_rows = per_row("step", step_size(budget), rows, first.W.dtype)
        self.attack = (radius_rows, step_rows, radius, step, steps, recipe.loss.name)
        self.mixture = self._each(recipe.mixture) if recipe.mixes else None
        self.momentum = self._each(recipe.momentum) if recipe.has_momentum else None
        self.decay, self.distance = self._each(recipe.weight_decay), self._each(recipe.distance)
        self.carries_gram = self._carries_gram(steps)

    def _each(self, value: Any) -> Tensor | None:
        """(networks,) in float64."""
        if value is None:
            return None
        return torch.as_tensor(value, dtype=torch.float64).expand(self.networks).reshape(-1)

    def _carries_gram(self, steps: int) -> bool:
        m, d = self.engine.initial.W.shape[-2:]
        rows = self.engine.samples * self.engine.patches * (2 if self.mixture is not None else 1)
        follows = 2.0 * m * m * rows + rows * rows * (2.0 * m + d)
        return steps > 0 and self.momentum is None and self.distance is None and _SAVING * follows < 1.0 * m * m * d

    def _rates(self, state: State, updates: int) -> Tensor:
        rates = [self._each(self.engine.recipe.step_size(state.iteration + i)) for i in range(updates)]
        return torch.stack(rates) if rates else torch.empty(0, self.count, dtype=torch.float64)  # type: ignore[arg-type]

    def advance(self, state: State, updates: int, every: int, *, clean: bool, norms: bool) -> tuple[State, Looks]:
        """So many updates; looks at iterations that ``every`` divides, or one without an update where there is none."""
        engine, recipe = self.engine, self.engine.recipe
        now, velocity = state.parameters, state.velocity
        if velocity is None and recipe.has_momentum:
            velocity = Parameters(*map(_zeros, now, self._learns(now)))  # type: ignore[arg-type]
        _, train_a, train_bias, train_head_bias = recipe.trained
        *found, gram, f, at_samples, scalars = ops.train.default(
            *(engine.data.x, self.labels, *now, *(velocity or (None,) * 4), state.gram, engine.initial.W),
            *(self._rates(state, updates), self.mixture, self.momentum, self.decay, self.distance, *self.attack),
            *(train_a, train_bias, train_head_bias, self.carries_gram, state.iteration, every, clean, norms),
            *(*engine.activation.native, engine.patches),
        )
        looks = Looks(
            *(engine._outputs(f), engine._outputs(at_samples) if clean else None),
            dict(zip(_SCALARS, scalars, strict=True)),
        )
        if updates == 0:
            return state, looks
        parameters, moved = (
            Parameters(*(new if old is not None else None for new, old in zip(part, olds, strict=True)))  # type: ignore
            for part, olds in ((found[:4], now), (found[4:], velocity or (None,) * 4))
        )
        return state._replace(
            iteration=state.iteration + updates,
            parameters=parameters,
            velocity=moved if recipe.has_momentum else None,
            gram=gram if self.carries_gram else None,
        ), looks

    def _learns(self, now: Parameters) -> tuple[bool, ...]:
        return tuple(t is not None and learns for t, learns in zip(now, self.engine.recipe.trained, strict=True))


def _zeros(t: Tensor | None, wanted: bool) -> Tensor | None:
    return torch.zeros_like(t) if wanted and t is not None else None
