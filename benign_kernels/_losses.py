"""The losses of a training: value and cotangent, accurate however large the margin.

Outputs f are (..., n, k) throughout, with k = 1 for one output. Values are one per sample (..., n); cotangents ∂ℓ/∂f
are shaped like f. The derivative of a saturated loss is small, but not lost: −y σ(−m) keeps its relative accuracy until
it underflows, where y (σ(m) − 1) is zero from m = 17 on in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

# torch.softplus is linear beyond its threshold; at 40 that differs from log(1 + exp(z)) by exp(-40) = 4e-18, below the
# roundoff of float64.
_SOFTPLUS_THRESHOLD = 40.0
# exp(-m) is continued by its tangent where -m exceeds this: exp(60) = 1e26 leaves float32 room for a gradient's sums.
_LARGEST_EXPONENT = 60.0


def _softplus(z: Tensor) -> Tensor:
    return functional.softplus(z, threshold=_SOFTPLUS_THRESHOLD)


# ---- losses of the margin m = y f ------------------------------------------------------------------------------------


def _logistic(margin: Tensor) -> tuple[Tensor, Tensor]:
    return _softplus(-margin), -torch.sigmoid(-margin)


def _exponential(margin: Tensor) -> tuple[Tensor, Tensor]:
    capped = (-margin).clamp(max=_LARGEST_EXPONENT)
    slope = capped.exp()
    return slope * (1 + (-margin - capped)), -slope


def _hinge(margin: Tensor) -> tuple[Tensor, Tensor]:
    return torch.relu(1 - margin), torch.where(margin < 1, -1.0, 0.0 * margin)


# ---- the losses ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Loss:
    """ℓ(f, y). ``labels`` says what y holds: "signs" ±1 (..., n), "classes" (..., n), "targets" (..., n, k)."""

    name: str
    labels: str
    of_margin: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    def value(self, f: Tensor, y: Tensor) -> Tensor:
        if self.of_margin is not None:
            return self.of_margin(self.margin(f, y))[0]
        if self.labels == "classes":
            return _softplus(_others(f, y).logsumexp(-1) - _own(f, y))
        return 0.5 * (f - y).square().sum(-1)

    def cotangent(self, f: Tensor, y: Tensor) -> Tensor:
        if self.of_margin is not None:
            return (y * self.of_margin(self.margin(f, y))[1]).unsqueeze(-1)
        if self.labels == "classes":
            others = _others(f, y)
            missing = torch.sigmoid(others.logsumexp(-1) - _own(f, y)).unsqueeze(-1)  # 1 − softmax_y
            return (missing * others.softmax(-1)).scatter(-1, y.unsqueeze(-1), -missing)
        return f - y

    def margin(self, f: Tensor, y: Tensor) -> Tensor:
        """y f; or f_y less the largest other output; or minus the squared error."""
        if self.labels == "signs":
            return y * f[..., 0]
        if self.labels == "classes":
            return _own(f, y) - _others(f, y).amax(-1)
        return -(f - y).square().sum(-1)


def _own(f: Tensor, y: Tensor) -> Tensor:
    return f.gather(-1, y.unsqueeze(-1)).squeeze(-1)


def _others(f: Tensor, y: Tensor) -> Tensor:
    return f.scatter(-1, y.unsqueeze(-1), -torch.inf)


LOSSES = {
    "logistic": Loss("logistic", "signs", _logistic),  # log(1 + exp(-m))
    "exponential": Loss("exponential", "signs", _exponential),  # exp(-m)
    "hinge": Loss("hinge", "signs", _hinge),  # max(0, 1 - m)
    "squared": Loss("squared", "targets"),  # |f - y|²/2
    "cross_entropy": Loss("cross_entropy", "classes"),  # -log softmax_y
}
