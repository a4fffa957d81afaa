"""cleverhans' gradient attacks on the kernels of this package; signatures and defaults are cleverhans 4.0.0's.

    from benign_kernels.compat.cleverhans import projected_gradient_descent

    adversarial = projected_gradient_descent(model, x, eps=0.3, eps_iter=0.01, nb_iter=40, norm=np.inf)

Kept: the cross-entropy is a mean over the batch, and the gradient's squared norm is kept above 1e-12; random starts are
uniform in the cube, which for the ℓ2 ball is then scaled down onto its sphere; without labels the model's own
predictions are attacked. Not kept: x keeps its dtype (cleverhans goes to float32), and the result holds no graph.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from .. import _arguments
from ..attack import DIRECTIONS
from . import _engine

__all__ = ["fast_gradient_method", "projected_gradient_descent"]

_RULE = DIRECTIONS["cleverhans"]
_NAMES = _engine.Names("x", "y")


def projected_gradient_descent(
    model_fn: Any,
    x: Tensor,
    eps: float,
    eps_iter: float,
    nb_iter: int,
    norm: float,
    clip_min: float | None = None,
    clip_max: float | None = None,
    y: Tensor | None = None,
    targeted: bool = False,
    rand_init: bool = True,
    rand_minmax: float | None = None,
    sanity_checks: bool = True,
) -> Tensor:
    """PGD in the ball of radius ``eps``; ``norm`` is 2 or np.inf.

    >>> import torch
    >>> from benign_kernels.compat.cleverhans import projected_gradient_descent
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> x = torch.randn(3, 4)
    >>> bool(((projected_gradient_descent(model, x, 0.5, 0.1, 10, 2) - x).norm(dim=1) <= 0.5 + 1e-6).all())
    True
    """
    if norm == 1:
        raise NotImplementedError("norm: got 1, expected 2 or np.inf")
    if norm not in (np.inf, 2):
        raise ValueError("Norm order must be either np.inf or 2.")
    for name, value in (("eps", eps), ("eps_iter", eps_iter)):
        if not value >= 0:
            raise ValueError(f"{name} must be greater than or equal to 0, got {value} instead")
        if value == 0:
            return x
    _engine.expect_size("eps_iter", eps_iter, finite=True)
    _arguments.integer("nb_iter", nb_iter, 0)
    if eps_iter > eps:
        raise AssertionError((eps_iter, eps))
    box = _box(clip_min, clip_max, needed=nb_iter > 0)
    x = x.detach()
    if sanity_checks and not (
        _in_range(x, clip_min, clip_max) and (norm == 2 or box is None or eps <= box[1] - box[0])
    ):
        raise AssertionError(
            "x must lie in [clip_min, clip_max], and for np.inf eps must not exceed clip_max - clip_min"
        )
    start = _random_start(x, eps, norm, eps if rand_minmax is None else rand_minmax) if rand_init else x
    if clip_min is not None or clip_max is not None:
        start = start.clamp(clip_min, clip_max)
    name = "l2" if norm == 2 else "linf"
    recipe = _engine.Recipe(name, eps, eps_iter, nb_iter, _RULE, box, targeted, box_before_projection=box is not None)
    return _engine.attack(_engine.Victim(model_fn, x, _NAMES), x, _labels(model_fn, x, y), recipe, start)


def _random_start(x: Tensor, eps: float, norm: float, width: float) -> Tensor:
    """x plus a uniform point of the cube of that half-width, brought into the ball."""
    eta = torch.zeros_like(x).uniform_(-width, width, generator=_engine.generator())
    if norm == np.inf:
        return x + eta.clamp(-eps, eps)
    length = eta.flatten(1).square().sum(1).clamp_min(1e-12).sqrt()
    return x + eta * _engine.per_sample((eps / length).clamp_max(1.0), x)


def fast_gradient_method(
    model_fn: Any,
    x: Tensor,
    eps: float,
    norm: float,
    clip_min: float | None = None,
    clip_max: float | None = None,
    y: Tensor | None = None,
    targeted: bool = False,
    sanity_checks: bool = False,
) -> Tensor:
    """One step of length ``eps``; ``norm`` is 2 or np.inf.

    >>> import numpy as np, torch
    >>> from benign_kernels.compat.cleverhans import fast_gradient_method
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> fast_gradient_method(model, torch.randn(3, 4), 0.1, np.inf).shape
    torch.Size([3, 4])
    """
    if norm == 1:
        raise NotImplementedError("norm: got 1, expected 2 or np.inf")
    if norm not in (np.inf, 2):
        raise ValueError(f"Norm order must be either np.inf, 1, or 2, got {norm} instead.")
    if not eps >= 0:
        raise ValueError(f"eps must be greater than or equal to 0, got {eps} instead")
    if eps == 0:
        return x
    _engine.expect_size("eps", eps, finite=True)
    box = _box(clip_min, clip_max, needed=True)
    x = x.detach()
    if sanity_checks and not _in_range(x, clip_min, clip_max):
        raise AssertionError("x must lie in [clip_min, clip_max]")
    recipe = _engine.Recipe("l2" if norm == 2 else "linf", torch.inf, eps, 1, _RULE, box, targeted)
    return _engine.attack(_engine.Victim(model_fn, x, _NAMES), x, _labels(model_fn, x, y), recipe)


def _box(clip_min: float | None, clip_max: float | None, needed: bool) -> tuple[float, float] | None:
    if clip_min is not None and clip_max is not None:
        if not clip_min <= clip_max:
            raise ValueError(
                f"clip_min must be less than or equal to clip_max, got clip_min={clip_min} and clip_max={clip_max}"
            )
        return clip_min, clip_max
    if needed and (clip_min is not None or clip_max is not None):
        raise ValueError("One of clip_min and clip_max is None but we don't currently support one-sided clipping")
    return None


def _in_range(x: Tensor, clip_min: float | None, clip_max: float | None) -> bool:
    return (clip_min is None or bool((x >= clip_min).all())) and (clip_max is None or bool((x <= clip_max).all()))


@torch.no_grad()
def _labels(model_fn: Any, x: Tensor, y: Tensor | None) -> Tensor:
    return _engine.predicted(model_fn(x)) if y is None else y
