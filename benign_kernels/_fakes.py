"""What the ops return without computing it, for torch.compile, torch.export and the meta device; and autocast."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ._library import ops

_NETWORK_OPS = ("two_layer", "two_layer_value_and_grad", "two_layer_parameter_grad", "pgd")


def _fake_of(*names: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers a function as what these ops return.

    A real x next to a W on the meta device comes to the fakes too, where it would get memory that nobody has written.
    """

    def register(fake: Callable[..., Any]) -> Callable[..., Any]:
        for name in names:
            arguments = [argument.name for argument in getattr(ops, name).default._schema.arguments]

            def checked(*values: Any, arguments: list[str] = arguments, **keywords: Any) -> Any:
                given = {**dict(zip(arguments, values, strict=False)), **keywords}
                (first, device), *others = ((name, t.device) for name, t in given.items() if isinstance(t, Tensor))
                for name, other in others:
                    if other != device:
                        raise ValueError(f"{name}: is on {other}, expected {device}, where {first} is")
                return fake(*values, **keywords)

            torch.library.register_fake(f"benign_kernels::{name}", checked)
        return fake

    return register


def _rows(x: Tensor, W: Tensor) -> list[Any]:
    """One entry for each row of each network."""
    return [*W.shape[:-2], x.shape[-2]] if W.dim() > 2 else list(x.shape[:-1])


def _outputs(x: Tensor, W: Tensor, a: Tensor) -> list[Any]:
    return _rows(x, W) + ([a.shape[-2]] if a.dim() == W.dim() else [])


def _points(x: Tensor, W: Tensor) -> list[Any]:
    return [*_rows(x, W), x.shape[-1]]


@_fake_of("two_layer")
def _two_layer(x: Tensor, W: Tensor, a: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(_outputs(x, W, a))


@_fake_of("two_layer_value_and_grad")
def _two_layer_value_and_grad(x: Tensor, W: Tensor, a: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    return x.new_empty(_outputs(x, W, a)), x.new_empty(_points(x, W))


@_fake_of("two_layer_parameter_grad")
def _two_layer_parameter_grad(x: Tensor, W: Tensor, a: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor]:
    return W.new_empty(W.shape), a.new_empty(a.shape), W.new_empty(W.shape[:-1])


@_fake_of("l2_pgd_step", "linf_pgd_step")
def _pgd_step(x: Tensor, *rest: Any) -> Tensor:
    return x.new_empty(x.shape)


@_fake_of("l2_pgd_step_", "linf_pgd_step_")
def _pgd_step_(x: Tensor, *rest: Any) -> None:
    return None


@_fake_of("pgd")
def _pgd(
    x0: Tensor,
    y: Tensor,
    W: Tensor,
    a: Tensor,
    bias: Tensor | None,
    head_bias: Tensor | None,
    gram: Tensor | None,
    start: Tensor | None,
    radius_rows: Tensor | None,
    step_rows: Tensor | None,
    radius: float,
    step: float,
    steps: int,
    norm: str = "l2",
    loss: str = "margin",
    direction: str = "exact",
    floor_rule: str = "added",
    floor: float = 0.0,
    loss_scale: float = 1.0,
    worst: bool = False,
    box_lo: float | None = None,
    box_hi: float | None = None,
    trajectory: bool = False,
    stop_early: bool = False,
    need_x: bool = True,
    *rest: Any,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    points = _points(x0, W)
    path = [steps + 1, *points] if trajectory else [0]
    return (
        x0.new_empty(points if need_x else [0]),
        x0.new_empty(_outputs(x0, W, a)),
        x0.new_empty(_rows(x0, W)),
        x0.new_empty(path),
    )


@_fake_of("train")
def _train(
    x: Tensor,
    y: Tensor,
    W: Tensor,
    a: Tensor,
    bias: Tensor | None,
    head_bias: Tensor | None,
    v_W: Tensor | None,
    v_a: Tensor | None,
    v_bias: Tensor | None,
    v_head_bias: Tensor | None,
    gram: Tensor | None,
    first_W: Tensor,
    step_size: Tensor,
    *rest: Any,
) -> tuple[Tensor, ...]:
    carry_gram, iteration, every, clean = rest[-9:-5]
    updates = step_size.shape[0]
    records = -(-(iteration + updates) // every) - -(-iteration // every) if updates else 1
    outputs = [records, *_outputs(x, W, a)]
    present = (W, a, bias, head_bias, v_W, v_a, v_bias, v_head_bias)
    return (
        *(W.new_empty([0] if t is None else t.shape) for t in present),
        W.new_empty([*W.shape[:-1], W.shape[-2]] if carry_gram else [0]),
        W.new_empty(outputs),
        W.new_empty(outputs if clean else [0]),
        W.new_empty([5, records, *W.shape[:-2]]),
    )


# Under autocast networks are computed in float32 (float64 stays): a network's sums over neurons and an attack's small
# steps do not survive 8 bits of mantissa.
for _op in _NETWORK_OPS:
    for _device in ("cpu", "cuda"):
        torch.library.register_autocast(f"benign_kernels::{_op}", _device, torch.float32)
