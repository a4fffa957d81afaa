"""The attacks people already call, on the kernels of this package: change one import line and the script keeps working.

* ``import benign_kernels.compat.torchattacks as torchattacks``
* ``import benign_kernels.compat.foolbox as foolbox``
* ``import benign_kernels.compat.cleverhans as cleverhans``

Signatures, defaults, boxes, reductions, gradient floors and the laws of random starts are those of torchattacks 3.5.1,
foolbox 3.3.4 and cleverhans 4.0.0, so that results agree to rounding, random starts included: they are the same draws
from torch's global generator (see `random_starts`). Their side effects are not kept: no parameter gets a gradient,
every module keeps its mode, and what is returned holds no graph. Their blindness at large margins *is* kept, since it
belongs to their gradients; `benign_kernels.attack_model` is free of it.

Two-layer networks (see `benign_kernels.as_two_layer`) run in fused ops, other models through autograd, with a warning.
Models of one logit, which those libraries cannot attack, are attacked on the logistic loss, with labels ±1 or 0/1.
"""

from ._engine import random_starts

__all__ = ["random_starts"]
