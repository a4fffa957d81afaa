"""The ops of this library, called as a user calls them."""

from __future__ import annotations

import importlib
from types import ModuleType

import torch

from bench.cases import Case
from bench.formulas import Problem
from bench.providers import training
from bench.providers.base import EVERY_FAMILY, Provider, Run, as_is, captured, only

_FUNCTION = {
    "forward": "two_layer",
    "tracked": "two_layer",
    "autograd": "two_layer",
    "value_and_grad": "two_layer_value_and_grad",
    "parameter_grad": "two_layer_parameter_grad",
    "l2_step": "l2_pgd_step",
    "l2_attack": "l2_pgd",
    "linf_attack": "linf_pgd",
    "training": "adversarial_train",
}


def _library() -> ModuleType:
    return importlib.import_module("benign_kernels")


def _refuses(case: Case, device: str) -> str | None:
    try:
        library = _library()
        getattr(library, _FUNCTION[case.family])
    except (ImportError, AttributeError) as error:
        return str(error)
    return None


def _build(p: Problem) -> Run:
    case, op = p.case, getattr(_library(), _FUNCTION[p.case.family])
    x, y, W, a, bias = p.x, p.y, p.W, p.a, p.bias
    activation = case.activation
    if case.family == "training":
        return training.ours(p)
    if case.family == "l2_step":
        return Run(lambda: op(x, p.origin, p.grad, step=p.step, radius=p.radius))
    if case.family in ("l2_attack", "linf_attack"):
        return Run(
            lambda: op(x, y, W, a, bias=bias, activation=activation, radius=p.radius, step=p.step, steps=case.steps).x
        )
    if case.family == "parameter_grad":
        return Run(lambda: op(x, W, a, bias=bias, cotangent=p.cotangent, activation=activation))
    if case.family in ("forward", "value_and_grad"):
        return Run(lambda: op(x, W, a, bias=bias, activation=activation))
    leaves = [tensor.detach().clone().requires_grad_() for tensor in (x, W, a)]
    if case.family == "tracked":
        return Run(lambda: op(*leaves, bias=bias, activation=activation))

    def forward_backward() -> tuple[torch.Tensor, ...]:
        f = op(*leaves, bias=bias, activation=activation)
        return (f, *torch.autograd.grad(f, leaves, p.cotangent))

    return Run(forward_backward)


def _replayed(p: Problem) -> Run:
    """Without Python: what the device itself needs."""
    graph, result = captured(_build(p).call)
    return Run(graph.replay, lambda _: as_is(result))


PROVIDERS = (
    Provider("ours", "benign_kernels, each family one call", _build, refuses=_refuses),
    Provider(
        "ours_graph",
        "the same as a CUDA graph that is replayed",
        _replayed,
        EVERY_FAMILY - {"tracked", "training"},
        refuses=only(device="cuda"),
    ),
)
