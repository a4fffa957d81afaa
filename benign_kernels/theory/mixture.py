"""Gaussian mixture with label noise, x = ỹμ + ξ: what a linear classifier errs, and what none errs less than.

ξ is standard normal in d dimensions, ỹ = ±1; the label y is ỹ, flipped with probability β (``noise_rate``). The signal
is ‖μ‖, the budget α the ℓ2 radius of the attacker. A linear classifier θ is known by its normalised margin
M = <θ, μ>/‖θ‖ alone. Numbers and arrays are taken, and broadcast.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

__all__ = ["averaging_margin", "bayes_error", "clean_error", "robust_error"]


def averaging_margin(signal: ArrayLike, *, noise_rate: ArrayLike, n: ArrayLike, d: ArrayLike) -> Any:
    r"""M of the average θ = Σᵢ yᵢxᵢ of n samples, to leading order in n and d.

    .. math:: M = (1-2\beta)\lVert\mu\rVert^2 / \sqrt{(1-2\beta)^2\lVert\mu\rVert^2 + d/n}

    >>> from benign_kernels import theory
    >>> round(float(theory.averaging_margin(7.0, noise_rate=0.1, n=100, d=5000)), 3)
    4.346
    """
    mu, kept = _numbers("signal", signal, 0, np.inf), 1 - 2 * _noise_rate(noise_rate)
    spread = np.sqrt((kept * mu) ** 2 + _numbers("d", d, 0, np.inf) / _numbers("n", n, 1, np.inf))
    return np.divide(kept * mu**2, spread, out=np.zeros(np.shape(spread)), where=spread > 0)[()]


def clean_error(margin: ArrayLike, *, noise_rate: ArrayLike) -> Any:
    r"""Test error of a linear classifier of normalised margin M, the label noise included.

    .. math:: \beta + (1-2\beta)\,\Phi(-M)

    >>> from benign_kernels import theory
    >>> float(theory.clean_error(0.0, noise_rate=0.1))
    0.5
    """
    beta = _noise_rate(noise_rate)
    return beta + (1 - 2 * beta) * _normal_cdf(-_numbers("margin", margin, -np.inf, np.inf))


def robust_error(margin: ArrayLike, *, noise_rate: ArrayLike, budget: ArrayLike) -> Any:
    r"""Test error of a linear classifier under the worst attack within α: a flipped label is missed with Φ(α + M).

    .. math:: (1-\beta)\,\Phi(\alpha-M) + \beta\,\Phi(\alpha+M)

    >>> from benign_kernels import theory
    >>> M = 4.0
    >>> bool(theory.robust_error(M, noise_rate=0.1, budget=0.0) == theory.clean_error(M, noise_rate=0.1))
    True
    """
    M, beta = _numbers("margin", margin, -np.inf, np.inf), _noise_rate(noise_rate)
    alpha = _numbers("budget", budget, 0, np.inf)
    return (1 - beta) * _normal_cdf(alpha - M) + beta * _normal_cdf(alpha + M)


def bayes_error(signal: ArrayLike, *, noise_rate: ArrayLike, budget: ArrayLike) -> Any:
    r"""No classifier, linear or not, has a robust test error below this.

    .. math:: \beta + (1-2\beta)\,\min(1/2,\ \Phi(\alpha-\lVert\mu\rVert))

    >>> from benign_kernels import theory
    >>> [round(float(theory.bayes_error(7.0, noise_rate=0.1, budget=a)), 3) for a in (0.0, 5.0, 7.0, 9.0)]
    [0.1, 0.118, 0.5, 0.5]
    """
    mu, beta = _numbers("signal", signal, 0, np.inf), _noise_rate(noise_rate)
    missed = np.minimum(0.5, _normal_cdf(_numbers("budget", budget, 0, np.inf) - mu))
    return beta + (1 - 2 * beta) * missed


def _normal_cdf(value: Any) -> Any:
    return torch.special.ndtr(torch.as_tensor(value, dtype=torch.float64)).numpy()[()]


def _noise_rate(value: ArrayLike) -> Any:
    return _numbers("noise_rate", value, 0, 0.5)


def _numbers(name: str, value: ArrayLike, least: float, most: float) -> Any:
    try:
        numbers = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError):
        raise TypeError(f"{name}: got {value!r}, expected a number or an array of them") from None
    wrong = numbers[~((numbers >= least) & (numbers <= most))]
    if wrong.size:
        raise ValueError(f"{name}: got {wrong.flat[0]:g}, expected a number from {least:g} to {most:g}")
    return numbers
