"""What theory says of a configuration: the averaging classifier's errors, and what no classifier errs less than."""

from __future__ import annotations

from ... import theory
from .trials import Config


def margin(config: Config) -> float:
    """M of the averaging classifier."""
    return float(theory.averaging_margin(config.signal, noise_rate=config.noise_rate, n=config.n, d=config.d))


def robust(config: Config) -> float:
    """Robust test error of the averaging classifier."""
    return float(theory.robust_error(margin(config), noise_rate=config.noise_rate, budget=config.ratio * config.signal))


def bayes(config: Config) -> float:
    """No classifier's robust test error is below this."""
    return float(theory.bayes_error(config.signal, noise_rate=config.noise_rate, budget=config.ratio * config.signal))
