"""What theory says of a configuration: the averaging classifier's margin and errors."""

from __future__ import annotations

import math

from ... import theory
from .trials import Config


def predicted_margin(config: Config) -> float:
    """M of the averaging classifier."""
    return float(theory.averaging_margin(config.signal, noise_rate=config.noise_rate, n=config.n, d=config.d))


def predicted(config: Config) -> tuple[float, float]:
    """Clean and robust test error of the averaging classifier."""
    margin, noise = predicted_margin(config), {"noise_rate": config.noise_rate}
    clean = theory.clean_error(margin, **noise)
    return float(clean), float(theory.robust_error(margin, budget=config.budget, **noise))


def turning_dimension(config: Config) -> float:
    """From which d on the formula's M falls: 2r(1−2β)²d^2r < (1−4r)d/n, for r < ¼; infinite otherwise."""
    r = config.exponent
    if r >= 0.25:
        return math.inf
    kept = (1 - 2 * config.noise_rate) ** 2
    return float((2 * r * kept * config.n / (1 - 4 * r)) ** (1 / (1 - 2 * r)))
