"""The activations: value, first and second derivative as torch expressions; the twin of ``csrc/model/activation.h``.

An activation is one small class and its place in ``_CLASSES``. Every expression can be differentiated again, to any
order, without a NaN from the branch that was not taken; at a kink the derivatives follow torch's convention
(:math:`\\varphi'(0) = 0` for ReLU). The tails of the derivatives keep their relative accuracy: an attack follows the
gradient's direction however small the gradient is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional

# torch.softplus is linear beyond its threshold; at 40 that differs from log(1 + exp(h)) by exp(-40) = 4e-18, below the
# roundoff of float64.
_SOFTPLUS_THRESHOLD = 40.0
# exp(-h²/2) is zero in float64 from |h| = 38.6 on; clamping there keeps h² finite, and inf·0 out of the derivatives.
_GAUSSIAN_TAIL = 64.0


class Activation:
    """An elementwise function: ``phi(h)`` or ``phi.value(h)``, with ``phi.first(h)`` and ``phi.second(h)``."""

    name: ClassVar[str]
    piecewise_linear: ClassVar[bool] = False
    #: What the ops receive: the name and the parameters, two at most; one that is not there is 0.
    native: tuple[str, float, float]

    def __post_init__(self) -> None:
        self._check()
        alpha, beta, *_ = (*(float(getattr(self, field.name)) for field in fields(self)), 0.0, 0.0)  # type: ignore
        object.__setattr__(self, "native", (self.name, alpha, beta))

    def _check(self) -> None:
        """Raises for parameters outside their domain."""

    def value(self, h: Tensor) -> Tensor:
        raise NotImplementedError

    def first(self, h: Tensor) -> Tensor:
        raise NotImplementedError

    def second(self, h: Tensor) -> Tensor:
        return torch.zeros_like(h)

    def __call__(self, h: Tensor) -> Tensor:
        return self.value(h)


def _describe(thing: object) -> str:
    return f"the class {thing.__name__}" if isinstance(thing, type) else f"a {type(thing).__name__}"


def _check_parameter(name: str, value: object, minimum: float = -math.inf, *, strict: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: got {_describe(value)}, expected a number")
    inside = value > minimum if strict else value >= minimum
    if not (inside and -math.inf < value < math.inf):
        bound = "" if minimum == -math.inf else f" {'>' if strict else '>='} {minimum:g}"
        raise ValueError(f"{name}: got {value}, expected a finite number{bound}")


# ---- pieces ----------------------------------------------------------------------------------------------------------
# Conditions read `h <= 0`, so that a NaN takes the branch that returns it.


def _where_positive(h: Tensor, yes: Tensor) -> Tensor:
    return torch.where(h <= 0, 0.0, yes)


def _power(size: Tensor, exponent: float) -> Tensor:
    """size**exponent for size >= 0, with 0 (not inf) for a negative exponent at 0, and no NaN in its derivatives."""
    if exponent == 0:
        return torch.ones_like(size)
    zero = size == 0
    return torch.where(zero, 0.0, torch.where(zero, 1.0, size) ** exponent)


def _logistic_first(z: Tensor) -> Tensor:
    return torch.sigmoid(z) * torch.sigmoid(-z)


def _logistic_second(z: Tensor) -> Tensor:
    return -_logistic_first(z) * torch.tanh(0.5 * z)


def _gaussian_density(h: Tensor) -> Tensor:
    return torch.exp(-0.5 * h * h) * (1 / math.sqrt(2 * math.pi))


# ---- the activations -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Identity(Activation):
    """h"""

    name: ClassVar[str] = "identity"
    piecewise_linear: ClassVar[bool] = True

    def value(self, h: Tensor) -> Tensor:
        return h

    def first(self, h: Tensor) -> Tensor:
        return torch.ones_like(h)


@dataclass(frozen=True)
class ReLU(Activation):
    """max(h, 0)"""

    name: ClassVar[str] = "relu"
    piecewise_linear: ClassVar[bool] = True

    def value(self, h: Tensor) -> Tensor:
        return torch.relu(h)

    def first(self, h: Tensor) -> Tensor:
        return _where_positive(h, torch.ones_like(h))


@dataclass(frozen=True)
class LeakyReLU(Activation):
    """h, and slope·h where h < 0"""

    slope: float = 0.01
    name: ClassVar[str] = "leaky_relu"
    piecewise_linear: ClassVar[bool] = True

    def _check(self) -> None:
        _check_parameter("slope", self.slope)

    def value(self, h: Tensor) -> Tensor:
        return functional.leaky_relu(h, self.slope)

    def first(self, h: Tensor) -> Tensor:
        return torch.where(h <= 0, self.slope, torch.ones_like(h))


@dataclass(frozen=True)
class SmoothLeakyReLU(Activation):
    """slope·h + (1 - slope)·log((1 + exp(s·h))/2)/s with the sharpness s, so that φ(0) = 0 and φ'' ≤ (1 - slope)·s/4"""

    slope: float = 0.1
    sharpness: float = 1.0
    name: ClassVar[str] = "smooth_leaky_relu"

    def _check(self) -> None:
        _check_parameter("slope", self.slope)
        _check_parameter("sharpness", self.sharpness, 0, strict=True)

    def value(self, h: Tensor) -> Tensor:
        soft = functional.softplus(h, self.sharpness, _SOFTPLUS_THRESHOLD) - math.log(2) / self.sharpness
        return self.slope * h + (1 - self.slope) * soft

    def first(self, h: Tensor) -> Tensor:
        return self.slope + (1 - self.slope) * torch.sigmoid(self.sharpness * h)

    def second(self, h: Tensor) -> Tensor:
        return (1 - self.slope) * self.sharpness * _logistic_first(self.sharpness * h)


@dataclass(frozen=True)
class ReLUPower(Activation):
    """max(h, 0)^power"""

    power: float = 2.0
    name: ClassVar[str] = "relu_power"

    def _check(self) -> None:
        _check_parameter("power", self.power, 1)

    def value(self, h: Tensor) -> Tensor:
        return _power(torch.relu(h), self.power)

    def first(self, h: Tensor) -> Tensor:
        return _where_positive(h, self.power * _power(torch.relu(h), self.power - 1))

    def second(self, h: Tensor) -> Tensor:
        return _where_positive(h, self.power * (self.power - 1) * _power(torch.relu(h), self.power - 2))


@dataclass(frozen=True)
class OddPower(Activation):
    """sign(h)·abs(h)^power"""

    power: float = 3.0
    name: ClassVar[str] = "odd_power"

    def _check(self) -> None:
        _check_parameter("power", self.power, 1)

    def value(self, h: Tensor) -> Tensor:
        return h * _power(h.abs(), self.power - 1)

    def first(self, h: Tensor) -> Tensor:
        return self.power * _power(h.abs(), self.power - 1)

    def second(self, h: Tensor) -> Tensor:
        return self.power * (self.power - 1) * torch.sign(h) * _power(h.abs(), self.power - 2)


@dataclass(frozen=True)
class SmoothedReLU(Activation):
    """0, then (width/power)·(h/width)^power on [0, width], then h - (1 - 1/power)·width"""

    power: float = 3.0
    width: float = 1.0
    name: ClassVar[str] = "smoothed_relu"

    def _check(self) -> None:
        _check_parameter("power", self.power, 1)
        _check_parameter("width", self.width, 0, strict=True)

    def _bend(self, h: Tensor, exponent: float) -> Tensor:
        """(h/width)^exponent inside the bend; outside it anything finite and constant."""
        inside = (h > 0) & (h < self.width)
        return _power(torch.where(inside, h / self.width, 1.0), exponent)

    def value(self, h: Tensor) -> Tensor:
        bend = (self.width / self.power) * self._bend(h, self.power)
        return _where_positive(h, torch.where(h < self.width, bend, h - (1 - 1 / self.power) * self.width))

    def first(self, h: Tensor) -> Tensor:
        return _where_positive(h, torch.where(h < self.width, self._bend(h, self.power - 1), 1.0))

    def second(self, h: Tensor) -> Tensor:
        bend = ((self.power - 1) / self.width) * self._bend(h, self.power - 2)
        return _where_positive(h, torch.where(h < self.width, bend, 0.0))


@dataclass(frozen=True)
class Softplus(Activation):
    """log(1 + exp(sharpness·h)) / sharpness"""

    sharpness: float = 1.0
    name: ClassVar[str] = "softplus"

    def _check(self) -> None:
        _check_parameter("sharpness", self.sharpness, 0, strict=True)

    def value(self, h: Tensor) -> Tensor:
        return functional.softplus(h, self.sharpness, _SOFTPLUS_THRESHOLD)

    def first(self, h: Tensor) -> Tensor:
        return torch.sigmoid(self.sharpness * h)

    def second(self, h: Tensor) -> Tensor:
        return self.sharpness * _logistic_first(self.sharpness * h)


@dataclass(frozen=True)
class Tanh(Activation):
    """tanh(h)"""

    name: ClassVar[str] = "tanh"

    def value(self, h: Tensor) -> Tensor:
        return torch.tanh(h)

    def first(self, h: Tensor) -> Tensor:
        return 4 * _logistic_first(2 * h)

    def second(self, h: Tensor) -> Tensor:
        return -2 * torch.tanh(h) * self.first(h)


@dataclass(frozen=True)
class Erf(Activation):
    """erf(h)"""

    name: ClassVar[str] = "erf"

    def value(self, h: Tensor) -> Tensor:
        return torch.erf(h)

    def first(self, h: Tensor) -> Tensor:
        h = h.clamp(-_GAUSSIAN_TAIL, _GAUSSIAN_TAIL)
        return (2 / math.sqrt(math.pi)) * torch.exp(-h * h)

    def second(self, h: Tensor) -> Tensor:
        return -2 * h.clamp(-_GAUSSIAN_TAIL, _GAUSSIAN_TAIL) * self.first(h)


@dataclass(frozen=True)
class GELU(Activation):
    """h·Φ(h), Φ the normal distribution function"""

    name: ClassVar[str] = "gelu"

    def value(self, h: Tensor) -> Tensor:
        return 0.5 * h * torch.erfc(-h * math.sqrt(0.5))

    def first(self, h: Tensor) -> Tensor:
        tail = h.clamp(-_GAUSSIAN_TAIL, _GAUSSIAN_TAIL)
        return 0.5 * torch.erfc(-h * math.sqrt(0.5)) + tail * _gaussian_density(tail)

    def second(self, h: Tensor) -> Tensor:
        tail = h.clamp(-_GAUSSIAN_TAIL, _GAUSSIAN_TAIL)
        return (2 - tail * tail) * _gaussian_density(tail)


@dataclass(frozen=True)
class SiLU(Activation):
    """h·σ(h), σ the logistic function"""

    name: ClassVar[str] = "silu"

    def value(self, h: Tensor) -> Tensor:
        return functional.silu(h)

    def first(self, h: Tensor) -> Tensor:
        return torch.sigmoid(h) * (1 + h * torch.sigmoid(-h))

    def second(self, h: Tensor) -> Tensor:
        return _logistic_first(h) * (2 - h * torch.tanh(0.5 * h))


@dataclass(frozen=True)
class Sigmoid(Activation):
    """1 / (1 + exp(-h))"""

    name: ClassVar[str] = "sigmoid"

    def value(self, h: Tensor) -> Tensor:
        return torch.sigmoid(h)

    def first(self, h: Tensor) -> Tensor:
        return _logistic_first(h)

    def second(self, h: Tensor) -> Tensor:
        return _logistic_second(h)


# ---- the table -------------------------------------------------------------------------------------------------------

# In the order of ActivationKind in csrc/model/activation.h.
_CLASSES: tuple[type[Activation], ...] = (
    Identity,
    ReLU,
    LeakyReLU,
    SmoothLeakyReLU,
    ReLUPower,
    OddPower,
    SmoothedReLU,
    Softplus,
    Tanh,
    Erf,
    GELU,
    SiLU,
    Sigmoid,
)
_CLASS_AND_PARAMETERS = {cls.name: (cls, len(fields(cls))) for cls in _CLASSES}  # type: ignore[arg-type]
_BY_NAME: dict[str, Activation] = {cls.name: cls() for cls in _CLASSES}


def activations() -> list[Activation]:
    """Every activation, with its default parameters.

    >>> [phi.name for phi in activations()][:3]
    ['identity', 'relu', 'leaky_relu']
    """
    return list(_BY_NAME.values())


def from_native(name: str, alpha: float, beta: float) -> Activation:
    """The activation that ``native`` describes."""
    cls, parameters = _CLASS_AND_PARAMETERS[name]
    return cls(*(alpha, beta)[:parameters])


def resolve(activation: str | Activation) -> Activation:
    """The activation of that name, with its default parameters; an ``Activation`` is returned as it is.

    >>> resolve("leaky_relu")
    LeakyReLU(slope=0.01)
    """
    if isinstance(activation, Activation):
        return activation
    if isinstance(activation, str):
        if activation in _BY_NAME:
            return _BY_NAME[activation]
        names = ", ".join(_BY_NAME)
        raise ValueError(f"activation: got {activation!r}, expected an Activation object or one of {names}")
    raise TypeError(f"activation: got {_describe(activation)}, expected a name or an Activation object such as ReLU()")
