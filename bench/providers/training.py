"""How everybody's training is timed: per iteration, many or one in a call.

Networks beyond the first differ in their first layer alone; who trains one at a time is timed on the first, and stands
for as many runs.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from torch import Tensor

from bench.formulas import CHECKED_ITERATIONS, RATE, Problem, TrainingSteps, first_network, train
from bench.providers.base import Run

#: Of one call of ours: as many as wang24 trains. What a call begins with, W Wᵀ and copies, is part of the time.
_ITERATIONS = 1000


def run(
    p: Problem, train: Callable[[int], Any], moved: Callable[[Any], Tensor], iterations: int, networks: int = 1
) -> Run:
    """``train(iterations)`` is timed and trains so many networks; ``moved`` makes W − W0 of its result."""
    return Run(
        lambda: train(iterations),
        lambda _: (moved(train(CHECKED_ITERATIONS)),),
        units=iterations * networks / p.case.networks,
    )


def plain(p: Problem, steps: TrainingSteps) -> Run:
    W = first_network(p)[0]
    return run(p, lambda iterations: train(p, steps, W, iterations), lambda trained: trained - W, 1)


def ours(p: Problem) -> Run:
    """In the span, which is found once for a training of any length and not part of the time."""
    bk = importlib.import_module("benign_kernels")
    span = bk.reduce_to_span(p.x, p.W)
    x, W = span.reduce(p.x), span.reduce(p.W)
    attack = {"radius": p.radius, "step": p.step, "steps": p.case.steps, "activation": p.case.activation}

    def train(iterations: int) -> Any:
        return bk.adversarial_train(
            *((W, p.a), x, p.y), iterations=iterations, step_size=RATE, every=iterations, span=False, **attack
        )

    def moved(fit: Any) -> Tensor:
        change = fit.net.W - W
        whole: Tensor = span.lift(change)
        return whole if whole.dim() == 2 else whole[0]

    return run(p, train, moved, _ITERATIONS, p.case.networks)
