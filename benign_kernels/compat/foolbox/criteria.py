"""foolbox's criteria: what counts as adversarial."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from .models import unwrapped

__all__ = ["Misclassification", "TargetedMisclassification"]


class Misclassification:
    """Adversarial is what the model does not assign to its label."""

    def __init__(self, labels: Any) -> None:
        self.labels = labels

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.labels!r})"


class TargetedMisclassification:
    """Adversarial is what the model assigns to its target class."""

    def __init__(self, target_classes: Any) -> None:
        self.target_classes = target_classes

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.target_classes!r})"


def read_criterion(criterion: Any) -> tuple[Tensor, bool]:
    """The labels, or the target classes and True; from a criterion of either package, or from labels alone."""
    for name, targeted in (("labels", False), ("target_classes", True)):
        if type(criterion).__name__ in ("Misclassification", "TargetedMisclassification") and hasattr(criterion, name):
            return unwrapped(getattr(criterion, name))[0], targeted
    if isinstance(criterion, Tensor) or isinstance(getattr(criterion, "raw", None), Tensor):
        return unwrapped(criterion)[0], False
    raise ValueError(
        f"criterion: got {type(criterion).__name__}, expected labels, Misclassification or TargetedMisclassification"
    )
