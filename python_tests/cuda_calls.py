"""Every op as a function of a problem on a GPU, for the tests of what only a real one can tell."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from problems import Problem, make_problem
from tolerance import DTYPES
from torch import Tensor

import benign_kernels as bk

# float64 on two devices: sums of up to 70 000 terms of order one in another order, and five steps of an attack.
AGREE = 1e-9


def problem(dtype: torch.dtype = torch.float32, **changes: Any) -> Problem:
    return make_problem(**{"n": 70, "d": 33, "m": 130, **changes}, dtype=dtype, device="cuda")


def labels(p: Problem) -> Tensor:
    return p.cotangent.argmax(-1) if p.a.dim() == p.W.dim() else p.cotangent.sign()


def backward(p: Problem) -> tuple[Tensor, ...]:
    """Not to the head bias: its gradient is a sum that torch takes."""
    x, W, a, bias = leaves = [t.detach().requires_grad_() for t in (p.x, p.W, p.a, p.bias)]
    f = bk.two_layer(x, W, a, bias=bias, head_bias=p.head_bias, patches=p.patches)
    return torch.autograd.grad(f, leaves, p.cotangent)


def stepped(step: Callable[..., Tensor]) -> Callable[[Problem], tuple[Tensor, ...]]:
    return lambda p: (step(p.x.clone(), p.x.cos(), p.x.sin(), step=0.5, radius=p.x[..., 0].abs()),)


def attacked(attack: Callable[..., Any], **options: Any) -> Callable[[Problem], tuple[Tensor, ...]]:
    def call(p: Problem) -> tuple[Tensor, ...]:
        found = attack(p.x, labels(p), p.W, p.a, **p.network, radius=0.7, steps=5, **options)
        return found.x, found.logits, found.margin

    return call


def attacked_with_everything(p: Problem) -> tuple[Tensor, ...]:
    sizes = p.x[..., 0].abs()
    options = {"radius": sizes, "step": sizes / 3, "steps": 3, "start": p.x + 0.1, "box": (-1.0, 1.5)}
    found = bk.l2_pgd(p.x, labels(p), p.W, p.a, **p.network, **options, keep="worst", trajectory=True)
    return found.x, found.logits, found.margin, found.trajectory


Call = Callable[[Problem], Sequence[Tensor]]
CALLS: dict[str, Call] = {
    "value": lambda p: (bk.two_layer(p.x, p.W, p.a, **p.network),),
    "value_and_grad": lambda p: bk.two_layer_value_and_grad(p.x, p.W, p.a, cotangent=p.cotangent, **p.network),
    "parameter_grad": lambda p: bk.two_layer_parameter_grad(p.x, p.W, p.a, cotangent=p.cotangent, **p.hidden),
    "backward": backward,
    "l2_step": stepped(bk.l2_pgd_step),
    "l2_step_in_place": stepped(bk.l2_pgd_step_),
    "linf_step": stepped(bk.linf_pgd_step),
    "linf_step_in_place": stepped(bk.linf_pgd_step_),
    "l2_pgd": attacked(bk.l2_pgd),
    "linf_pgd": attacked(bk.linf_pgd),
    "l2_pgd_with_everything": attacked_with_everything,
}
every_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
one_head_and_three = pytest.mark.parametrize("shape", [{}, {"heads": 3, "patches": 2}], ids=["one_head", "three_heads"])
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def assert_same(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    for i, (got, want) in enumerate(zip(ours, theirs, strict=True)):
        assert torch.equal(got, want), f"output {i} differs by up to {(got - want).abs().max().item():.3g}"


def assert_agree(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> None:
    for got, want in zip(ours, theirs, strict=True):
        torch.testing.assert_close(got.cpu(), want.cpu(), rtol=AGREE, atol=AGREE)


def captured(function: Callable[[], Sequence[Tensor]]) -> tuple[torch.cuda.CUDAGraph, Sequence[Tensor]]:
    """A graph of the call, and its outputs. Kernels are loaded when first used, so the first call is not captured."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        function()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = function()
    return graph, outputs
