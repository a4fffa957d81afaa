"""The arguments of `adversarial_train`, checked: each refusal names the argument, what came, and what is accepted."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from . import _arguments
from ._arguments import switch
from ._budget import checked_budget
from ._engine import Batch, Parameters, Recipe
from ._history import NAMES, STOPS, Diary, Progress
from ._losses import LOSSES
from .activation import Identity
from .attack import ALGORITHMS
from .network import TwoLayerView
from .plan import plan

ATTACKS = ("pgd", "one_step", "exact", "none")
_SAVED = (
    *("iteration", "parameters", "velocity", "order", "position", "generator", "gram", "first", "basis", "history"),
)


def check_network(view: TwoLayerView) -> None:
    W, a = view.W, view.a
    if W.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"net: got {W.dtype}, expected float32 or float64")
    networks, m = tuple(W.shape[:-2]), W.shape[-2]
    heads = tuple(a.shape[len(networks) : -1])
    if a.dim() not in (W.dim() - 1, W.dim()) or tuple(a.shape) != (*networks, *heads, m):
        several = ", ".join(map(str, (*networks, "k", m)))
        raise ValueError(f"a: got shape {tuple(a.shape)}, expected {(*networks, m)}, or ({several}) for k heads")
    for name, t, shape in (("bias", view.bias, (*networks, m)), ("head_bias", view.head_bias, (*networks, *heads))):
        if t is not None and tuple(t.shape) != shape:
            raise ValueError(f"{name}: got shape {tuple(t.shape)}, expected {shape}")
    for name, t in (("a", a), ("bias", view.bias), ("head_bias", view.head_bias)):
        if t is not None and (t.dtype != W.dtype or t.device != W.device):
            raise TypeError(f"{name}: got {t.dtype} on {t.device}, expected {W.dtype} on {W.device}, as W")


def recipe(
    *,
    view: TwoLayerView,
    loss: Any,
    attack: Any,
    norm: Any,
    steps: Any,
    box: Any,
    random_start: Any,
    algorithm: Any,
    mixture: Any,
    step_size: Any,
    momentum: Any,
    weight_decay: Any,
    distance: Any,
    radius: Any,
    trained: tuple[bool, bool, bool, bool],
    batch_size: Any,
    generator: Any,
) -> Recipe:
    _arguments.one_of("loss", loss, tuple(LOSSES))
    _arguments.one_of("norm", norm, ("l2", "linf"))
    _arguments.one_of("algorithm", algorithm, ALGORITHMS)
    if not callable(attack):
        _arguments.one_of("attack", attack, ATTACKS)
    random_start = switch("random_start", random_start)
    radius = _arguments.number_or_tensor("radius", radius, "sample")
    budget = checked_budget(  # radius, steps, box and generator
        *(norm, radius, 0.0, steps, "margin", "exact", box, None, 1, generator, "last", False, "x", False)
    )
    _check_attack(view, loss, attack, budget.box is not None, random_start, radius)
    batch_size = None if batch_size is None else _arguments.integer("batch_size", batch_size, 1)
    if generator is None and (random_start or batch_size is not None):
        which = "random_start" if random_start else "batch_size"
        raise ValueError(f"generator: got None with {which}, expected a torch.Generator to draw from")
    mixture = _per_network("mixture", mixture, view)
    if _any(mixture, lambda value: value > 1):
        raise ValueError(f"mixture: got {mixture}, expected a share λ between 0 and 1")
    if not isinstance(radius, Tensor) and radius == 0 and not callable(attack):
        attack = "none"
    return Recipe(
        loss=LOSSES[loss],
        attack=attack,
        norm=norm,
        steps=budget.steps,
        box=budget.box,
        random_start=random_start and attack != "none",
        algorithm=algorithm,
        mixture=mixture,
        step_size=_schedule(step_size, view),
        momentum=_per_network("momentum", momentum, view),
        weight_decay=_per_network("weight_decay", weight_decay, view),
        distance=None if distance is None else _per_network("distance", distance, view, finite=False),
        trained=trained,
        batch_size=batch_size,
        generator=generator,
    )


def _check_attack(view: TwoLayerView, loss: str, attack: Any, box: bool, random_start: bool, radius: Any) -> None:
    outputs = view.heads or 1
    if LOSSES[loss].labels == "signs" and outputs > 1:
        raise ValueError(f"loss: got {loss!r} with {outputs} outputs, expected 'cross_entropy' or 'squared'")
    if LOSSES[loss].labels == "classes" and outputs < 2:
        raise ValueError(f"loss: got {loss!r} with one output, expected one of its own, as 'logistic'")
    for name, given in (("box", box), ("random_start", random_start)):
        if given and attack not in ("pgd", "one_step"):
            raise ValueError(f"{name}: got one with attack={attack!r}, expected attack='pgd' or 'one_step'")
    if attack == "exact" and (view.activation != Identity() or outputs > 1):
        raise ValueError(
            f"attack: got 'exact' with {view.activation} and {outputs} outputs, expected 'pgd': closed forms are known "
            f"for the identity and one output"
        )
    if (attack in ("exact", "one_step") or random_start) and _any(radius, math.isinf):
        raise ValueError("radius: got inf, expected a finite number for this attack")


def _any(value: Any, condition: Callable[[float], bool]) -> bool:
    if not isinstance(value, Tensor):
        return condition(value)
    return _arguments.readable(value) and any(condition(v) for v in value.flatten().tolist())


def _per_network(name: str, value: Any, view: TwoLayerView, *, finite: bool = True) -> float | Tensor:
    value = _arguments.number_or_tensor(name, value, "network")
    _arguments.not_negative(name, value, finite=finite)
    if not isinstance(value, Tensor):
        return value
    value = value.to(view.W.device, view.W.dtype)
    return value if not value.dim() else _arguments.per_row(name, value, view.W.shape[:-2], "network")


def _schedule(step_size: Any, view: TwoLayerView) -> Callable[[int], float | Tensor]:
    if callable(step_size):
        return lambda iteration: _per_network("step_size", step_size(iteration), view)
    constant = _per_network("step_size", step_size, view)
    return lambda iteration: constant


# ---- data ------------------------------------------------------------------------------------------------------------


def batch(view: TwoLayerView, asked: Recipe, x: Any, y: Any, radius: Any, step: Any) -> Batch:
    W, networks = view.W, tuple(view.W.shape[:-2])
    x, y = _arguments.tensor("x", x), _arguments.tensor("y", y)
    size = view.input_size
    if x.dim() not in (2, 2 + len(networks)) or x.shape[-1] != size or (x.dim() > 2 and x.shape[:-2] != networks):
        expected = f"(n, {size})" + (f" or {(*networks, 'n', size)}" if networks else "")
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected {expected}")
    for name, t in (("x", x), ("y", y)):
        if t.device != W.device:
            raise ValueError(f"{name}: is on {t.device}, expected {W.device}, where the network is")
    rows = (*networks, x.shape[-2])
    outputs = () if view.heads is None else (view.heads,)
    x = x.to(W.dtype)
    return Batch(x, _labels(y, asked, rows, outputs, W), _size("radius", radius, rows, W), _step(step, asked, rows, W))


def _labels(y: Tensor, asked: Recipe, rows: tuple[int, ...], outputs: tuple[int, ...], W: Tensor) -> Tensor:
    kind = asked.loss.labels
    shape = (*rows, *outputs) if kind == "targets" else rows
    given = y.squeeze(-1) if y.dim() > 1 and y.shape[-1] == 1 and y.shape[-2] == rows[-1] and kind != "targets" else y
    try:
        given = given.expand(shape)
    except RuntimeError:
        raise ValueError(f"y: got shape {tuple(y.shape)}, expected {shape}, or without the leading networks") from None
    if kind == "targets":
        given = given.to(W.dtype)
        return given if outputs else given.unsqueeze(-1)
    if kind == "classes":
        if given.is_floating_point() or given.dtype == torch.bool:
            raise TypeError(f"y: got {given.dtype}, expected class indices (int64) for loss='cross_entropy'")
        _check_values(given, (given >= 0) & (given < outputs[0]), f"class indices below {outputs[0]}")
        return given.long()
    _check_values(given, given.abs() == 1 if given.dtype != torch.bool else given & ~given, "labels ±1")
    return given.to(W.dtype)


def _check_values(y: Tensor, valid: Tensor, expected: str) -> None:
    if _arguments.readable(y) and not bool(valid.all()):
        raise ValueError(f"y: got {y[~valid][0].item()}, expected {expected}")


def _size(name: str, value: Any, rows: tuple[int, ...], W: Tensor, *, finite: bool = False) -> float | Tensor:
    value = _arguments.number_or_tensor(name, value, "sample")
    _arguments.not_negative(name, value, finite=finite)
    if not isinstance(value, Tensor):
        return value
    return _arguments.per_row(name, value.to(W.device, W.dtype), rows, "sample")


def _step(step: Any, asked: Recipe, rows: tuple[int, ...], W: Tensor) -> float | Tensor | None:
    if step is None:
        return None
    if asked.attack not in ("pgd", "none"):
        raise ValueError(f"step: got one with attack={asked.attack!r}, expected it with attack='pgd'")
    return _size("step", step, rows, W, finite=True)


# ---- the diary -------------------------------------------------------------------------------------------------------


def diary(
    asked: Recipe,
    history: Sequence[str] | None,
    every: Any,
    stop: Mapping[str, float] | None,
    trackers: Mapping[str, Callable[[TwoLayerView], Any]] | None,
    callback: Callable[[Progress], Any] | None,
) -> Diary:
    regression = asked.loss.labels == "targets"
    if history is None:
        history = ("robust_loss",) if regression else ("robust_loss", "robust_error")
    if isinstance(history, str):
        raise TypeError(f"history: got the string {history!r}, expected names in a tuple or list")
    if not isinstance(stop, Mapping | None):
        raise TypeError(f"stop: got {type(stop).__name__}, expected a mapping of names to thresholds")
    if not isinstance(trackers, Mapping | None):
        raise TypeError(f"trackers: got {type(trackers).__name__}, expected a mapping of names to functions")
    stop, trackers = dict(stop or {}), dict(trackers or {})
    for argument, names, accepted in (("history", history, NAMES), ("stop", stop, STOPS)):
        for name in names:
            _arguments.one_of(argument, name, accepted)
            if regression and name.endswith("error"):
                raise ValueError(f"{argument}: got {name!r} with loss='squared', which has none, expected a loss")
    for name, least in stop.items():
        if isinstance(least, bool) or not isinstance(least, (int, float)) or math.isnan(least):
            raise ValueError(f"stop: got {least!r} for {name!r}, expected a number")
    for name, tracker in trackers.items():
        if not isinstance(name, str) or name in (*NAMES, "iteration"):
            raise ValueError(f"trackers: got the name {name!r}, expected a string that no record has")
        if not callable(tracker):
            raise TypeError(f"trackers: got {type(tracker).__name__} for {name!r}, expected a function of the network")
    if callback is not None and not callable(callback):
        raise TypeError(f"callback: got {type(callback).__name__}, expected a function of the progress")
    return Diary(tuple(dict.fromkeys(history)), _arguments.integer("every", every, 1), stop, trackers, callback)


def check_saved(saved: Any, first: Parameters, span: bool | str, wanted: Diary) -> None:
    if not isinstance(saved, Mapping) or any(name not in saved for name in _SAVED):
        raise TypeError(f"resume: got {type(saved).__name__}, expected the state_dict() of a training")
    for name, now in first._asdict().items():
        then = saved["first"][name]
        shapes = [None if t is None else (tuple(t.shape), t.dtype) for t in (then, now)]
        if shapes[0] != shapes[1]:
            raise ValueError(f"resume: got {name} of {shapes[0]}, expected {shapes[1]}, as the network's")
    names = ("iteration", *wanted.names, *wanted.trackers)
    if saved["history"] and set(saved["history"][0]) != set(names):
        raise ValueError(
            f"resume: got a history of {', '.join(saved['history'][0])}, expected one of {', '.join(names)}"
        )
    if isinstance(span, bool) and span != (saved["basis"] is not None):
        raise ValueError(f"span: got {span} with the state of a training with span={not span}, expected the same")


# ---- the span --------------------------------------------------------------------------------------------------------


def reason_against_span(asked: Recipe, data: Batch, first: Parameters) -> str | None:
    """Why the training would leave the span of its points and first weights; None if it stays inside."""
    if callable(asked.attack):
        return "the attack is a function, which may leave the span"
    if asked.attack != "none":
        if asked.norm == "linf":
            return "norm='linf' moves along signs of coordinates, which leaves the span"
        if asked.box is not None:
            return "a box clamps coordinates, which leaves the span"
        if asked.random_start:
            return "random starts lie outside of the span"
    if not bool(data.x.isfinite().all() and first.W.isfinite().all()):
        return "x or W is not finite"
    return None


def span_is_cheaper(view: TwoLayerView, data: Batch, asked: Recipe, count: int) -> bool:
    """By the planner's flops: the basis costs 2·d·N² twice in float64, which counts double, and then every iteration
    has N dimensions instead of d, N = n·P + m."""
    networks, (m, d) = math.prod(view.W.shape[:-2]), view.W.shape[-2:]
    rows = data.x.shape[-2]
    vectors = rows * view.patches + m
    if vectors >= d:
        return False
    steps = {"pgd": asked.steps, "one_step": 1}.get(str(asked.attack), 0)

    def iteration(dimensions: int) -> float:
        attacked = plan(
            n=rows,
            d=dimensions,
            m=m,
            patches=view.patches,
            heads=view.heads or 1,
            steps=steps,
            networks=networks,
            activation=view.activation,
            dtype=view.W.dtype,
            device=view.W.device,
        )
        return attacked.flops + 4.0 * networks * rows * view.patches * m * dimensions

    basis = 8.0 * networks * d * vectors**2
    return count * iteration(vectors) + basis < count * iteration(d)
