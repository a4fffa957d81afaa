"""How a mapped dimension becomes rows of the points, or one more dimension of independent networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._library import ops

Finish = Callable[[Tensor], tuple[Tensor, int]]


class Folded(NamedTuple):
    """What to call the op with, and how its outputs are brought back: each as (output, its mapped dimension)."""

    x: Tensor
    W: Tensor
    a: Tensor
    bias: Tensor | None
    head_bias: Tensor | None
    cotangent: Tensor | None
    per_row: Finish  # of f and gx
    per_network: Finish  # of gW, ga, gb


def fold(
    size: int, dims: Sequence[int | None], x: Tensor, W: Tensor, a: Tensor, *rest: Tensor | None, over_networks: bool
) -> Folded:
    """``rest``: bias, head_bias, cotangent.  ``over_networks``: outputs are sums over rows, which cannot hold it."""
    tensors = [_front(t, dim) for t, dim in zip((x, W, a, *rest), dims, strict=True)]
    mapped = [t is not None and dim is not None for t, dim in zip((x, W, a, *rest), dims, strict=True)]
    if over_networks or any(mapped[1:5]):
        return _as_networks(size, mapped, tensors)
    return _as_rows(size, mapped, tensors)


def _front(t: Tensor | None, dim: int | None) -> Tensor | None:
    return t if t is None or dim is None else t.movedim(dim, 0)


def _expanded(size: int, mapped: bool, t: Any) -> Any:
    return t if t is None or mapped else t.unsqueeze(0).expand(size, *t.shape)


def _for_all(size: int, networks: Sequence[int], x: Tensor) -> Tensor:
    """Mapped points (size, n, D) that all networks share, once for each of them."""
    return x.reshape(size, *[1] * len(networks), *x.shape[1:]).expand(size, *networks, *x.shape[1:])


def _as_rows(size: int, mapped: list[bool], tensors: list[Any]) -> Folded:
    x, W, a, bias, head_bias, cotangent = tensors
    x, cotangent = _expanded(size, mapped[0], x), _expanded(size, mapped[5], cotangent)
    networks = W.dim() - 2
    if networks == 0:  # leading dimensions of x are rows already
        return Folded(x, W, a, bias, head_bias, cotangent, lambda out: (out, 0), lambda out: (out, 0))

    def merge(t: Tensor, dim: int) -> Tensor:
        t = t.movedim(0, dim)
        return t.reshape(*t.shape[:dim], size * t.shape[dim + 1], *t.shape[dim + 2 :])

    def split(out: Tensor) -> tuple[Tensor, int]:
        return out.unflatten(networks, (size, out.shape[networks] // size)), networks

    x = merge(x, 0 if x.dim() == 3 else networks)
    cotangent = None if cotangent is None else merge(cotangent, networks)
    return Folded(x, W, a, bias, head_bias, cotangent, split, lambda out: (out, networks))


def _as_networks(size: int, mapped: list[bool], tensors: list[Any]) -> Folded:
    x, W, a, bias, head_bias, cotangent = tensors
    W, a, bias, head_bias, cotangent = (
        _expanded(size, *pair) for pair in zip(mapped[1:], (W, a, bias, head_bias, cotangent), strict=True)
    )
    networks = W.shape[1:-2]
    if networks:
        shared = x.dim() - mapped[0] == 2
        if shared and mapped[0]:
            x = _for_all(size, networks, x)
        elif not shared:
            x = _expanded(size, mapped[0], x)
        return Folded(x, W, a, bias, head_bias, cotangent, lambda out: (out, 0), lambda out: (out, 0))

    rows = x.shape[1:-1] if mapped[0] else x.shape[:-1]
    count = math.prod(rows)
    x = x.reshape(size, count, x.shape[-1]) if mapped[0] else x.reshape(count, x.shape[-1])
    if cotangent is not None:
        cotangent = cotangent.reshape(size, count, *cotangent.shape[1 + len(rows) :])
    return Folded(
        *(x, W, a, bias, head_bias, cotangent),
        lambda out: (out.reshape(size, *rows, *out.shape[2:]), 0),
        lambda out: (out, 0),
    )


def _map_step(name: str) -> None:
    """A mapped dimension of a projected step is one more dimension of rows."""
    op, in_place = getattr(ops, name).default, name.endswith("_")

    def rule(info: Any, dims: tuple[Any, ...], *arguments: Any) -> tuple[Tensor | None, int | None]:
        if in_place and dims[0] is None:
            raise ValueError(f"x: is not mapped over in {name}, expected it to be where another argument is")
        mapped = [dim is not None for dim in dims[:5]]
        fronts = map(_front, arguments[:5], dims[:5])
        rows = [_expanded(info.batch_size, *pair) for pair in zip(mapped, fronts, strict=True)]
        return op(*rows, *arguments[5:]), None if in_place else 0

    torch.library.register_vmap(f"benign_kernels::{name}", rule)


for _name in ("l2_pgd_step", "l2_pgd_step_", "linf_pgd_step", "linf_pgd_step_"):
    _map_step(_name)


def _map_pgd(info: Any, dims: tuple[Any, ...], *arguments: Any) -> tuple[tuple[Tensor, ...], tuple[int | None, ...]]:
    """A mapped dimension of an attack is one more of rows, or of networks, where they have one."""
    size, numbers = info.batch_size, arguments[10:]
    mapped = [t is not None and dim is not None for t, dim in zip(arguments[:10], dims[:10], strict=True)]
    fronts: list[Any] = list(map(_front, arguments[:10], dims[:10]))
    x0, y, *network, start, radius, step = fronts
    of_rows = [_expanded(size, *pair) for pair in zip((mapped[1], *mapped[7:]), (y, start, radius, step), strict=True)]
    rows, networks = x0.shape[mapped[0] : -1], network[0].shape[mapped[2] : -2]
    new_networks = any(mapped[2:7]) and not networks
    if new_networks or networks:
        network = [_expanded(size, *pair) for pair in zip(mapped[2:7], network, strict=True)]
    if new_networks:  # which have one dimension of rows
        count = math.prod(rows)
        x0 = x0.reshape(*x0.shape[: mapped[0]], count, x0.shape[-1])
        of_rows = [t if t is None else t.reshape(size, count, *t.shape[1 + len(rows) :]) for t in of_rows]
    elif networks and len(rows) == 1:
        x0 = _for_all(size, networks, x0) if mapped[0] else x0
    else:
        x0 = _expanded(size, mapped[0], x0)
    y, start, radius, step = of_rows
    x, logits, margin, path = ops.pgd.default(x0, y, *network, start, radius, step, *numbers)
    has_x = x.dim() > margin.dim()  # unless only margins were asked for
    if new_networks:
        x = x.reshape(size, *rows, *x.shape[2:]) if has_x else x
        logits, margin = (t.reshape(size, *rows, *t.shape[2:]) for t in (logits, margin))
        path = path.reshape(-1, size, *rows, path.shape[-1]) if path.dim() > 1 else path
    return (x, logits, margin, path), (0 if has_x else None, 0, 0, 1 if path.dim() > 1 else None)


torch.library.register_vmap("benign_kernels::pgd", _map_pgd)
