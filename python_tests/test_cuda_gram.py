"""The gram walk on a real GPU against the dense attack on the CPU in float64; what only a device can tell of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import benign_kernels as bk

pytestmark = pytest.mark.gpu

SHAPES = {
    "rows in warps": {"n": 70, "d": 33, "m": 130},
    "rows in blocks": {"n": 9, "d": 300, "m": 1500},
    "first V by way of W": {"n": 20, "d": 10, "m": 200},
    "one of each": {"n": 1, "d": 1, "m": 1},
    "networks": {"n": 12, "d": 40, "m": 64, "networks": (3,)},
    "patches": {"n": 12, "d": 40, "m": 64, "patches": 3},
    "heads": {"n": 12, "d": 40, "m": 64, "heads": 4},
}


def attack_case(
    *, n: int, d: int, m: int, networks: tuple[int, ...] = (), patches: int = 1, heads: int = 0, seed: int = 0
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Tensors on the CPU in float64, and options of the attack."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *shape: torch.randn(*networks, *shape, generator=generator, dtype=torch.float64)  # noqa: E731
    tensors = {"x0": draw(n, patches * d), "W": draw(m, d) / d**0.5, "a": draw(heads, m) if heads else draw(m)}
    tensors["y"] = draw(n, heads).argmax(-1) if heads else draw(n).sign()
    tensors["bias"] = 0.1 * draw(m)
    return tensors, {"radius": 1.5, "step": 0.3, "steps": 12, "patches": patches}


def on_device(tensors: dict[str, Any], dtype: torch.dtype = torch.float64) -> dict[str, Any]:
    return {name: t.cuda() if t.dtype == torch.int64 else t.cuda().to(dtype) for name, t in tensors.items()}


@pytest.mark.parametrize("activation", ["relu", bk.LeakyReLU(0.2), "identity", "tanh", "gelu"], ids=str)
@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
def test_agrees_with_the_dense_attack_on_the_cpu(shape: dict[str, Any], activation: Any) -> None:
    tensors, options = attack_case(**shape)
    for changes in ({}, {"keep": "worst"}, {"early_stop": True}, {"need": "margin"}):
        asked = {**options, **changes, "activation": activation}
        want = bk.l2_pgd(**tensors, **asked, algorithm="dense")
        got = bk.l2_pgd(**on_device(tensors), **asked, algorithm="gram")
        assert got.plan.algorithm == "gram"
        # float64: sums of up to 1500 terms of order one in another order, and twelve steps.
        torch.testing.assert_close(got.margin.cpu(), want.margin, rtol=1e-9, atol=1e-9)
        if asked.get("need") != "margin":
            torch.testing.assert_close(got.x.cpu(), want.x, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_walks_in_low_precision_as_the_dense_attack_does(dtype: torch.dtype) -> None:
    """On margins, over rows whose gates agree: the median over rows of the difference."""
    tensors, options = attack_case(n=200, d=300, m=400)
    stored = on_device(tensors, torch.float32)
    if dtype == torch.bfloat16:
        stored = {**stored, "W": stored["W"].to(dtype), "a": stored["a"].to(dtype), "bias": stored["bias"].to(dtype)}
    dense = bk.l2_pgd(**stored, **options, algorithm="dense").margin
    gram = bk.l2_pgd(**stored, **options, algorithm="gram").margin
    # float32: 400 terms of order one, twelve steps; a gate that turns a step earlier moves a margin by its jump.
    assert ((gram - dense).abs() / dense.abs().mean()).median() < 1e-5


@pytest.mark.parametrize("activation", ["relu", "softplus"])
def test_repeats_bit_for_bit_and_in_a_graph(activation: str) -> None:
    tensors, options = attack_case(n=300, d=200, m=1100)
    options["activation"] = activation
    stored = on_device(tensors, torch.float32)
    first = bk.l2_pgd(**stored, **options, algorithm="gram")
    assert torch.equal(first.x, bk.l2_pgd(**stored, **options, algorithm="gram").x)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured = bk.l2_pgd(**stored, **options, algorithm="gram")
    graph.replay()
    assert torch.equal(first.x, captured.x)
    assert torch.equal(first.margin, captured.margin)


def test_a_row_that_is_not_finite_touches_no_other() -> None:
    tensors, options = attack_case(n=20, d=30, m=50)
    stored = on_device(tensors)
    before = bk.l2_pgd(**stored, **options, algorithm="gram").x
    stored["x0"][3, 5] = float("nan")
    after = bk.l2_pgd(**stored, **options, algorithm="gram").x
    assert after[3].isnan().all()
    others = torch.arange(20) != 3
    assert torch.equal(before[others], after[others])


@pytest.mark.parametrize("activation", ["relu", "silu"])
def test_a_known_gram(activation: str) -> None:
    tensors, options = attack_case(n=20, d=300, m=50)
    options["activation"] = activation
    stored = on_device(tensors)
    want = bk.l2_pgd(**stored, **options, algorithm="gram")
    known = bk.l2_pgd(**stored, **options, gram=stored["W"] @ stored["W"].mT, algorithm="gram")
    torch.testing.assert_close(known.x, want.x, rtol=1e-9, atol=1e-9)


def test_sizes_far_from_one() -> None:
    tensors, options = attack_case(n=20, d=300, m=50)
    stored = on_device(tensors)
    want = bk.l2_pgd(**stored, **options, algorithm="gram")
    for size in (2.0**500, 2.0**-500):
        scaled = {**stored, "W": stored["W"] * size, "a": stored["a"] / size, "bias": stored["bias"] * size}
        torch.testing.assert_close(bk.l2_pgd(**scaled, **options, algorithm="gram").x, want.x, rtol=1e-9, atol=1e-9)
