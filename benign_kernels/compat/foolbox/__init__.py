"""foolbox's gradient attacks on the kernels of this package; signatures, defaults and results are foolbox 3.3.4's.

    import benign_kernels.compat.foolbox as fb

    fmodel = fb.PyTorchModel(model, bounds=(0, 1))
    raw, clipped, success = fb.attacks.L2PGD(steps=20)(fmodel, images, labels, epsilons=[0.1, 0.5, 1.0])

Models may be `PyTorchModel` of this package or foolbox's own; inputs may be eagerpy tensors. Kept: inputs must lie
within the model's bounds, and are clipped to them after every step; the cross-entropy is summed over the batch, and its
gradient's norm is kept above 1e-12; random starts are uniform in the ball. Not kept: no parameter gets a gradient.
"""

from typing import Any

from . import attacks, criteria
from .attacks import Attack
from .criteria import Misclassification, TargetedMisclassification
from .models import Bounds, PyTorchModel, accuracy

__all__ = [
    "Attack",
    "Bounds",
    "Misclassification",
    "PyTorchModel",
    "TargetedMisclassification",
    "accuracy",
    "attacks",
    "criteria",
]


def __getattr__(name: str) -> Any:
    raise AttributeError(
        f"{name} is not in benign_kernels.compat.foolbox, which has {', '.join(__all__)}; take it from foolbox"
    )
