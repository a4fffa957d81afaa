"""Wang, Zhang, Arora: Benign Overfitting in Adversarial Training of Neural Networks.

A two-layer network is trained by gradient descent at attacked points of a Gaussian mixture, some labels of which are
wrong. It fits them all, robustly; whether its robust test error stays at the noise all the same depends on the budget
α against the signal ‖μ‖, and on d.
"""

from __future__ import annotations

from typing import Any

from ..registry import Experiment, Fact, Preset, Together
from . import trials
from .claims import CLAIMS
from .figures import FIGURES
from .trials import Config, trial

__all__ = ["EXPERIMENT", "Config", "trial"]

_RATIOS = tuple(i / 10 for i in range(12))
_PHI: tuple[dict[str, Any], ...] = (
    {"activation": "relu"},
    *({"activation": kind, "slope": slope} for kind in ("leaky_relu", "smooth_leaky_relu") for slope in (0.1, 0.5)),
)


def _sweeps(
    *,
    m: int,
    widths: tuple[int, ...],
    dimensions: tuple[int, ...],
    phase: tuple[tuple[float, ...], tuple[int, ...], int],
    **size: Any,
) -> dict[str, tuple[Config, ...]]:
    def config(**fields: Any) -> Config:
        return Config(**{"m": m, **size, **fields})

    ratios, across, phase_m = phase
    narrow = min(m, 200)
    images = {"data": "images", "noise_rate": 0.0, "m": narrow}
    return {
        "budget": tuple(config(ratio=ratio) for ratio in _RATIOS),
        "plain": tuple(config(ratio=r, adversarial=way) for r in _RATIOS[::2] for way in (True, False)),
        "dimension": tuple(config(d=d, ratio=0.4) for d in dimensions),
        "signal": tuple(config(signal=signal, ratio=0.2) for signal in (2.0, 3.0, 5.0, 7.0, 10.0, 14.0, 20.0)),
        "benign": tuple(config(d=d, signal=d**0.25, m=narrow) for d in dimensions if d >= 1000),
        "condition": tuple(
            config(d=1000, signal=1000**r, m=width) for r in (0.1, 0.2, 0.3, 0.4, 0.5) for width in widths[1::2]
        ),
        "noise": tuple(config(noise_rate=i / 20, ratio=0.2, m=narrow) for i in range(7)),
        "activation": tuple(config(ratio=ratio, m=narrow, **phi) for ratio in (0.1, 0.4, 0.8) for phi in _PHI),
        "width": tuple(config(m=width, ratio=ratio) for width in widths for ratio in (0.1, 0.4)),
        "images": tuple(config(ratio=ratio, **images) for ratio in (0.0, 0.05, 0.1, 0.2, 0.4, 0.6, 0.8, 1.0)),
        "phase": tuple(config(d=d, ratio=ratio, m=phase_m) for d in across for ratio in ratios),
    }


_QUICK = _sweeps(
    m=64,
    widths=(10, 20, 64, 100, 200),
    dimensions=(300, 1000, 3000, 10_000, 30_000),
    phase=(_RATIOS[1::2], (300, 1000, 3000, 10_000, 30_000), 20),
    step_size=0.25,
    iterations=200,
    tests=1000,
)
_DEMO = ("budget", "plain", "phase")

EXPERIMENT = Experiment(
    name="wang24",
    title="Benign Overfitting in Adversarial Training of Neural Networks",
    reference="Yunjuan Wang, Kaibo Zhang, Raman Arora, ICML 2024",
    config=Config,
    trial=trial,
    together=Together(trials.trials, trials.shape, trials.most),
    presets={
        "quick": Preset("narrow networks, few and long steps", _QUICK, seeds=10),
        "demo": Preset("of quick what `benign demo` shows", {name: _QUICK[name] for name in _DEMO}, seeds=5),
        "paper": Preset(
            "the reference sizes",
            _sweeps(
                m=1000,
                widths=(10, 30, 100, 300, 1000),
                dimensions=(300, 1000, 3000, 5000, 10_000, 30_000),
                phase=(_RATIOS[1:], (300, 1000, 2000, 5000, 10_000, 30_000), 100),
            ),
            seeds=10,
        ),
    },
    figures=FIGURES,
    claims=CLAIMS,
    facts=(
        Fact("f(x; W) = Σ_j a_j φ(<w_j, x>): the bottom layer is trained, a fixed at ±1/√m, no bias.", "s"),
        Fact("Small Gaussian first weights, standard deviation .001.", "c"),
        Fact("Neurons begin in pairs (w, a), (w, −a), so that f = 0 at first.", "d"),
        Fact("x = ỹμ + ξ in d dimensions, ỹ = ±1 with equal odds; labels are flipped with probability β.", "s"),
        Fact("ξ is standard normal; μ lies along the first axis of the span that all of the training is in.", "c"),
        Fact("Test labels are flipped as training labels are: β is the floor of any test error.", "s"),
        Fact("The attacker's budget is an ℓ2 ball of radius α, in training and in test.", "s"),
        Fact("Attacks are PGD with 20 steps.", "s"),
        Fact("A step is 2.5α/20; in training it begins at the sample.", "c"),
        Fact(
            "Robust errors are of PGD from the point and from 5 random starts in R^d, the worst of all iterates: a "
            "lower bound of the true one. The certified error is an upper bound: φ between its tangents and chords.",
            "c",
        ),
        Fact("Full-batch gradient descent on the logistic loss at the attacked points, 1000 iterations.", "s"),
        Fact("The step size is .05·n/d.", "c"),
        Fact("The preset quick makes 200 iterations of .25·n/d, with narrower networks and 1000 test points.", "c"),
        Fact("n = 100 training and 2000 test points, β = .1, m = 1000, 10 runs; sweeps of d, of ‖μ‖, of α/‖μ‖.", "s"),
        Fact("d = 5000 and ‖μ‖ = 7 where they are not swept; the values of the sweeps.", "c"),
        Fact(
            "m = 200 at most in the sweeps of β, of φ, of d at ‖μ‖ = d^¼, and on images; 100 in the phase diagram.", "c"
        ),
        Fact("Smooth φ is the leaky ReLU with its kink smoothed: slope·h + (1−slope)·log((1+e^10h)/2)/10.", "c"),
        Fact("Real images: two classes, 100 training points, no label noise.", "s"),
        Fact(
            "They are scikit-learn's digits 0 and 1 unless files are given; less their mean, in units of their root "
            "mean square; ‖μ‖ is half the distance of the classes' means.",
            "c",
        ),
        Fact("The yardstick is the averaging classifier θ = Σᵢ yᵢxᵢ, whose errors are known in closed form.", "d"),
    ),
)
