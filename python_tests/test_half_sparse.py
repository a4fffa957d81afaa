"""algorithm="half_sparse" of l2_pgd: the path of the dense attack, whatever the gates do."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from problems import labels, make_problem
from torch import Tensor

import benign_kernels as bk
from benign_kernels import reference
from benign_kernels.attack import AttackResult

# float64 paths, as in test_attack_path.py. Measured on these problems: below 1e-13, after 200 steps below 1e-11.
PATH_TOLERANCE = 1e-10

Net = tuple[Tensor, Tensor, Tensor, Tensor]  # x, y, W, a


def sample(m: int = 150, n: int = 33, d: int = 17, dtype: torch.dtype = torch.float64, **shape: Any) -> Net:
    problem = make_problem(n=n, d=d, m=m, dtype=dtype, **shape)
    return problem.x, labels(problem), problem.W, problem.a


def half_sparse(*args: Any, **keywords: Any) -> AttackResult:
    return bk.l2_pgd(*args, **keywords, algorithm="half_sparse")


def assert_follows_the_reference(net: Net, **options: Any) -> None:
    ours = half_sparse(*net, **options, trajectory=True)
    theirs = reference.l2_pgd(*net, **options, trajectory=True)
    for name in ("x", "logits", "margin", "trajectory"):
        want = getattr(theirs, name)
        torch.testing.assert_close(getattr(ours, name), want, atol=PATH_TOLERANCE, rtol=PATH_TOLERANCE)


def with_ties(net: Net) -> Net:
    """h = 0 exactly at x0 for a third of the neurons."""
    x, y, W, a = net
    x, W = x.clone(), W.clone()
    x[:, 0] = 0
    W[::3, 1:] = 0
    return x, y, W, a


def with_near_kinks(net: Net) -> Net:
    x, y, W, a = net
    normal = W[0] / W[0].norm()
    return x - (x @ normal - 1e-9)[:, None] * normal, y, W, a


def with_dead_neurons(net: Net) -> Net:
    x, y, W, a = net
    return x.abs(), y, torch.cat([-W.abs(), W[:5]]), torch.cat([a, a[:5]])


def with_duplicates(net: Net) -> Net:
    x, y, W, a = net
    return x, y, W[:7].repeat(30, 1), a[:7].repeat(30)


def with_pairs(net: Net) -> Net:
    """Just after a paired initialisation: the gradient is a thousandth of its terms."""
    x, y, W, a = net
    generator = torch.Generator().manual_seed(3)
    moved = W + 1e-3 * torch.randn(W.shape, generator=generator, dtype=W.dtype)
    return x, y, torch.cat([W, moved]), torch.cat([a, -a])


@pytest.mark.parametrize("change", [with_ties, with_near_kinks, with_dead_neurons, with_duplicates, with_pairs])
@pytest.mark.parametrize("activation", ["relu", bk.LeakyReLU(0.1), "identity"], ids=str)
def test_gates_of_every_kind(change: Any, activation: Any) -> None:
    assert_follows_the_reference(change(sample()), radius=1.5, step=0.3, steps=10, activation=activation)


@pytest.mark.parametrize("steps", [0, 1, 20])
@pytest.mark.parametrize("radius", [1e-6, 1.0, 1e3, math.inf])
def test_any_number_of_steps_of_any_size(steps: int, radius: float) -> None:
    assert_follows_the_reference(sample(), radius=radius, step=0.2 * min(radius, 50), steps=steps)


def test_two_hundred_steps() -> None:
    assert_follows_the_reference(sample(), radius=0.7, step=0.01, steps=200)


@pytest.mark.parametrize("options", [{"keep": "worst"}, {"loss": "squared"}, {"box": (-1.0, 1.0)}], ids=str)
def test_every_option(options: dict[str, Any]) -> None:
    problem = make_problem(n=20, d=9, m=140, patches=3, batch=(2,))
    y = labels(problem, options.get("loss", "margin"))
    net = (problem.x, y, problem.W, problem.a)
    assert_follows_the_reference(net, **problem.network, radius=1.0, step=0.3, steps=8, **options)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize(("m", "d"), [(40, 17), (1100, 600)])  # the larger one in slabs, which run at the same time
def test_bits_do_not_depend_on_threads_or_on_the_batch(dtype: torch.dtype, m: int, d: int) -> None:
    net = sample(m, 40, d, dtype)
    x, y, W, a = with_pairs(net) if dtype == torch.float32 else net
    threads = torch.get_num_threads()
    whole = half_sparse(x, y, W, a, radius=1.0)
    try:
        torch.set_num_threads(1)
        single = half_sparse(x, y, W, a, radius=1.0)
    finally:
        torch.set_num_threads(threads)
    parts = [half_sparse(x[i : i + 13], y[i : i + 13], W, a, radius=1.0) for i in range(0, 40, 13)]
    for name in ("x", "logits", "margin"):
        assert torch.equal(getattr(single, name), getattr(whole, name))
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("change", [lambda net: net, with_pairs], ids=["plain", "pairs"])
def test_low_precision_is_as_good_as_dense(dtype: torch.dtype, change: Any) -> None:
    """Against the float64 path of the same, rounded, network; in the median, as kinks make a sample's path jump."""
    net = tuple(t.to(dtype) for t in change(sample(2000, 128, 50)))
    exact = bk.l2_pgd(*(t.double() for t in net), radius=0.7, algorithm="dense").margin
    errors = [
        (bk.l2_pgd(*net, radius=0.7, algorithm=algorithm).margin.double() - exact).abs().median()
        for algorithm in ("dense", "half_sparse")
    ]
    assert errors[1] <= 2 * errors[0] + torch.finfo(torch.float32).eps * exact.abs().median()
