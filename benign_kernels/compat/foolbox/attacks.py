"""foolbox's projected gradient attacks in ℓ2 and ℓ∞."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, ClassVar

import torch
from torch import Tensor

from ... import _arguments
from ...attack import DIRECTIONS
from .. import _engine
from .criteria import read_criterion
from .models import unwrapped, victim

__all__ = [
    "FGM",
    "FGSM",
    "L2PGD",
    "PGD",
    "Attack",
    "L2BasicIterativeAttack",
    "L2FastGradientAttack",
    "L2ProjectedGradientDescentAttack",
    "LinfBasicIterativeAttack",
    "LinfFastGradientAttack",
    "LinfPGD",
    "LinfProjectedGradientDescentAttack",
]

# What foolbox lets subclasses override, and the fused attack would pass over in silence.
_FIXED = ("get_loss_fn", "get_optimizer", "value_and_grad", "normalize", "project")


class Attack:
    """Call it as ``attack(model, inputs, criterion, *, epsilons)``; returns (raw, clipped, success).

    ``criterion`` is labels (n,), `Misclassification` or `TargetedMisclassification`. For one epsilon raw and clipped
    are shaped like the inputs and success is (n,); for a sequence of E they are lists of E, and success is (E, n).
    """

    norm: ClassVar[str]
    rel_stepsize: float
    abs_stepsize: float | None
    steps: int
    random_start: bool

    def __init_subclass__(cls) -> None:
        overridden = [name for name in _FIXED if name in vars(cls)]
        if overridden:
            raise TypeError(
                f"{cls.__name__}: overrides {overridden[0]}, which the fused attack does not call; use foolbox"
            )

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in vars(self).items())})"

    def __call__(
        self, model: Any, inputs: Any, criterion: Any, *, epsilons: Any, **kwargs: Any
    ) -> tuple[Any, Any, Any]:
        x, restore = unwrapped(inputs)
        x = x.detach()
        several = isinstance(epsilons, Iterable)
        sizes = list(epsilons) if several else [epsilons]
        if any(epsilon is None for epsilon in sizes):
            raise NotImplementedError("epsilons: got None, expected a number or a sequence of numbers")
        raw = [self._attack(model, x, criterion, float(epsilon), **kwargs) for epsilon in sizes]
        clipped = [self._clipped(x, found, float(epsilon)) for found, epsilon in zip(raw, sizes, strict=True)]
        success = [_is_adversarial(model, points, criterion) for points in clipped]
        if not several:
            return restore(raw[0]), restore(clipped[0]), restore(success[0])
        return [restore(t) for t in raw], [restore(t) for t in clipped], restore(torch.stack(success))

    def run(self, model: Any, inputs: Any, criterion: Any, *, epsilon: float, **kwargs: Any) -> Any:
        """The attacked inputs for one epsilon, not clipped once more."""
        x, restore = unwrapped(inputs)
        return restore(self._attack(model, x.detach(), criterion, epsilon, **kwargs))

    def repeat(self, times: int) -> Repeated:
        """The same attack from several random starts; keeps the first success of each sample."""
        return Repeated(self, times)

    def get_random_start(self, x0: Tensor, epsilon: float) -> Tensor:
        """Uniform in the ball around x0: the draws of foolbox."""
        if self.norm == "linf":
            uniform = torch.rand(x0.shape, dtype=x0.dtype, device=x0.device, generator=_engine.generator())
            return x0 + (uniform * (2 * epsilon) - epsilon)
        # The first d of d + 2 coordinates of a uniform point of the sphere are uniform in the ball.
        size = (len(x0), x0[:1].numel() + 2) if len(x0) else (0, 2)
        sphere = torch.randn(size, dtype=x0.dtype, device=x0.device, generator=_engine.generator())
        sphere = sphere / sphere.norm(dim=-1, keepdim=True)
        return x0 + epsilon * sphere[:, :-2].reshape(x0.shape)

    def _attack(self, model: Any, x: Tensor, criterion: Any, epsilon: float, **kwargs: Any) -> Tensor:
        if kwargs:
            raise TypeError(f"attack got an unexpected keyword argument {next(iter(kwargs))!r}")
        lower, upper = model.bounds
        if x.numel() and not (x.min() >= lower and x.max() <= upper):
            raise ValueError(
                f"inputs: got values from {x.min()} to {x.max()}, expected them in the bounds {lower} to {upper}"
            )
        labels, targeted = read_criterion(criterion)
        relative = self.abs_stepsize is None
        name = "rel_stepsize" if relative else "abs_stepsize"
        _engine.expect_size("epsilons", epsilon, finite=relative)
        _engine.expect_size(name, getattr(self, name), finite=True)
        _arguments.integer("steps", self.steps, 0)
        step = self.rel_stepsize * epsilon if self.abs_stepsize is None else self.abs_stepsize
        start = self.get_random_start(x, epsilon).clamp(lower, upper) if self.random_start else None
        rule = DIRECTIONS["foolbox"]
        recipe = _engine.Recipe(self.norm, epsilon, step, self.steps, rule, (lower, upper), targeted)
        return _engine.attack(victim(model, x), x, labels, recipe, start)

    def _clipped(self, x: Tensor, found: Tensor, epsilon: float) -> Tensor:
        delta = found - x
        if self.norm == "linf":
            return x + delta.clamp(-epsilon, epsilon)
        norm = delta.flatten(1).norm(dim=-1).clamp_min(1e-12)
        return x + delta * _engine.per_sample((epsilon / norm).clamp_max(1.0), x)


@torch.no_grad()
def _is_adversarial(model: Any, x: Tensor, criterion: Any) -> Tensor:
    logits = unwrapped(model(x))[0]
    classes, (labels, targeted) = _engine.predicted(logits), read_criterion(criterion)
    if logits.ndim == 1 or logits.shape[1] == 1:
        labels = (labels > 0).reshape(-1).long()
    return classes == labels if targeted else classes != labels


class Repeated:
    """An attack run several times, keeping the first success of each sample."""

    def __init__(self, attack: Attack, times: int) -> None:
        if times < 1:
            raise ValueError(f"times: got {times}, expected at least 1")
        self.attack = attack
        self.times = times

    def __call__(
        self, model: Any, inputs: Any, criterion: Any, *, epsilons: Any, **kwargs: Any
    ) -> tuple[Any, Any, Any]:
        x, restore = unwrapped(inputs)
        several = isinstance(epsilons, Iterable)
        sizes = list(epsilons) if several else [epsilons]
        raw, clipped, success = self.attack(model, x, criterion, epsilons=sizes, **kwargs)
        for _ in range(self.times - 1):
            raw_, clipped_, success_ = self.attack(model, x, criterion, epsilons=sizes, **kwargs)
            for k, new in enumerate(success_ & ~success):
                rows = _engine.per_sample(new, x)
                raw[k] = torch.where(rows, raw_[k], raw[k])
                clipped[k] = torch.where(rows, clipped_[k], clipped[k])
            success = success | success_
        if not several:
            return restore(raw[0]), restore(clipped[0]), restore(success[0])
        return [restore(t) for t in raw], [restore(t) for t in clipped], restore(success)

    def repeat(self, times: int) -> Repeated:
        return Repeated(self.attack, self.times * times)


class L2ProjectedGradientDescentAttack(Attack):
    """ℓ2 PGD: ``steps`` steps of ``abs_stepsize``, or of ``rel_stepsize`` times epsilon.

    >>> import torch
    >>> import benign_kernels.compat.foolbox as fb
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
    >>> fmodel = fb.PyTorchModel(model, bounds=(0, 1), device="cpu")
    >>> x, y = torch.rand(3, 4), torch.tensor([0, 1, 1])
    >>> raw, clipped, success = fb.attacks.L2PGD()(fmodel, x, y, epsilons=[0.1, 0.5])
    >>> len(raw), clipped[0].shape, success.shape
    (2, torch.Size([3, 4]), torch.Size([2, 3]))
    """

    norm = "l2"

    def __init__(
        self,
        *,
        rel_stepsize: float = 0.025,
        abs_stepsize: float | None = None,
        steps: int = 50,
        random_start: bool = True,
    ) -> None:
        self.rel_stepsize = rel_stepsize
        self.abs_stepsize = abs_stepsize
        self.steps = steps
        self.random_start = random_start


class LinfProjectedGradientDescentAttack(Attack):
    """ℓ∞ PGD; see `L2ProjectedGradientDescentAttack`."""

    norm = "linf"

    def __init__(
        self,
        *,
        rel_stepsize: float = 0.01 / 0.3,
        abs_stepsize: float | None = None,
        steps: int = 40,
        random_start: bool = True,
    ) -> None:
        self.rel_stepsize = rel_stepsize
        self.abs_stepsize = abs_stepsize
        self.steps = steps
        self.random_start = random_start


class L2BasicIterativeAttack(L2ProjectedGradientDescentAttack):
    """ℓ2 PGD from the input, in ten steps of 0.2 epsilon."""

    def __init__(
        self,
        *,
        rel_stepsize: float = 0.2,
        abs_stepsize: float | None = None,
        steps: int = 10,
        random_start: bool = False,
    ) -> None:
        super().__init__(rel_stepsize=rel_stepsize, abs_stepsize=abs_stepsize, steps=steps, random_start=random_start)


class LinfBasicIterativeAttack(LinfProjectedGradientDescentAttack):
    """ℓ∞ PGD from the input, in ten steps of 0.2 epsilon."""

    def __init__(
        self,
        *,
        rel_stepsize: float = 0.2,
        abs_stepsize: float | None = None,
        steps: int = 10,
        random_start: bool = False,
    ) -> None:
        super().__init__(rel_stepsize=rel_stepsize, abs_stepsize=abs_stepsize, steps=steps, random_start=random_start)


class _OneStep(Attack):
    """One step of epsilon, for labels only."""

    def __init__(self, *, random_start: bool = False) -> None:
        self.rel_stepsize = 1.0
        self.abs_stepsize = None
        self.steps = 1
        self.random_start = random_start

    def _attack(self, model: Any, x: Tensor, criterion: Any, epsilon: float, **kwargs: Any) -> Tensor:
        if hasattr(criterion, "target_classes"):
            raise ValueError(f"criterion: got {type(criterion).__name__}, expected labels or Misclassification")
        return super()._attack(model, x, criterion, epsilon, **kwargs)


class L2FastGradientAttack(_OneStep):
    """One ℓ2 step of epsilon along the gradient."""

    norm = "l2"


class LinfFastGradientAttack(_OneStep):
    """One ℓ∞ step of epsilon along the gradient's sign."""

    norm = "linf"


FGM = L2FastGradientAttack
FGSM = LinfFastGradientAttack
L2PGD = L2ProjectedGradientDescentAttack
LinfPGD = LinfProjectedGradientDescentAttack
PGD = LinfPGD


def __getattr__(name: str) -> Any:
    raise AttributeError(
        f"{name} is not in benign_kernels.compat.foolbox.attacks, which has {', '.join(__all__)}; take it from foolbox"
    )
