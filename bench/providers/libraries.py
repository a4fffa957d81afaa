"""The attack libraries, on the same two-layer net with two logits (−f/2, f/2): their loss is the logistic one of f.

Their direction is the loss's gradient with a floor added to its norm; at the margins of these problems, of order one,
that is the exact direction.  Their box is kept inactive, random starts off.
"""

from __future__ import annotations

import importlib

import torch
from torch import Tensor, nn

from bench.formulas import VALUE, Problem
from bench.providers.base import Provider, Run, only

_L2 = frozenset({"l2_attack"})
#: Half the width that the points may take of torchattacks' [0, 1], a little less than half of it.
_HALF_WIDTH = 0.45


class _Activation(nn.Module):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.function = VALUE[name]

    def forward(self, h: Tensor) -> Tensor:
        return self.function(h)


def _model(p: Problem, scale: float = 1.0, shift: float = 0.0) -> nn.Sequential:
    """The net as a function of scale·x + shift."""
    first = nn.Linear(p.case.d, p.case.m, dtype=p.W.dtype, device=p.W.device)
    head = nn.Linear(p.case.m, 2, bias=False, dtype=p.W.dtype, device=p.W.device)
    with torch.no_grad():
        first.weight.copy_(p.W / scale)
        first.bias.copy_(-first.weight.double().sum(1) * shift + (0 if p.bias is None else p.bias))
        head.weight.copy_(torch.stack([-p.a / 2, p.a / 2]))
    return nn.Sequential(nn.Flatten(), first, _Activation(p.case.activation), head).eval()


def _labels(p: Problem) -> Tensor:
    return (p.y > 0).long()


def _torchattacks(p: Problem) -> Run:
    """It clamps to [0, 1] whatever it is told: the points are moved inside, W and the bias move along."""
    library = importlib.import_module("torchattacks")
    scale = _HALF_WIDTH / (p.x.abs().max().item() + p.radius)
    images = (scale * p.x + 0.5).view(p.case.n, 1, 1, p.case.d)
    attack = library.PGDL2(
        _model(p, scale, 0.5), eps=p.radius * scale, alpha=p.step * scale, steps=p.case.steps, random_start=False
    )
    labels = _labels(p)
    return Run(lambda: attack(images, labels), lambda found: (_onto_ball(p, (found.flatten(1) - 0.5) / scale),))


def _foolbox(p: Problem) -> Run:
    library = importlib.import_module("foolbox")
    model = library.PyTorchModel(_model(p), bounds=(-1e6, 1e6), device=p.x.device)
    attack = library.attacks.L2PGD(abs_stepsize=p.step, steps=p.case.steps, random_start=False)
    labels = _labels(p)
    return Run(lambda: attack(model, p.x, labels, epsilons=p.radius), lambda found: (_onto_ball(p, found[1]),))


def _cleverhans(p: Problem) -> Run:
    attack = importlib.import_module("cleverhans.torch.attacks.projected_gradient_descent").projected_gradient_descent
    model, labels = _model(p), _labels(p)
    return Run(
        lambda: attack(model, p.x, p.radius, p.step, p.case.steps, 2, y=labels, rand_init=False),
        lambda found: (_onto_ball(p, found.detach()),),
    )


def _onto_ball(p: Problem, x: Tensor) -> Tensor:
    """Takes the excess of a few 1e-7 that moving to [0, 1] and back costs, and nothing that would change a margin."""
    delta = x.double() - p.x.double()
    length = delta.norm(dim=-1, keepdim=True)
    inside = torch.where(length <= p.radius * (1 + 1e-4), (p.radius / length).clamp(max=1), 1.0)
    return (p.x.double() + delta * inside).to(x.dtype)


PROVIDERS = (
    Provider(
        "torchattacks",
        "torchattacks.PGDL2",
        _torchattacks,
        _L2,
        requires=("torchattacks",),
        refuses=only(("float32", "float64")),
    ),
    Provider(
        "foolbox", "foolbox.attacks.L2PGD", _foolbox, _L2, requires=("foolbox",), refuses=only(("float32", "float64"))
    ),
    Provider(
        "cleverhans",
        "cleverhans.torch projected_gradient_descent (leaks memory)",
        _cleverhans,
        _L2,
        requires=("cleverhans",),
        refuses=only(("float32",)),
        default=False,
    ),
)
