"""Half-sparse steps on a real GPU against the dense attack on the CPU in float64; and what only a device can tell."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from test_cuda_gram import attack_case, on_device

import benign_kernels as bk

pytestmark = pytest.mark.gpu

SHAPES: dict[str, dict[str, Any]] = {
    "rows in warps": {"n": 70, "d": 33, "m": 130},
    "rows in blocks": {"n": 9, "d": 1500, "m": 300},
    "flips in slabs": {"n": 20, "d": 10, "m": 9000},
    "many chunks": {"n": 300, "d": 5, "m": 300_000},
    "one of each": {"n": 1, "d": 1, "m": 1},
    "networks": {"n": 12, "d": 40, "m": 64, "networks": (3,)},
    "patches": {"n": 12, "d": 40, "m": 64, "patches": 3},
}
CHANGES: list[dict[str, Any]] = [
    {},
    {"keep": "worst", "trajectory": True},
    {"early_stop": True},
    {"need": "margin"},
    {"box": (-1.0, 1.5)},
]


def half_sparse(**given: Any) -> bk.AttackResult:
    return bk.l2_pgd(**given, algorithm="half_sparse")


@pytest.mark.parametrize("activation", ["relu", bk.LeakyReLU(0.2), "identity"], ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_agrees_with_the_dense_attack_on_the_cpu(shape: dict[str, Any], activation: Any) -> None:
    tensors, options = attack_case(**shape)
    for changes in CHANGES:
        asked = {**options, **changes, "activation": activation}
        want = bk.l2_pgd(**tensors, **asked, algorithm="dense")
        got = half_sparse(**on_device(tensors), **asked)
        assert got.plan.algorithm == "half_sparse"
        # float64: sums of up to 300 000 terms of order one in another order, and twelve steps.
        torch.testing.assert_close(got.margin.cpu(), want.margin, rtol=1e-9, atol=1e-8)
        if asked.get("need") != "margin":
            torch.testing.assert_close(got.x.cpu(), want.x, rtol=1e-9, atol=1e-9)
        if asked.get("trajectory"):
            torch.testing.assert_close(got.trajectory.cpu(), want.trajectory, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_walks_in_low_precision_as_the_dense_attack_does(dtype: torch.dtype) -> None:
    """On margins, over rows whose gates agree: the median over rows of the difference."""
    tensors, options = attack_case(n=200, d=100, m=4000)
    stored = on_device(tensors, torch.float32)
    if dtype == torch.bfloat16:
        stored = {**stored, "W": stored["W"].to(dtype), "a": stored["a"].to(dtype), "bias": stored["bias"].to(dtype)}
    dense = bk.l2_pgd(**stored, **options, algorithm="dense").margin
    ours = half_sparse(**stored, **options).margin
    # float32: 4000 terms of order one, twelve steps; a gate that flips a step earlier moves a margin by its jump.
    assert ((ours - dense).abs() / dense.abs().mean()).median() < 1e-5


def test_gradients_that_cancel_are_summed_afresh() -> None:
    """Pairs of neurons: flips are much larger than the gradient."""
    tensors, options = attack_case(n=70, d=40, m=600)
    for name, size in (("W", 1e-3), ("a", 0.0), ("bias", 0.0)):
        half = tensors[name][:300]
        mirrored = half + size * torch.randn(half.shape, generator=torch.Generator().manual_seed(1), dtype=half.dtype)
        tensors[name] = torch.cat([half, -mirrored if name == "a" else mirrored])
    want = bk.l2_pgd(**tensors, **options, algorithm="dense")
    # 1e-3 of the digits are left, and a step of .3 along a direction that is known to 1e-12.
    torch.testing.assert_close(half_sparse(**on_device(tensors), **options).x.cpu(), want.x, rtol=1e-7, atol=1e-7)


def test_repeats_bit_for_bit_and_in_a_graph() -> None:
    tensors, options = attack_case(n=300, d=200, m=11_000)
    stored = on_device(tensors, torch.float32)
    first = half_sparse(**stored, **options)
    assert torch.equal(first.x, half_sparse(**stored, **options).x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = half_sparse(**stored, **options)
    for _ in range(2):
        graph.replay()
        assert torch.equal(first.x, captured.x)
        assert torch.equal(first.margin, captured.margin)


def test_a_row_that_is_not_finite_touches_no_other() -> None:
    tensors, options = attack_case(n=70, d=30, m=500)
    stored = on_device(tensors)
    before = half_sparse(**stored, **options).x
    stored["x0"][3, 5] = float("nan")
    after = half_sparse(**stored, **options).x
    assert after[3].isnan().all()
    others = torch.arange(70) != 3
    assert torch.equal(before[others], after[others])
