"""torchattacks' attacks on the kernels of this package; signatures, defaults and results are torchattacks 3.5.1's.

    import benign_kernels.compat.torchattacks as torchattacks

    attack = torchattacks.PGDL2(model, eps=1.0, alpha=0.2, steps=10)
    adversarial = attack(images, labels)

Kept: x is clamped to [0, 1] after every step, wherever it lies; the cross-entropy is a mean over the batch, and 1e-10
is added to its gradient's norm; random starts are a Gaussian direction times U(0, 1) times eps for PGDL2 (not uniform
in the ball), and uniform in the cube for the others; the targeted modes, with their printed lines. Not kept: input of
two dimensions is accepted by every attack, and after an attack each module has the mode it had.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from .. import _arguments
from .._budget import DirectionRule
from ..gradient_attack import evaluation_mode
from . import _engine

__all__ = ["BIM", "FFGSM", "FGSM", "PGD", "PGDL2", "RFGSM", "Attack"]

_BOX = (0.0, 1.0)
_NAMES = _engine.Names("images", "labels")


class Attack:
    """What the attacks share: the model, its device and mode, targets, normalization. Call it on (images, labels)."""

    device: torch.device | None
    eps: float
    normalization_used: dict[str, Tensor] | None

    def __init__(self, name: str, model: nn.Module) -> None:
        self.attack = name
        self.set_model(model)
        tensors = [*model.parameters(), *model.buffers()] if isinstance(model, nn.Module) else []
        self.device = tensors[0].device if tensors else None
        self.attack_mode = "default"
        self.supported_mode = ["default", "targeted"]
        self.targeted = False
        self.normalization_used = None
        self._target_map_function: Callable[[Tensor, Tensor | None], Tensor] | None = None
        self._training_modes = (False, False, False)

    def __getattr__(self, name: str) -> Any:
        if name in ("save", "load", "to_type"):
            raise AttributeError(f"{name} is not part of benign_kernels.compat.torchattacks; use torchattacks for it")
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __call__(self, inputs: Tensor, labels: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        with self._mode():
            if self.normalization_used is None:
                return self.forward(inputs, labels, *args, **kwargs)
            return self.normalize(self.forward(self.inverse_normalize(inputs), labels, *args, **kwargs))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        raise NotImplementedError

    def __repr__(self) -> str:
        hidden = ("model", "attack", "supported_mode", "normalization_used")
        info = {key: value for key, value in vars(self).items() if key not in hidden and not key.startswith("_")}
        info["normalization_used"] = self.normalization_used is not None
        return f"{self.attack}({', '.join(f'{key}={value}' for key, value in info.items())})"

    # ---- model ----

    def set_model(self, model: nn.Module) -> None:
        self.model = model
        self.model_name = type(model).__name__

    def set_device(self, device: torch.device) -> None:
        self.device = device

    def get_logits(self, inputs: Tensor, labels: Tensor | None = None, *args: Any, **kwargs: Any) -> Tensor:
        """The model's logits at points of [0, 1]."""
        logits: Tensor = self.model(inputs if self.normalization_used is None else self.normalize(inputs))
        return logits

    def set_model_training_mode(
        self, model_training: bool = False, batchnorm_training: bool = False, dropout_training: bool = False
    ) -> None:
        """The mode of the model, its batch norms and its dropouts during attacks."""
        self._training_modes = (model_training, batchnorm_training, dropout_training)

    @contextmanager
    def _mode(self) -> Iterator[None]:
        with evaluation_mode(self.model):
            training, batchnorm, dropout = self._training_modes
            for module in self.model.modules() if training else ():
                name = type(module).__name__
                module.training = (batchnorm or "BatchNorm" not in name) and (dropout or "Dropout" not in name)
            yield

    # ---- normalization: the model sees (x − mean) / std, the attack works on x ----

    def set_normalization_used(self, mean: Any, std: Any) -> None:
        shape = (1, len(mean), 1, 1)
        self.normalization_used = {
            "mean": torch.as_tensor(mean).reshape(shape),
            "std": torch.as_tensor(std).reshape(shape),
        }

    def _mean_and_std(self, inputs: Tensor) -> tuple[Tensor, Tensor]:
        if self.normalization_used is None:
            raise ValueError(
                "normalization_used: got None, expected set_normalization_used(mean, std) to be called first"
            )
        return self.normalization_used["mean"].to(inputs), self.normalization_used["std"].to(inputs)

    def normalize(self, inputs: Tensor) -> Tensor:
        mean, std = self._mean_and_std(inputs)
        return (inputs - mean) / std

    def inverse_normalize(self, inputs: Tensor) -> Tensor:
        mean, std = self._mean_and_std(inputs)
        return inputs * std + mean

    # ---- targets ----

    def get_mode(self) -> str:
        return self.attack_mode

    def set_mode_default(self) -> None:
        self.attack_mode = "default"
        self.targeted = False
        print("Attack mode is changed to 'default.'")

    def set_mode_targeted_by_function(
        self, target_map_function: Callable[[Tensor, Tensor | None], Tensor], quiet: bool = False
    ) -> None:
        self._set_mode_targeted("targeted(custom)", quiet, target_map_function)

    def set_mode_targeted_random(self, quiet: bool = False) -> None:
        self._set_mode_targeted("targeted(random)", quiet, self.get_random_target_label)

    def set_mode_targeted_least_likely(self, kth_min: int = 1, quiet: bool = False) -> None:
        if kth_min < 1:
            raise ValueError(f"kth_min: got {kth_min}, expected at least 1")
        self._kth_min = kth_min
        self._set_mode_targeted("targeted(least-likely)", quiet, self.get_least_likely_label)

    def set_mode_targeted_by_label(self, quiet: bool = False) -> None:
        self._set_mode_targeted("targeted(label)", quiet, None)

    def _set_mode_targeted(
        self, mode: str, quiet: bool, function: Callable[[Tensor, Tensor | None], Tensor] | None
    ) -> None:
        self.targeted = True
        self.attack_mode = mode
        self._target_map_function = function
        if not quiet:
            print(f"Attack mode is changed to '{mode}'.")

    def get_target_label(self, inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        if self._target_map_function is not None:
            return self._target_map_function(inputs, labels)
        if self.attack_mode != "targeted(label)" or labels is None:
            raise ValueError("target_map_function is not initialized by set_mode_targeted.")
        return labels

    @torch.no_grad()
    def get_output_with_eval_nograd(self, inputs: Tensor) -> Tensor:
        with evaluation_mode(self.model):
            return self.get_logits(inputs)

    def get_least_likely_label(self, inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n,): the class of the kth_min-th smallest logit among the classes other than the label."""
        outputs = self.get_output_with_eval_nograd(inputs)
        labels = outputs.argmax(1) if labels is None else labels
        return outputs.scatter(1, labels[:, None], torch.inf).kthvalue(self._kth_min, dim=1).indices

    def get_random_target_label(self, inputs: Tensor, labels: Tensor | None = None) -> Tensor:
        """(n,): a uniformly drawn class other than the label."""
        outputs = self.get_output_with_eval_nograd(inputs)
        labels = outputs.argmax(1) if labels is None else labels
        uniform = torch.rand(len(labels), generator=_engine.generator()).to(labels.device)
        other = ((outputs.shape[1] - 1) * uniform).long()
        return other + (other >= labels).long()

    # ---- the attack ----

    def _on_device(self, images: Tensor) -> Tensor:
        return images.detach().to(self.device) if self.device is not None else images.detach()

    def _uniform_start(self, images: Tensor) -> Tensor:
        noise = torch.empty_like(images).uniform_(-self.eps, self.eps, generator=_engine.generator())
        return (images + noise).clamp(*_BOX)

    def _pgd(
        self,
        images: Tensor,
        labels: Tensor | None,
        recipe: _engine.Recipe,
        start: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """The recipe's attack on images on the device; targets are drawn before the start, as torchattacks does."""
        if labels is None:
            raise TypeError("labels: got None, expected class indices")
        self._check_budget()
        labels = labels.detach().to(images.device)
        if self.targeted:
            labels = self.get_target_label(images, labels)
        normalization = None if self.normalization_used is None else self._mean_and_std(images)
        victim = _engine.Victim(self.get_logits, images, _NAMES, core=self.model, normalization=normalization)
        return _engine.attack(victim, images, labels, recipe, None if start is None else start(images))

    def _check_budget(self) -> None:
        """By the names of the constructors' arguments; they may have been set since."""
        settings = vars(self)
        _engine.expect_size("eps", self.eps, finite="alpha" not in settings)  # which is then the step
        if "alpha" in settings:
            _engine.expect_size("alpha", settings["alpha"], finite=True)
        _arguments.integer("steps", settings.get("steps", 1), 0)

    def _linf(self, radius: float, step: float, steps: int) -> _engine.Recipe:
        return _engine.Recipe("linf", radius, step, steps, DirectionRule("loss", mean=True), _BOX, self.targeted)


class PGDL2(Attack):
    """ℓ2 PGD in [0, 1]. ``PGDL2(model)(images, labels)`` returns the attacked images.

    >>> import torch
    >>> import benign_kernels.compat.torchattacks as torchattacks
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> torchattacks.PGDL2(model, eps=0.5)(torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])).shape
    torch.Size([4, 3, 2, 2])
    """

    def __init__(
        self,
        model: nn.Module,
        eps: float = 1.0,
        alpha: float = 0.2,
        steps: int = 10,
        random_start: bool = True,
        eps_for_division: float = 1e-10,
    ) -> None:
        super().__init__("PGDL2", model)
        self.eps = eps
        self.alpha = alpha
        self.steps = steps
        self.random_start = random_start
        self.eps_for_division = eps_for_division

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        images = self._on_device(images)
        start = self._gaussian_start if self.random_start else None
        rule = DirectionRule("loss", "added", self.eps_for_division, mean=True)
        recipe = _engine.Recipe("l2", self.eps, self.alpha, self.steps, rule, _BOX, self.targeted)
        return self._pgd(images, labels, recipe, start)

    def _gaussian_start(self, images: Tensor) -> Tensor:
        """A Gaussian direction times U(0, 1) times eps: the draws of torchattacks, in its order."""
        delta = torch.empty_like(images).normal_(generator=_engine.generator())
        norm = delta.flatten(1).norm(dim=1)
        length = torch.zeros_like(norm).uniform_(0, 1, generator=_engine.generator())
        return (images + delta * _engine.per_sample(length / norm * self.eps, images)).clamp(*_BOX)


class PGD(Attack):
    """ℓ∞ PGD in [0, 1].

    >>> import torch
    >>> import benign_kernels.compat.torchattacks as torchattacks
    >>> model = torch.nn.Sequential(torch.nn.Linear(12, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    >>> torchattacks.PGD(model, eps=0.1, alpha=0.02)(torch.rand(4, 12), torch.tensor([0, 1, 2, 0])).shape
    torch.Size([4, 12])
    """

    def __init__(
        self, model: nn.Module, eps: float = 8 / 255, alpha: float = 2 / 255, steps: int = 10, random_start: bool = True
    ) -> None:
        super().__init__("PGD", model)
        self.eps = eps
        self.alpha = alpha
        self.steps = steps
        self.random_start = random_start

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        images = self._on_device(images)
        start = self._uniform_start if self.random_start else None
        return self._pgd(images, labels, self._linf(self.eps, self.alpha, self.steps), start)


class FGSM(Attack):
    """One step of eps along the gradient's sign, in [0, 1]."""

    def __init__(self, model: nn.Module, eps: float = 8 / 255) -> None:
        super().__init__("FGSM", model)
        self.eps = eps

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        images = self._on_device(images)
        return self._pgd(images, labels, self._linf(torch.inf, self.eps, 1))


class FFGSM(Attack):
    """One step of alpha from a uniform start in the cube, projected on it, in [0, 1]."""

    def __init__(self, model: nn.Module, eps: float = 8 / 255, alpha: float = 10 / 255) -> None:
        super().__init__("FFGSM", model)
        self.eps = eps
        self.alpha = alpha

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        return self._pgd(self._on_device(images), labels, self._linf(self.eps, self.alpha, 1), self._start)

    def _start(self, images: Tensor) -> Tensor:
        torch.empty_like(images).normal_(generator=_engine.generator())  # torchattacks draws these and drops them
        return self._uniform_start(images)


class RFGSM(Attack):
    """ℓ∞ PGD in [0, 1] from a random corner of the cube of half-width alpha."""

    def __init__(self, model: nn.Module, eps: float = 8 / 255, alpha: float = 2 / 255, steps: int = 10) -> None:
        super().__init__("RFGSM", model)
        self.eps = eps
        self.alpha = alpha
        self.steps = steps

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        images = self._on_device(images)
        return self._pgd(images, labels, self._linf(self.eps, self.alpha, self.steps), self._corner)

    def _corner(self, images: Tensor) -> Tensor:
        corner = torch.empty_like(images).normal_(generator=_engine.generator()).sign()
        return (images + self.alpha * corner).clamp(*_BOX)


class BIM(Attack):
    """ℓ∞ PGD in [0, 1] from the image; with ``steps=0``, as many steps as the paper's rule gives.

    torchattacks leaves values below −eps where they are, although it clamps all others to [0, 1]; here all are clamped.
    """

    def __init__(self, model: nn.Module, eps: float = 8 / 255, alpha: float = 2 / 255, steps: int = 10) -> None:
        super().__init__("BIM", model)
        self.eps = eps
        self.alpha = alpha
        self.steps = steps if steps else int(min(eps * 255 + 4, 1.25 * eps * 255))

    def forward(self, images: Tensor, labels: Tensor | None = None) -> Tensor:
        images = self._on_device(images)
        return self._pgd(images, labels, self._linf(self.eps, self.alpha, self.steps))


def __getattr__(name: str) -> Any:
    raise AttributeError(
        f"{name} is not in benign_kernels.compat.torchattacks, which has {', '.join(__all__)}; use torchattacks for it"
    )
