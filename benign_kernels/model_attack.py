"""Attacks on models: two-layer networks in one op call, every other model through autograd and the fused step."""

from __future__ import annotations

import dataclasses
import sys
import warnings
from typing import Any

import torch
from torch import Tensor

from . import _arguments
from ._budget import Budget, checked_budget
from .activation import Activation
from .attack import ALGORITHMS, AttackResult, l2_pgd, linf_pgd
from .gradient_attack import attack_by_gradient
from .network import TwoLayerView, recognise

__all__ = ["attack_model"]

LABELS = ("signs", "binary", "classes")
_PGD = {"l2": l2_pgd, "linf": linf_pgd}


def attack_model(
    model: Any,
    x: Tensor,
    y: Tensor,
    *,
    radius: float | Tensor,
    norm: str = "l2",
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
    labels: str | None = None,
    activation: str | Activation = "relu",
    patches: int = 1,
) -> AttackResult:
    """PGD on the inputs of ``model``; the arguments and the result of `l2_pgd`, or with ``norm="linf"`` of `linf_pgd`.

    What `as_two_layer` recognises (`TwoLayerNet`, ``nn.Sequential(Linear, φ, Linear)``, and tuples ``(W, a[, bias[,
    head_bias]])`` with ``activation`` and ``patches``) runs in one op call. Any other callable is attacked through
    autograd, one model call and one fused step per iterate, and a UserWarning says so and why. It then runs in
    evaluation mode; afterwards every module has its own mode again, no parameter has a gradient, and the global
    generator is untouched unless restarts, or the model itself, draw from it.

    Args:
        model: maps x to logits: (n,) or (n, 1) one logit, (n, k) several.
        x: (n, ...) samples of any shape; the ball is taken over everything but n.
        y: (n,) or (n, 1) labels. Several logits: class indices. One logit: ±1 or 0/1, see ``labels``.
        norm: "l2" or "linf".
        labels: how to read y – "signs" (±1), "binary" (0/1, or bool), "classes". By default what the model class says
            in an attribute ``label_convention`` (`TwoLayerNet` says "signs"); else class indices for several logits,
            and for one logit whichever of ±1 and 0/1 the values of y are (all ones mean the same in both).

    >>> import benign_kernels as bk, torch
    >>> from torch.nn import Flatten, Linear, ReLU, Sequential
    >>> model = Sequential(Flatten(), Linear(12, 64), ReLU(), Linear(64, 3))
    >>> x, y = torch.rand(5, 3, 2, 2), torch.tensor([0, 1, 2, 0, 1])
    >>> adv = bk.attack_model(model, x, y, radius=0.5, box=(0, 1))
    >>> adv.x.shape, adv.success.shape
    (torch.Size([5, 3, 2, 2]), torch.Size([5]))
    """
    _arguments.one_of("norm", norm, tuple(_PGD))
    if labels is not None:
        _arguments.one_of("labels", labels, LABELS)
    for name, value, default in (("activation", activation, "relu"), ("patches", patches, 1)):
        if value != default and not isinstance(model, (tuple, list)):
            kind = type(model).__name__
            raise ValueError(f"{name}: got {value!r} with a model, {kind}, expected it with a tuple (W, a, …) only")
    x, y = _arguments.tensor("x", x), _arguments.tensor("y", y)
    budget = checked_budget(
        *(norm, radius, step, steps, loss, direction, box, start),
        *(restarts, generator, keep, trajectory, need, early_stop),
    )
    found = recognise(model, activation=activation, patches=patches)
    convention = labels or getattr(found if isinstance(found, TwoLayerView) else model, "label_convention", None)
    if isinstance(found, TwoLayerView):
        return _attack_view(found, x, y, budget, algorithm, convention)
    if not callable(model):
        raise TypeError(f"model: got {type(model).__name__}, expected a module, a callable or a tuple; {found}")
    _arguments.one_of("algorithm", algorithm, ALGORITHMS)
    if algorithm not in ("auto", "dense"):
        raise ValueError(
            f"algorithm: got {algorithm!r} for a model that takes autograd, because {found}, expected 'auto' or 'dense'"
        )
    warn_slow(found)
    return attack_by_gradient(model, x, lambda logits: _read(y, logits, x.shape[:1], budget.loss, convention), budget)


