"""Large problems on a real GPU: many blocks, products by torch, tf32, and memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from cuda_calls import CALLS, Call, assert_agree, assert_same, captured, every_call, every_dtype, labels, problem
from problems import Problem, make_problem
from tolerance import assert_accurate
from torch import Tensor

import benign_kernels as bk
from benign_kernels.activation import GELU, Activation, LeakyReLU

pytestmark = pytest.mark.gpu

# ---- many blocks -----------------------------------------------------------------------------------------------------

# One dimension over 65 535 at a time, the limit of a grid's second and third dimension.
LONG: dict[str, dict[str, Any]] = {
    "samples": {"n": 70_001, "d": 3, "m": 70},
    "neurons": {"n": 70, "d": 3, "m": 70_001},
    "dimension": {"n": 7, "d": 70_001, "m": 5},
    "networks": {"batch": (70_001,), "n": 2, "d": 2, "m": 3},
}


@every_call
@pytest.mark.parametrize("shape", LONG.values(), ids=LONG.keys())
def test_long_problems_agree_with_the_cpu(shape: dict[str, Any], call: Call) -> None:
    p = make_problem(**shape)
    assert_agree(call(p.to("cuda")), call(p))


# Several blocks of every kind: tiles, splits of the sum over d, chunks of samples, ranges of neurons.
LARGE: dict[str, dict[str, Any]] = {
    "tiles": {"n": 700, "d": 130, "m": 2100},
    "splits": {"n": 100, "d": 3000, "m": 70},
    "chunks": {"n": 9000, "d": 7, "m": 600},
    "heads_patches": {"n": 1000, "d": 20, "m": 300, "heads": 3, "patches": 4},
}


@every_dtype
@pytest.mark.parametrize("phi", [LeakyReLU(0.1), GELU()], ids=repr)
@pytest.mark.parametrize("shape", LARGE.values(), ids=LARGE.keys())
def test_large_problems_are_accurate(shape: dict[str, Any], phi: Activation, dtype: torch.dtype) -> None:
    def gradients(p: Problem) -> list[Tensor]:
        given = {"cotangent": p.cotangent, "activation": phi}
        of_input = bk.two_layer_value_and_grad(p.x, p.W, p.a, **given, **p.network)
        return [*of_input, *bk.two_layer_parameter_grad(p.x, p.W, p.a, **given, **p.hidden)]

    assert_accurate(gradients, shape, phi, range(5), dtype, torch.device("cuda"))


# ---- products by torch -----------------------------------------------------------------------------------------------

BY_TORCH: dict[str, Any] = {"n": 600, "d": 400, "m": 1500}


def kernels_of(call: Call, p: Problem) -> str:
    """The names of the kernels that a call launches."""
    call(p)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
        call(p)
        torch.cuda.synchronize()
    return " ".join(event.key for event in profile.key_averages()).lower()


def test_torch_makes_large_products_and_no_small_ones() -> None:
    for name in ("value", "value_and_grad", "parameter_grad", "l2_pgd"):
        assert "gemm" in kernels_of(CALLS[name], problem(torch.float64, **BY_TORCH))
        assert "gemm" not in kernels_of(CALLS[name], problem(torch.float64))


# Batched products, x shared; several ranges of neurons; several panels of G.
SHAPES_BY_TORCH: dict[str, dict[str, Any]] = {
    "one": BY_TORCH,
    "networks": {"batch": (3,), "n": 300, "d": 400, "m": 600},
    "shared": {"batch": (3,), "n": 300, "d": 400, "m": 600, "shared": True},
    "ranges": {"n": 600, "d": 260, "m": 16_000},
    "panels": {"n": 100, "d": 4000, "m": 1500},
}


@pytest.mark.parametrize("algorithm", ["dense", "half_sparse", "gram"])
@pytest.mark.parametrize("shape", SHAPES_BY_TORCH.values(), ids=SHAPES_BY_TORCH.keys())
def test_attacks_with_products_by_torch(shape: dict[str, Any], algorithm: str) -> None:
    if algorithm == "gram" and shape["m"] > 2000:
        pytest.skip("G of this many neurons is 2 GB")
    p = problem(torch.float64, **shape)

    def attack(p: Problem, algorithm: str, size: float = 1) -> tuple[Tensor, ...]:
        """Of W and the bias times ``size``, with heads that make up for it."""
        network = {**p.network, "bias": p.bias * size}
        found = bk.l2_pgd(p.x, labels(p), p.W * size, p.a / size, **network, radius=0.7, steps=5, algorithm=algorithm)
        return found.x, found.logits, found.margin

    want = attack(p.to("cpu"), "dense")
    assert_agree(attack(p, algorithm), want)
    assert_agree(attack(p, algorithm, size=2.0**40), want)
    graph, outputs = captured(lambda: attack(p, algorithm))
    for output in outputs:
        output.zero_()
    graph.replay()
    assert_agree(outputs, want)


@pytest.mark.parametrize("shape", SHAPES_BY_TORCH.values(), ids=SHAPES_BY_TORCH.keys())
def test_gradients_with_products_by_torch(shape: dict[str, Any]) -> None:
    p = problem(torch.float64, **shape)
    for name in ("value", "value_and_grad", "parameter_grad"):
        assert_agree(CALLS[name](p), CALLS[name](p.to("cpu")))


# ---- precision -------------------------------------------------------------------------------------------------------

TF32 = 2**-10  # two factors, each rounded to 11 bits


@pytest.fixture
def matmul() -> Iterator[Any]:
    """torch's switch, which is put back."""
    switch = torch.backends.cuda.matmul
    before = switch.fp32_precision
    yield switch
    switch.fp32_precision = before


