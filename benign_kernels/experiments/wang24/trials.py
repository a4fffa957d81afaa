"""Trials of wang24: data, adversarial training, errors under attack; many of one shape in one call.

A Gaussian mixture is drawn in the span of μ, its samples and the first weights, where the training stays: what a trial
costs does not depend on d. Only the random starts of the final attack leave the span; what they spend outside of it is
held by one coordinate more, which the weights do not see.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ... import theory
from ...activation import Activation, LeakyReLU, ReLU, SmoothLeakyReLU
from ...attack import l2_pgd
from ...geometry import sample_reduced
from ...ops import two_layer
from ...training import adversarial_train
from .. import images

_INIT = 1e-3
_SHARPNESS = 10.0
_DATA = ("mixture", "images")
_ACTIVATIONS = ("relu", "leaky_relu", "smooth_leaky_relu")
#: So many networks go into one call, fewer if that would take more than ten seconds or so, which m² · iterations tells.
_MOST, _CALL = 16, 500_000_000


@dataclass(frozen=True)
class Config:
    """One trial; the attacker's budget is α = ratio·‖μ‖, in training (if ``adversarial``) and in test.

    ``step_size`` is in units of n/d. With ``data="images"`` d and ‖μ‖ are the data's, and 0 here. What counts for
    nothing (files and classes with a mixture, the slope of ReLU) has its default: equal trials are equal.
    """

    data: Literal["mixture", "images"] = "mixture"
    n: int = 100
    d: int = 5000
    signal: float = 7.0
    noise_rate: float = 0.1
    ratio: float = 0.1
    adversarial: bool = True
    m: int = 1000
    activation: Literal["relu", "leaky_relu", "smooth_leaky_relu"] = "relu"
    slope: float = 0.1
    step_size: float = 0.05
    iterations: int = 1000
    steps: int = 20
    starts: int = 5
    tests: int = 2000
    images: str = ""
    labels: str = ""
    classes: str = "0,1"

    def __post_init__(self) -> None:
        for name in ("n", "d", "m", "iterations", "steps", "tests"):
            if getattr(self, name) < 1 and not (name == "d" and self.data == "images"):
                raise ValueError(f"{name}: got {getattr(self, name)}, expected an integer ≥ 1")
        if self.m % 2:
            raise ValueError(f"m: got {self.m}, expected an even number: neurons come in pairs")
        if self.starts < 0:
            raise ValueError(f"starts: got {self.starts}, expected an integer ≥ 0")
        limits = {"noise_rate": 0.5, "signal": math.inf, "ratio": math.inf, "step_size": math.inf, "slope": 1.0}
        for name, limit in limits.items():
            if not 0 <= getattr(self, name) <= limit or math.isinf(getattr(self, name)):
                raise ValueError(f"{name}: got {getattr(self, name)}, expected a number from 0 to {limit:g}")
        for name, accepted in (("data", _DATA), ("activation", _ACTIVATIONS)):
            if getattr(self, name) not in accepted:
                raise ValueError(f"{name}: got {getattr(self, name)!r}, expected one of {', '.join(accepted)}")
        if self.data == "images":
            _two_of(self.classes)
            for name in ("images", "labels"):
                if (path := getattr(self, name)) and not Path(path).is_file():
                    raise ValueError(f"{name}: got {path!r}, expected a file that is there; nothing is downloaded")
            if self.images or self.labels:
                images.two_classes(self.images, self.labels, _two_of(self.classes))
        unused = ["slope"] if self.activation == "relu" else []
        unused += ["images", "labels", "classes"] if self.data == "mixture" else []
        values = {name: getattr(Config, name) for name in unused}
        values |= {"d": 0, "signal": 0.0} if self.data == "images" else {}
        for name, value in values.items():
            object.__setattr__(self, name, value)

    @property
    def phi(self) -> Activation:
        if self.activation == "smooth_leaky_relu":
            return SmoothLeakyReLU(self.slope, _SHARPNESS)
        return LeakyReLU(self.slope) if self.activation == "leaky_relu" else ReLU()

    @property
    def phi_name(self) -> str:
        """As legends say it."""
        return {"relu": "ReLU", "leaky_relu": f"leaky {self.slope:g}"}.get(self.activation, f"smooth {self.slope:g}")

    @property
    def load(self) -> float:
        """n‖μ‖²/d, which theory wants small."""
        return self.n * self.signal**2 / self.d


def _two_of(classes: str) -> tuple[int, int]:
    found = classes.split(",")
    if len(found) != 2 or not all(part.strip().isdigit() for part in found) or int(found[0]) == int(found[1]):
        raise ValueError(f"classes: got {classes!r}, expected two different numbers, as in 0,1")
    return int(found[0]), int(found[1])


# ---- data ------------------------------------------------------------------------------------------------------------


class Problem(NamedTuple):
    """Training points (n, r), labels (n,), first weights (m, r), test points (tests, r) and labels; the r coordinates
    are of the span, which leaves ``outside`` dimensions. ``generator`` goes on where the data end."""

    x: Tensor
    y: Tensor
    W: Tensor
    test_x: Tensor
    test_y: Tensor
    signal: float
    outside: int
    generator: torch.Generator


def sample(config: Config, seed: int) -> Problem:
    """The data of one trial."""
    generator = torch.Generator().manual_seed(seed)
    if config.data == "images":
        return _sample_images(config, generator)
    sizes = {"m": config.m, "init": _INIT, "paired": True, "tests": config.tests, "flip": config.noise_rate}
    drawn = sample_reduced(config.n, config.d, config.signal, **sizes, generator=generator)  # type: ignore[arg-type]
    outside = config.d - drawn.rank
    return Problem(drawn.x, drawn.y, drawn.W, drawn.test_x, drawn.test_y, config.signal, outside, generator)


def _sample_images(config: Config, generator: torch.Generator) -> Problem:
    """Images less the training mean, in units that make the mean of ‖x‖² d, as it is for the mixture's noise."""
    x, y = images.two_classes(config.images, config.labels, _two_of(config.classes))
    n, N = config.n, len(x)
    if n >= N:
        raise ValueError(f"n: got {n}, expected fewer than the {N} images of classes {config.classes}")
    order = torch.randperm(N, generator=generator)[: n + config.tests]
    x, y = x[order], y[order].float()
    x = x - x[:n].mean(0)
    x = (x / x[:n].square().mean().sqrt()).float()
    if not (bool((y[:n] > 0).any()) and bool((y[:n] < 0).any())):
        raise ValueError(f"n: got {n}, expected so many that both classes are among them")
    signal = float((x[:n][y[:n] > 0].mean(0) - x[:n][y[:n] < 0].mean(0)).norm()) / 2
    y = torch.where(torch.rand(y.shape, generator=generator) < config.noise_rate, -y, y)
    W = _INIT * torch.randn(config.m // 2, x.shape[1], generator=generator)
    return Problem(x[:n], y[:n], torch.cat([W, W]), x[n:], y[n:], signal, 0, generator)


# ---- trials ----------------------------------------------------------------------------------------------------------


def shape(config: Config) -> tuple[Any, ...]:
    """What configurations share whose trials go together; α, d, ‖μ‖ and β may differ."""
    data = (config.data, config.images, config.labels, config.classes, min(config.d, config.n + 1 + config.m // 2))
    training = (config.adversarial, config.activation, config.slope, config.iterations, config.steps, config.starts)
    return (*data, config.n, config.m, config.tests, *training)


def most(config: Config) -> int:
    """How many trials go into one call."""
    return max(1, min(_MOST, _CALL // (config.m**2 * config.iterations)))


def trial(config: Config, seed: int) -> dict[str, Any]:
    """Trains a network, and measures its errors on training and test points, clean and under attack."""
    return trials([config], [seed])[0]


def trials(configs: Sequence[Config], seeds: Sequence[int]) -> list[dict[str, Any]]:
    """The trials of configurations of one ``shape``."""
    problems = [sample(config, seed) for config, seed in zip(configs, seeds, strict=True)]
    first = configs[0]
    x, y = torch.stack([p.x for p in problems]), torch.stack([p.y for p in problems])
    pairs = list(zip(configs, problems, strict=True))
    budget = torch.tensor([config.ratio * problem.signal for config, problem in pairs])
    step = torch.tensor([c.step_size * c.n / (p.x.shape[1] + p.outside) for c, p in pairs])
    half = torch.full((len(configs), first.m // 2), 1 / math.sqrt(first.m))
    fit = adversarial_train(
        (torch.stack([p.W for p in problems]), torch.cat([half, -half], -1)),
        *(x, y),
        radius=budget.unsqueeze(-1),
        steps=first.steps,
        attack="pgd" if first.adversarial else "none",
        iterations=first.iterations,
        step_size=step,
        activation=first.phi,
        history=["robust_error", "robust_loss"],
        span=False,
    )
    net, generators = fit.net, [p.generator for p in problems]
    attack = _Attack(first, budget, problems[0].x.shape[1], [p.outside for p in problems], generators)
    test_x, test_y = torch.stack([p.test_x for p in problems]), torch.stack([p.test_y for p in problems])
    train, test = attack.errors(x, y, net.W, net.a), attack.errors(test_x, test_y, net.W, net.a)
    measured = {
        "train_error": train.clean,
        "train_robust_error": train.robust,
        "test_error": test.clean,
        "test_robust_error": test.robust,
        "test_certified_error": test.certified,
        "train_robust_loss": fit.history["robust_loss"][-1],
        "interpolation": _first_zero(fit.history["robust_error"]),
        "budget": budget,
    }
    return [{name: values[i].item() for name, values in measured.items()} for i in range(len(configs))]


def _first_zero(errors: Tensor) -> Tensor:
    """(records, S) → (S,): after how many iterations no point is missed; if never, one more than there were."""
    zero = errors == 0
    return torch.where(zero.any(0), zero.int().argmax(0), len(errors))


class _Errors(NamedTuple):
    """(S,) each: clean, under attack, and what no attack within the budget exceeds."""

    clean: Tensor
    robust: Tensor
    certified: Tensor


@dataclass(frozen=True)
class _Attack:
    """PGD from the point and from random starts in the ball of R^d, the worst of all iterates."""

    config: Config
    budget: Tensor
    rank: int
    outside: list[int]
    generators: list[torch.Generator]

    def errors(self, x: Tensor, y: Tensor, W: Tensor, a: Tensor) -> _Errors:
        phi, radius = self.config.phi, self.budget.unsqueeze(-1).expand(y.shape)
        clean = y * two_layer(x, W, a, activation=phi)
        bound = theory.margin_bound(x, y, W, a, activation=phi, radius=radius)
        points, weights = pad(x, (0, 1)), pad(W, (0, 1))  # the coordinate of what is outside
        options: dict[str, Any] = {"activation": phi, "radius": radius, "steps": self.config.steps}
        options |= {"keep": "worst", "need": "margin"}
        worst = l2_pgd(points, y, weights, a, **options).margin
        for _ in range(self.config.starts):
            start = points + self._offsets(y.shape[-1])
            worst = torch.minimum(worst, l2_pgd(points, y, weights, a, start=start, **options).margin)
        return _Errors(_missed(clean), _missed(worst), _missed(bound))

    def _offsets(self, count: int) -> Tensor:
        """(S, count, r + 1): uniform in the ball of R^d, the norm of what is outside the span in the last place."""
        drawn = []
        for budget, outside, generator in zip(self.budget, self.outside, self.generators, strict=True):
            inside = torch.randn(count, self.rank, generator=generator)
            freedom = torch.full((count, 1), max(outside, 1) / 2)
            beyond = (2 * torch._standard_gamma(freedom, generator=generator)).sqrt() * (outside > 0)
            direction = torch.nn.functional.normalize(torch.cat([inside, beyond], -1), dim=-1)
            length = torch.rand(count, 1, generator=generator) ** (1 / (self.rank + outside))
            drawn.append(budget * length * direction)
        return torch.stack(drawn)


def _missed(margin: Tensor) -> Tensor:
    """A margin that is not a number is missed."""
    return (~(margin > 0)).double().mean(-1)
