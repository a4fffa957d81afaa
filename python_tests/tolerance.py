"""What "accurate" means: at most twice the error that torch itself makes, plus the rounding of the results.

Everything is measured against float64 on the same inputs. torch's error is the larger of the eager expression's and of
the same expression's with neurons, samples and dimensions in another order: a sum in another order is as good, and
alone it exceeds twice the eager error in every fifth draw. Shapes with few outputs are drawn several times, so that
neither error is small by luck. bfloat16 networks are computed in float32, so they are held to torch's error in float32
on the same (bfloat16) numbers; rounding to bfloat16 happens once, at the end. The rounding of the results is one of the
largest in the numbers computed in, and one of each in its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from problems import Problem, make_problem
from torch import Tensor

from benign_kernels import reference
from benign_kernels.activation import Activation

#: Of float64 against the float64 oracle, per unit of the largest result: sums of up to 1000 terms of order one in
#: another order, 1000 · 2^-53 = 1e-13, times 10 for terms larger than their sum.
FLOAT64 = 1e-12

#: At least so many numbers of each output are compared.
OUTPUTS = 32

LOW_PRECISION = [torch.float32, torch.bfloat16]
DTYPES = [torch.float64, *LOW_PRECISION]


def computed_in(dtype: torch.dtype) -> torch.dtype:
    return torch.float32 if dtype == torch.bfloat16 else dtype


def roundoff(dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps / 2


def eager(p: Problem, phi: Activation) -> list[Tensor]:
    """f, gx, gW, ga, gb as everyone writes them: matrix products, an activation, and autograd."""
    wide = p.to(computed_in(p.x.dtype))
    rows = reference.row_shape(wide.x, wide.W)
    x = wide.x.expand(*rows, wide.x.shape[-1]).clone().requires_grad_()
    W, a = (t.clone().requires_grad_() for t in (wide.W, wide.a))
    bias = torch.zeros_like(W[..., 0]) if wide.bias is None else wide.bias.clone()
    bias.requires_grad_()
    # In both, everything between the networks and d stays a row: (*S, rows, m), patches summed last.
    networks = W.dim() - 2
    points = x.reshape(*rows[:networks], rows[networks:].numel() * p.patches, W.shape[-1])
    gates = phi.value(points @ W.mT + bias.unsqueeze(-2))
    heads = a if a.dim() == W.dim() else a.unsqueeze(-2)
    f = (gates @ heads.mT).reshape(*rows[:networks], rows[networks:].numel(), p.patches, heads.shape[-2]).sum(-2)
    if wide.head_bias is not None:
        f = f + (wide.head_bias if a.dim() == W.dim() else wide.head_bias.unsqueeze(-1)).unsqueeze(-2)
    f = f.reshape(wide.cotangent.shape)
    return [f.detach(), *torch.autograd.grad(f, [x, W, a, bias], wide.cotangent)]


def eager_shuffled(p: Problem, phi: Activation) -> list[Tensor]:
    """The same with neurons, samples and dimensions in another order; the results back in the first."""
    generator = torch.Generator().manual_seed(1)

    def order(size: int) -> Tensor:
        return torch.randperm(size, generator=generator).to(p.W.device)

    samples_dim = -2 if p.a.dim() == p.W.dim() else -1  # in the cotangent
    neurons, dims = order(p.W.shape[-2]), order(p.W.shape[-1])
    samples = order(p.x.shape[-2]) if p.x.dim() > 1 else None
    columns = torch.cat([dims + i * len(dims) for i in range(p.patches)])
    x, r = p.x[..., columns], p.cotangent
    if samples is not None:
        x, r = x[..., samples, :], r.index_select(samples_dim, samples)
    bias = None if p.bias is None else p.bias[..., neurons]
    f, gx, gW, ga, gb = eager(
        Problem(x, p.W[..., neurons, :][..., dims], p.a[..., neurons], bias, p.head_bias, r, p.patches), phi
    )
    if samples is not None:
        f, gx = f.index_select(samples_dim, samples.argsort()), gx[..., samples.argsort(), :]
    back = neurons.argsort()
    return [f, gx[..., columns.argsort()], gW[..., back, :][..., dims.argsort()], ga[..., back], gb[..., back]]


def exact(p: Problem, phi: Activation) -> list[Tensor]:
    """f, gx, gW, ga, gb of the oracle."""
    keywords = {"activation": phi, "patches": p.patches, "bias": p.bias}
    f, gx = reference.two_layer_value_and_grad(p.x, p.W, p.a, cotangent=p.cotangent, head_bias=p.head_bias, **keywords)
    return [f, gx, *reference.two_layer_parameter_grad(p.x, p.W, p.a, cotangent=p.cotangent, **keywords)]


def assert_accurate(
    function: Callable[[Problem], Sequence[Tensor]],
    shape: dict[str, Any],
    phi: Activation,
    which: Sequence[int],
    dtype: torch.dtype,
    device: torch.device,
) -> None:
    """``function`` returns the entries ``which`` of f, gx, gW, ga, gb."""
    first = make_problem(**shape).to(device, dtype)
    fewest = min((t.numel() for t in exact(first, phi) if t.numel()), default=OUTPUTS)
    draws = 1 if dtype == torch.float64 else math.ceil(OUTPUTS / fewest)
    problems = [first, *(make_problem(**shape, seed=seed).to(device, dtype) for seed in range(1, draws))]
    outcomes = [(function(p), exact(p, phi)) for p in problems]
    rivals = [] if dtype == torch.float64 else [(eager(p, phi), eager_shuffled(p, phi)) for p in problems]
    for j, i in enumerate(which):
        ours, want = [got[j] for got, _ in outcomes], [exactly[i] for _, exactly in outcomes]
        if dtype == torch.float64:
            allowed = [torch.full_like(w, FLOAT64 * max(1.0, _size(w))) for w in want]
        else:
            theirs = max(_size(rival[i].double() - w) for pair, w in zip(rivals, want, strict=True) for rival in pair)
            theirs = 2 * theirs + roundoff(computed_in(dtype)) * max(map(_size, want)) + torch.finfo(dtype).tiny
            allowed = [theirs + roundoff(dtype) * w.abs() for w in want]
        for got, w, limit in zip(ours, want, allowed, strict=True):
            assert got.dtype == dtype
            assert got.shape == w.shape
            error = (got.double() - w).abs()
            assert (error <= limit).all(), f"output {i}: an error of {_size(error / limit):.3g} times what is allowed"


def _size(t: Tensor) -> float:
    return t.abs().max().item() if t.numel() else 0.0
