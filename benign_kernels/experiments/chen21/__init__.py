"""Chen, Cao, Gu: Benign Overfitting in Adversarially Robust Linear Classification.

A linear classifier f(x) = <θ, x> is trained by gradient descent on the loss of the worst point in the ℓ2 ball around
each sample, whose margin is known: y f(x) − ε‖θ‖. It fits the flipped labels; whether its test error stays at the
noise all the same depends on how ‖μ‖ = d^r grows with d: the theory's threshold is r = ¼.
"""

from __future__ import annotations

from typing import Literal

from ..registry import Experiment, Fact, Preset
from .claims import CLAIMS
from .figures import FIGURES
from .trials import Config, trial

__all__ = ["EXPERIMENT", "Config", "trial"]

_EXPONENTS = (0.0, 0.1, 0.2, 0.25, 0.3, 0.4)
_LOSSES: tuple[Literal["logistic", "exponential"], ...] = ("logistic", "exponential")
_ITERATIONS = (100, 300, 1000, 3000)
_RATIOS = tuple(i / 10 for i in range(12))


def _sweeps(dimensions: tuple[int, ...], tests: int) -> dict[str, tuple[Config, ...]]:
    middle = Config(d=2000, exponent=0.3, tests=tests)
    return {
        "dimension": tuple(Config(d=d, exponent=r, tests=tests) for d in dimensions for r in _EXPONENTS),
        "budget": tuple(Config(d=2000, exponent=0.3, tests=tests, budget=ratio * middle.signal) for ratio in _RATIOS),
        "loss": tuple(Config(d=2000, exponent=r, tests=tests, loss=loss) for r in _EXPONENTS for loss in _LOSSES),
        "iterations": tuple(
            Config(d=200, exponent=r, tests=tests, iterations=t) for t in _ITERATIONS for r in (0.1, 0.25, 0.4)
        ),
    }


EXPERIMENT = Experiment(
    name="chen21",
    title="Benign Overfitting in Adversarially Robust Linear Classification",
    reference="Jinghui Chen, Yuan Cao, Quanquan Gu, 2021",
    config=Config,
    trial=trial,
    presets={
        "quick": Preset("few seeds and test samples", _sweeps((100, 200, 1000, 5000, 20_000), tests=500), seeds=5),
        "paper": Preset(
            "the reference sizes",
            _sweeps((100, 200, 500, 1000, 2000, 5000, 10_000, 20_000), tests=2000),
            seeds=10,
        ),
    },
    figures=FIGURES,
    claims=CLAIMS,
    facts=(
        Fact("x = ỹμ + ξ in d dimensions, ỹ = ±1 with equal odds, ξ independent of it.", "s"),
        Fact("ξ is standard normal.", "c"),
        Fact("μ lies along the first axis: the noise has no direction, so that this loses nothing.", "d"),
        Fact("Labels are flipped with probability η = .1, in training and in test.", "s"),
        Fact("n = 50 training and 2000 test samples; ‖μ‖ = d^r; ε = .1 in ℓ2.", "s"),
        Fact("The preset quick takes 500 test samples.", "c"),
        Fact("Linear f = <θ, x>; gradient descent, inner maximum in closed form, step .001, 1000 iterations.", "s"),
        Fact("θ begins at zero; the loss is the mean over samples, logistic unless a sweep says otherwise.", "c"),
        Fact("r and d of the sweeps, the sweep of ε at d = 2000, r = .3, and that of iterations at d = 200.", "c"),
        Fact("The risks of the whole population follow from θ: a linear f errs by <θ, μ>/‖θ‖ alone.", "d"),
        Fact("θ is evaluated as an identity network of 8 neurons, attacked by PGD with 20 steps of 2.5ε/20.", "c"),
    ),
)
