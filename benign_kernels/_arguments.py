"""Checks that several functions share: each refusal is one sentence with the argument, what came, what is accepted."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor


def one_of(name: str, value: object, accepted: Sequence[str]) -> None:
    if value not in accepted:
        raise ValueError(f"{name}: got {value!r}, expected one of {', '.join(map(repr, accepted))}")


def integer(name: str, value: Any, least: int) -> int:
    if isinstance(value, bool):
        raise TypeError(f"{name}: got {value!r}, expected an integer ≥ {least}")
    if not isinstance(value, int):
        try:
            value = operator.index(value)
        except TypeError:
            raise TypeError(f"{name}: got {value!r}, expected an integer ≥ {least}") from None
    if value < least:
        raise ValueError(f"{name}: got {value}, expected an integer ≥ {least}")
    if value >= 2**63:
        raise ValueError(f"{name}: got {value}, expected an integer below 2**63")
    return int(value)


def switch(name: str, value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: got {value!r}, expected True or False")
    return bool(value)


def tensor(name: str, value: Any) -> Tensor:
    """Without its history; NumPy arrays are shared, not copied, where torch can."""
    if not isinstance(value, Tensor):
        if isinstance(value, np.ndarray):
            return _from_numpy(name, value)
        raise TypeError(f"{name}: got {type(value).__name__}, expected a tensor or a NumPy array")
    if value.layout != torch.strided:
        raise TypeError(f"{name}: got layout {value.layout}, expected a dense tensor")
    return value.detach() if value.requires_grad else value


def _from_numpy(name: str, array: np.ndarray) -> Tensor:
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{name}: got an array of {array.dtype}, expected one of numbers")
    if not array.flags.writeable or min(array.strides, default=0) < 0 or not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))  # torch takes no others
    return torch.from_numpy(array)


def optional(name: str, value: Any) -> Tensor | None:
    return None if value is None else tensor(name, value)


def number_or_tensor(name: str, value: Any, each: str) -> float | Tensor:
    """Of a size η or ε: a number, or one for each row."""
    if isinstance(value, (int, float)):
        return float(value)
    if isinstance(value, (Tensor, np.ndarray)):
        return tensor(name, value)
    if isinstance(value, (numbers.Real, torch.SymFloat, torch.SymInt)):
        return float(value)
    raise TypeError(f"{name}: got {type(value).__name__}, expected a number or a tensor of one per {each}")


def per_row(name: str, value: Tensor, rows: Sequence[int], each: str) -> Tensor:
    try:
        return value.expand(rows)
    except RuntimeError:
        raise ValueError(
            f"{name}: got shape {tuple(value.shape)}, expected a number or {tuple(rows)}, one per {each}"
        ) from None


def readable(t: Tensor) -> bool:
    """Whether to look at the values: neither a wait for a device, nor a graph break, nor one answer for many maps."""
    return (
        t.device.type == "cpu" and not torch.compiler.is_compiling() and not torch._C._are_functorch_transforms_active()
    )


def not_negative(name: str, value: float | Tensor, *, finite: bool = False) -> None:
    if isinstance(value, Tensor):
        if not readable(value):
            return
        wrong = value[~((value >= 0) & (value.isfinite() | (not finite)))]
        if not wrong.numel():
            return
        value = wrong[0].item()
    elif value >= 0 and not (finite and value == math.inf):
        return
    raise ValueError(f"{name}: got {value:.15g}, expected a {'finite ' if finite else ''}number ≥ 0")