def warn_slow(reason: str) -> None:
    """Says that a model is attacked through autograd, at the line that called this package."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] in ("benign_kernels", "torch"):
        level, frame = level + 1, frame.f_back
    warnings.warn(
        f"the model is attacked through autograd, one call per step, because {reason}",
        UserWarning,
        stacklevel=level,
    )


# ---- two-layer networks ----------------------------------------------------------------------------------------------


def _attack_view(
    view: TwoLayerView, x: Tensor, y: Tensor, budget: Budget, algorithm: str, convention: str | None
) -> AttackResult:
    rows = as_rows(view, x, y)
    if budget.loss == "margin":
        networks = view.W.shape[:-2]
        shape = networks + rows.shape[-2:-1] if networks else rows.shape[:-1]
        shared = bool(networks) and y.shape == shape[-1:]
        y = read_labels(y.expand(shape) if shared else y, view.heads or 1, convention, shape)
    keywords = {**budget._asdict(), **view.keywords(), "algorithm": algorithm}
    if budget.start is not None:
        start = _arguments.tensor("start", budget.start)
        keywords["start"] = start.reshape(rows.shape) if start.shape == x.shape else start
    result = _PGD[keywords.pop("norm")](rows, y, view.W, view.a, **keywords)
    return result if rows.shape == x.shape else _reshaped(result, x.shape)


def as_rows(view: TwoLayerView, x: Tensor, y: Tensor) -> Tensor:
    """x as rows of P·d numbers: as it is, or, where y does not tell of all its dimensions, all but the first joined."""
    as_they_are = view.W.ndim > 2 or x.ndim <= 2 or y.shape == x.shape[:-1]
    if (x.shape[-1:] if as_they_are else x.shape[1:]).numel() != view.input_size:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected samples of {view.input_size} numbers each")
    return x if as_they_are else x.flatten(1)


def _reshaped(result: AttackResult, shape: torch.Size) -> AttackResult:
    """The result with its points in the given shape."""
    path = result.trajectory
    if path is not None:
        path = path.reshape(*path.shape[:-2], *shape)
    return dataclasses.replace(
        result, points=None if result.points is None else result.points.reshape(shape), trajectory=path
    )


def _read(y: Tensor, logits: int, rows: torch.Size, loss: str, convention: str | None) -> Tensor:
    """Labels (n,), or targets (n, k), for a model of k logits."""
    if loss == "margin":
        return read_labels(y, logits, convention, rows)
    if y.shape == rows and logits == 1:
        y = y.unsqueeze(-1)
    if y.shape != (*rows, logits):
        raise ValueError(f"y: got shape {tuple(y.shape)}, expected targets of shape {(*rows, logits)}")
    return y if y.is_floating_point() else y.float()


def read_labels(y: Tensor, logits: int, convention: str | None, rows: torch.Size, name: str = "y") -> Tensor:
    """±1 for one logit, class indices for several, in the shape ``rows``; see ``labels`` of `attack_model`.

    ``name`` is what the caller calls y.
    """
    y = y.squeeze(-1) if y.shape == (*rows, 1) else y
    if y.shape != rows:
        raise ValueError(f"{name}: got shape {tuple(y.shape)}, expected {tuple(rows)}, one label per sample")
    if logits == 1:
        return _signs(y, convention, name)
    if convention == "signs" and logits == 2:
        _check_values(name, y, (-1, 1))
        y = torch.where(y == 1, 1, torch.where(y == -1, 0, -1))
    elif convention == "binary" and logits == 2:
        _check_values(name, y, (0, 1))
    elif convention not in (None, "classes"):
        raise ValueError(f"labels: got {convention!r} for {logits} logits, expected 'classes' or None")
    elif y.is_floating_point():
        raise TypeError(f"{name}: got {y.dtype}, expected class indices (int64) for a model of {logits} logits")
    elif _arguments.readable(y) and ((y < 0) | (y >= logits)).any():
        raise ValueError(f"{name}: got labels from {y.min()} to {y.max()}, expected classes 0 … {logits - 1}")
    return y.long()


def _signs(y: Tensor, convention: str | None, name: str) -> Tensor:
    """Labels of a one-logit model as ±1."""
    if convention == "classes":
        raise ValueError("labels: got 'classes' for a model of one logit, expected 'signs' or 'binary'")
    if convention is None:
        convention = "binary" if y.dtype == torch.bool or not bool((y == -1).any()) else "signs"
    _check_values(name, y, (0, 1) if convention == "binary" else (-1, 1))
    y = y.to(torch.float32) if not y.is_floating_point() else y
    return 2 * y - 1 if convention == "binary" else y


def _check_values(name: str, y: Tensor, accepted: tuple[int, int]) -> None:
    """Where labels are not read, a wrong one makes its row NaN."""
    if not _arguments.readable(y):
        return
    wrong = y[(y != accepted[0]) & (y != accepted[1])]
    if wrong.numel():
        raise ValueError(f"{name}: got the label {wrong.flatten()[0].item()}, expected {accepted[0]} or {accepted[1]}")
