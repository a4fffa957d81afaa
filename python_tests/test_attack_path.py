"""The attack's path: step by step that of the float64 reference, and in low precision as good as an eager loop's."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from problems import Problem, every_shape, labels, make_problem, small_shapes
from torch import Tensor

import benign_kernels as bk
from benign_kernels import reference
from benign_kernels.attack import DIRECTIONS, AttackResult

# float64 paths of 8 steps: each step multiplies the error by a small factor. Measured on these problems: below 1e-12.
PATH_TOLERANCE = 1e-10

norms = pytest.mark.parametrize("norm", ["l2", "linf"])
every_activation = pytest.mark.parametrize("activation", bk.activations(), ids=lambda phi: phi.name)


def attack(norm: str, *args: Any, **keywords: Any) -> AttackResult:
    return (bk.l2_pgd if norm == "l2" else bk.linf_pgd)(*args, **keywords)


def expected(norm: str, problem: Problem, y: Tensor, direction: str = "exact", **keywords: Any) -> reference.Attacked:
    rule: Any = direction
    if direction != "exact":
        rule = DIRECTIONS[direction]
        samples = math.prod(problem.x.shape[:-1]) // (1 if problem.x.dim() == 2 else math.prod(problem.W.shape[:-2]))
        rule = Rule(rule.floor_rule, rule.floor, 1 / max(1, samples) if rule.mean else 1.0)
    attacked = reference.l2_pgd if norm == "l2" else reference.linf_pgd
    return attacked(problem.x, y, problem.W, problem.a, **problem.network, direction=rule, **keywords)


class Rule:
    def __init__(self, floor_rule: str, floor: float, loss_scale: float) -> None:
        self.floor_rule, self.floor, self.loss_scale = floor_rule, floor, loss_scale


def assert_same_path(ours: AttackResult, theirs: reference.Attacked) -> None:
    for name in ("x", "logits", "margin", "trajectory"):
        found, want = getattr(ours, name), getattr(theirs, name)
        if want is not None:
            torch.testing.assert_close(found, want.to(found), atol=PATH_TOLERANCE, rtol=PATH_TOLERANCE, equal_nan=True)


@norms
@every_shape
def test_follows_the_reference(norm: str, shape: dict[str, Any], device: torch.device) -> None:
    problem = make_problem(**shape, device=device)
    y = labels(problem)
    options = {"radius": 0.7, "steps": 8, "trajectory": True}
    ours = attack(norm, problem.x, y, problem.W, problem.a, **problem.network, **options)
    assert_same_path(ours, expected(norm, problem, y, **options))


@norms
@every_activation
def test_every_activation_follows_the_reference(norm: str, activation: bk.Activation, device: torch.device) -> None:
    problem = make_problem(n=20, d=9, m=33, device=device)
    y = labels(problem)
    options = {"radius": 0.7, "steps": 8, "activation": activation}
    ours = attack(norm, problem.x, y, problem.W, problem.a, **problem.network, **options)
    assert_same_path(ours, expected(norm, problem, y, **options))


@norms
@pytest.mark.parametrize("loss", ["margin", "squared"])
@pytest.mark.parametrize("direction", list(DIRECTIONS))
@pytest.mark.parametrize("heads", [None, 1, 2, 5])
def test_every_direction_follows_the_reference(norm: str, loss: str, direction: str, heads: int | None) -> None:
    problem = make_problem(n=6, heads=heads, patches=2)
    y = labels(problem, loss)
    options = {
        "radius": 0.7,
        "steps": 6,
        "activation": "tanh",
        "loss": loss,
        "direction": direction,
        "trajectory": True,
    }
    ours = attack(norm, problem.x, y, problem.W, problem.a, **problem.network, **options)
    assert_same_path(ours, expected(norm, problem, y, **options))


@norms
@small_shapes
@pytest.mark.parametrize("keep", ["last", "worst"])
def test_start_box_and_sizes_per_sample_follow_the_reference(
    norm: str, shape: dict[str, Any], keep: str, device: torch.device
) -> None:
    problem = make_problem(**shape, device=device)
    y = labels(problem)
    rows = y.shape
    points = (*rows, problem.x.shape[-1])
    options = {
        "radius": torch.linspace(0, 2, y.numel(), dtype=torch.float64, device=device).reshape(rows),
        "step": torch.linspace(0.5, 0, y.numel(), dtype=torch.float64, device=device).reshape(rows),
        "steps": 7,
        "box": (-0.8, 1.1),
        "start": problem.x.expand(points) + 0.3,
        "keep": keep,
        "trajectory": True,
    }
    ours = attack(norm, problem.x, y, problem.W, problem.a, **problem.network, **options)
    assert_same_path(ours, expected(norm, problem, y, **options))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@every_activation
def test_low_precision_is_as_good_as_eager(dtype: torch.dtype, activation: bk.Activation, device: torch.device) -> None:
    """Against the float64 path of the same, rounded, network: at most twice the error of an eager loop in float32."""
    problem = make_problem(n=64, d=30, m=64, device=device).to(dtype)
    y = labels(problem)
    exact = problem.to(torch.float64)
    options = {"radius": 0.5, "step": 0.1, "steps": 10, "activation": activation}
    want = expected("l2", exact, y.double(), **options).margin
    ours = bk.l2_pgd(problem.x, y, problem.W, problem.a, **problem.network, **options).margin
    wide = problem.to(torch.float32)
    permutation = torch.randperm(64, device=device)
    permuted = [wide.W[permutation], wide.a[permutation], wide.bias[permutation]]
    eager = [
        eager_margin(wide.x, y.float(), *net, wide.head_bias, **options)
        for net in ([wide.W, wide.a, wide.bias], permuted)
    ]
    # Medians: a sample whose path meets a kink jumps in either computation.
    theirs = max((e - want).abs().median().item() for e in eager)
    assert (ours - want).abs().median() <= 2 * theirs + torch.finfo(torch.float32).eps * want.abs().median()
    assert ours.dtype == torch.float32


def eager_margin(
    x0: Tensor,
    y: Tensor,
    W: Tensor,
    a: Tensor,
    b: Tensor,
    c: Tensor,
    *,
    radius: float,
    step: float,
    steps: int,
    activation: Any,
) -> Tensor:
    """The textbook loop with two matmuls a step."""
    x = x0
    for _ in range(steps):
        g = (-y[:, None] * activation.first(x @ W.T + b) * a) @ W
        delta = x + step * g / g.norm(dim=1, keepdim=True).clamp_min(1e-30) - x0
        x = x0 + delta * (radius / delta.norm(dim=1, keepdim=True)).clamp_max(1)
    return y * (activation.value(x @ W.T + b) @ a + c)
