"""Closed forms against sampling, and at their limits."""

import math

import numpy as np
import pytest
import torch

import benign_kernels as bk
from benign_kernels import theory


def test_the_averaging_classifier_errs_as_predicted():
    n, d, signal, beta, budget = 400, 4000, 3.0, 0.1, 0.7
    generator = torch.Generator().manual_seed(0)

    def draw(count):
        clean = torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1
        x = torch.randn(count, d, generator=generator)
        x[:, 0] += signal * clean
        return x, torch.where(torch.rand(count, generator=generator) < beta, -clean, clean)

    x, y = draw(n)
    theta = y @ x
    tests, labels = draw(4000)
    margin = labels * (tests @ theta) / theta.norm()
    M = theory.averaging_margin(signal, noise_rate=beta, n=n, d=d)
    # Four standard errors of 4000 tests, and as much again: the formula is of leading order in n.
    slack = 8 * math.sqrt(0.25 / 4000)
    assert (margin <= 0).double().mean().item() == pytest.approx(theory.clean_error(M, noise_rate=beta), abs=slack)
    robust = theory.robust_error(M, noise_rate=beta, budget=budget)
    assert (margin <= budget).double().mean().item() == pytest.approx(robust, abs=slack)


def test_no_linear_classifier_is_below_the_bayes_error():
    budgets, margins = np.linspace(0, 9, 30)[:, None], np.linspace(-4, 5, 40)
    errors = theory.robust_error(margins, noise_rate=0.2, budget=budgets)  # M ≤ ‖μ‖
    assert (errors >= theory.bayes_error(5.0, noise_rate=0.2, budget=budgets) - 1e-12).all()


def test_limits():
    assert theory.clean_error(math.inf, noise_rate=0.1) == 0.1
    assert theory.robust_error(1.0, noise_rate=0.5, budget=0.0) == pytest.approx(0.5)
    assert theory.robust_error(1.0, noise_rate=0.1, budget=math.inf) == 1.0
    assert theory.bayes_error(3.0, noise_rate=0.1, budget=math.inf) == pytest.approx(0.5)
    assert theory.averaging_margin(0.0, noise_rate=0.1, n=10, d=0) == 0.0
    assert theory.averaging_margin([1.0, 2.0], noise_rate=0.0, n=10, d=10).shape == (2,)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: theory.clean_error(1.0, noise_rate=0.6), "noise_rate: got 0.6, expected a number from 0 to 0.5"),
        (
            lambda: theory.robust_error(1.0, noise_rate=0.1, budget=-1),
            "budget: got -1, expected a number from 0 to inf",
        ),
        (lambda: theory.bayes_error(math.nan, noise_rate=0.1, budget=1), "signal: got nan"),
        (lambda: theory.averaging_margin(1.0, noise_rate=0.1, n=0, d=3), "n: got 0, expected a number from 1"),
    ],
)
def test_errors_name_the_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()
    with pytest.raises(TypeError, match="margin: got 'x'"):
        theory.clean_error("x", noise_rate=0.1)


CONVEX = [
    bk.ReLU(),
    bk.LeakyReLU(0.3),
    bk.LeakyReLU(-1.0),
    bk.SmoothLeakyReLU(0.2, 5.0),
    bk.ReLUPower(2.0),
    bk.SmoothedReLU(2, 0.5),
    bk.Softplus(2.0),
    bk.Identity(),
]


@pytest.mark.parametrize("phi", CONVEX, ids=repr)
def test_no_attack_gets_below_the_certified_margin(phi):
    generator = torch.Generator().manual_seed(0)
    options = {"generator": generator, "dtype": torch.float64}
    x, W, a = torch.randn(2, 30, 6, **options), torch.randn(2, 9, 6, **options), torch.randn(2, 9, **options)
    y = torch.randn(2, 30, **options).sign()
    for radius in (0.0, 0.01, 0.3, 2.0, torch.rand(2, 30, **options)):
        bound = theory.margin_bound(x, y, W, a, activation=phi, radius=radius)
        attack = {
            "activation": phi,
            "radius": radius,
            "steps": 30,
            "keep": "worst",
            "restarts": 3,
            "generator": generator,
        }
        gap = bk.l2_pgd(x, y, W, a, **attack).margin - bound
        assert gap.min() > -1e-10
        if isinstance(phi, bk.Identity) or (isinstance(radius, float) and radius == 0):
            assert gap.max() < 1e-10  # tight for a line, and for a point
        elif isinstance(radius, float) and radius == 0.01:
            assert gap.median() < 0.2 * radius  # of second order: Σ|a_j|‖w_j‖²φ'' is of order 10, halves of it cancel


def test_a_bound_is_asked_of_convex_activations_only():
    for phi in ("tanh", "gelu", bk.LeakyReLU(1.5)):
        with pytest.raises(ValueError, match=r"activation: got .* expected a convex one: identity, relu, "):
            theory.margin_bound(
                torch.zeros(1, 2), torch.ones(1), torch.ones(3, 2), torch.ones(3), activation=phi, radius=1
            )