@pytest.mark.parametrize("shape", [{"n": 300, "d": 130, "m": 700}, BY_TORCH], ids=["ours", "torch's"])
def test_tf32_is_used_where_torch_allows_it(shape: dict[str, Any], matmul: Any) -> None:
    def gradients(p: Problem) -> list[Tensor]:
        given = {"cotangent": p.cotangent, "activation": GELU()}
        of_input = bk.two_layer_value_and_grad(p.x, p.W, p.a, **given, **p.network)
        return [*of_input, *bk.two_layer_parameter_grad(p.x, p.W, p.a, **given, **p.hidden)]

    p = problem(**shape)
    truth = gradients(p.map(Tensor.double))
    matmul.fp32_precision = "ieee"
    exact, margin = gradients(p), CALLS["l2_pgd"](p)[2]
    matmul.fp32_precision = "tf32"
    found, allowed_margin = gradients(p), CALLS["l2_pgd"](p)[2]
    assert_same(gradients(p.map(Tensor.double)), truth)
    for got, precise, want in zip(found, exact, truth, strict=True):
        # float32 without tensor cores, before sm_80, is as exact as ever.
        assert torch.equal(got, precise) == (torch.cuda.get_device_capability() < (8, 0))
        assert (got - want).abs().max() <= TF32 * want.abs().max()
    # A row that meets a kink goes another way by the jump of a neuron.
    assert (allowed_margin - margin).abs().median() <= TF32 * margin.abs().max()
    matmul.fp32_precision = "ieee"
    assert_same(gradients(p), exact)


@pytest.mark.parametrize("algorithm", ["dense", "half_sparse", "gram"])
def test_attacks_on_networks_in_bfloat16_use_tf32(algorithm: str, matmul: Any) -> None:
    if torch.cuda.get_device_capability() < (8, 0):
        pytest.skip("no tensor cores for bfloat16")
    stored = problem(torch.bfloat16, **BY_TORCH)
    p = replace(stored, x=stored.x.float().sin(), cotangent=stored.cotangent.float())  # points of more than one piece

    def attack(p: Problem) -> tuple[Tensor, ...]:
        found = bk.l2_pgd(p.x, labels(p), p.W, p.a, **p.network, radius=0.7, steps=1, algorithm=algorithm)
        return found.x, found.logits, found.margin

    matmul.fp32_precision = "ieee"
    exact = attack(p)
    matmul.fp32_precision = "tf32"
    found = attack(p)
    assert_same(attack(p), found)
    for got, precise, want in zip(found, exact, attack(p.map(Tensor.double)), strict=True):
        assert not torch.equal(got, precise)
        # A gate that opens a little earlier turns the gradient by one neuron's share.
        assert ((got - want).abs() <= TF32 * want.abs().max()).double().mean() > 0.999
        assert (got - want).abs().median() <= TF32 / 16 * want.abs().max()


# ---- memory ----------------------------------------------------------------------------------------------------------

# The workspace of csrc/cuda/engine.h in float64, and results of a few megabytes.
MOST_MEMORY = 2**24 * 8 + 2**25


@pytest.mark.parametrize("name", ["value", "value_and_grad", "parameter_grad", "l2_pgd", "linf_pgd"])
def test_more_than_two_to_the_31_preactivations_are_never_stored(name: str) -> None:
    n, m = 70_000, 32_000
    assert n * m > 2**31
    p = problem(torch.float64, n=n, d=4, m=m)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    found = CALLS[name](p)
    assert torch.cuda.max_memory_allocated() - before < MOST_MEMORY
    # The last rows are those of a problem with these rows alone; gradients of parameters, those with these neurons.
    if name == "parameter_grad":
        assert p.bias is not None
        few = replace(p, W=p.W[-9:], a=p.a[-9:], bias=p.bias[-9:])
    else:
        few = replace(p, x=p.x[-9:], cotangent=p.cotangent[-9:])
    assert_agree([output[-9:] for output in found], CALLS[name](few.to("cpu")))


@every_call
def test_memory_stays_flat(call: Call) -> None:
    p = problem()
    for _ in range(3):
        call(p)
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    for _ in range(100):
        call(p)
    assert (torch.cuda.memory_allocated(), torch.cuda.memory_reserved()) == before
