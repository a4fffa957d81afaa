"""One trial of chen21: mixture, adversarial gradient descent with the inner maximum in closed form, errors.

θ is an identity-φ network of one neuron, and trains in the span of the samples, n coordinates whatever d is. It is then
attacked, as a network of several neurons, by PGD, which must find the closed form again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor

from ... import theory
from ...attack import l2_pgd
from ...training import adversarial_train

Loss = Literal["logistic", "exponential"]


@dataclass(frozen=True)
class Config:
    """One trial. The signal is ‖μ‖ = d^exponent; ``neurons`` is the width of the network that holds θ."""

    d: int = 1000
    exponent: float = 0.25
    n: int = 50
    tests: int = 2000
    noise_rate: float = 0.1
    budget: float = 0.1
    loss: Loss = "logistic"
    step_size: float = 1e-3
    iterations: int = 1000
    neurons: int = 8

    def __post_init__(self) -> None:
        for name in ("d", "n", "tests", "iterations", "neurons"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: got {getattr(self, name)}, expected an integer ≥ 1")
        for name, most in (("noise_rate", 0.5), ("budget", math.inf), ("step_size", math.inf), ("exponent", 2.0)):
            value = getattr(self, name)
            if not 0 <= value <= most or math.isinf(value):
                raise ValueError(f"{name}: got {value}, expected a number from 0 to {most:g}")
        if self.loss not in (losses := get_args(Loss)):
            raise ValueError(f"loss: got {self.loss!r}, expected one of {', '.join(map(repr, losses))}")

    @property
    def signal(self) -> float:
        """‖μ‖."""
        return float(self.d**self.exponent)

    @property
    def ratio(self) -> float:
        """ε/‖μ‖."""
        return self.budget / self.signal


class Data(NamedTuple):
    """(n, d) samples, (n,) observed labels ±1, and the generator that goes on where they end."""

    x: Tensor
    y: Tensor
    test_clean: Tensor
    test_y: Tensor
    generator: torch.Generator


def sample(config: Config, seed: int) -> Data:
    """The training set and the test labels. Labels and flips come first: for one seed they are the same for every d."""
    generator = torch.Generator().manual_seed(seed)
    clean, y = _labels(config, config.n, generator)
    test_clean, test_y = _labels(config, config.tests, generator)
    return Data(_points(config, clean, generator), y, test_clean, test_y, generator)


def _labels(config: Config, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    clean = torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1
    flipped = torch.rand(count, generator=generator) < config.noise_rate
    return clean, torch.where(flipped, -clean, clean)


def _points(config: Config, clean: Tensor, generator: torch.Generator) -> Tensor:
    """ỹμ + ξ; μ lies along the first coordinate, which is no loss of generality: the noise has no direction."""
    x = torch.randn(clean.shape[0], config.d, generator=generator)
    x[:, 0] += config.signal * clean
    return x


def train(x: Tensor, y: Tensor, *, budget: float, loss: str, step_size: float, iterations: int) -> Tensor:
    r"""(*, d) float64 θ after gradient descent from zero on the adversarial loss, of one problem or of many at once.

    .. math:: \frac1n \sum_i \ell\bigl(y_i\langle\theta, x_i\rangle - \epsilon\lVert\theta\rVert\bigr)

    ``x``: (*, n, d); ``y``: (*, n). At θ = 0 the gradient of ‖θ‖ is taken as zero.

    >>> x, y = torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([1.0, -1.0])
    >>> theta = train(x, y, budget=0.0, loss="logistic", step_size=1.0, iterations=1)
    >>> theta.tolist()
    [0.5, -0.25]
    """
    x, y = x.double(), y.double()
    one = torch.ones(1, dtype=torch.float64)
    fit = adversarial_train(
        (torch.zeros(*x.shape[:-2], 1, x.shape[-1], dtype=torch.float64), one.expand(*x.shape[:-2], 1)),
        *(x, y),
        activation="identity",
        attack="exact",
        radius=budget,
        loss=loss,
        step_size=step_size,
        iterations=iterations,
        every=max(1, iterations),
    )
    return fit.net.W.squeeze(-2)


def as_network(theta: Tensor, neurons: int) -> tuple[Tensor, Tensor]:
    """W (m, d) and a (m,) of an identity-φ network that computes <θ, x>: w_j = a_j θ with a_j = ±1/√m."""
    signs = torch.where(torch.arange(neurons) % 2 == 0, 1.0, -1.0).to(theta)
    a = signs / math.sqrt(neurons)
    return a.unsqueeze(-1) * theta, a


def trial(config: Config, seed: int) -> dict[str, Any]:
    """Trains and measures: sampled test errors by the package's attack, and those of the whole population by θ."""
    data = sample(config, seed)
    options = {"loss": config.loss, "step_size": config.step_size, "iterations": config.iterations}
    theta = train(data.x, data.y, budget=config.budget, **options)  # type: ignore[arg-type]
    norm = theta.norm().item()
    margin = theta[0].item() * config.signal / norm if norm > 0 else math.nan
    W, a = as_network(theta.float(), config.neurons)
    training = _attack(config, data.x, data.y, W, a, norm)
    testing = _attack(config, _points(config, data.test_clean, data.generator), data.test_y, W, a, norm)
    whole = {"noise_rate": config.noise_rate}
    finite = math.isfinite(margin)
    return {
        "train_error": training.clean,
        "train_robust_error": training.robust,
        "test_error": testing.clean,
        "test_robust_error": testing.robust,
        "risk": float(theory.clean_error(margin, **whole)) if finite else math.nan,
        "robust_risk": float(theory.robust_error(margin, budget=config.budget, **whole)) if finite else math.nan,
        "margin": margin,
        "norm": norm,
        "attack_gap": max(training.gap, testing.gap),
    }


class _Attacked(NamedTuple):
    clean: float
    robust: float
    gap: float


def _attack(config: Config, x: Tensor, y: Tensor, W: Tensor, a: Tensor, norm: float) -> _Attacked:
    """Errors of the identity network, clean and under PGD-20, and how far PGD's margins are from the closed form's.

    The gap is the largest |PGD's margin − (y f − ε‖θ‖)|, in units of ε‖θ‖.
    """
    network = {"activation": "identity", "need": "margin"}
    clean = l2_pgd(x, y, W, a, radius=0.0, steps=0, **network)  # type: ignore[arg-type]
    if config.budget == 0:
        return _Attacked(_share(clean.success), _share(clean.success), 0.0)
    found = l2_pgd(x, y, W, a, radius=config.budget, steps=20, **network)  # type: ignore[arg-type]
    exact = y.double() * (x.double() @ (W.double().mT @ a.double())) - config.budget * norm
    gap = (found.margin - exact).abs().max().item() / (config.budget * norm) if norm > 0 else 0.0
    return _Attacked(_share(clean.success), _share(found.success), gap)


def _share(wrong: Tensor) -> float:
    return wrong.double().mean().item()
