"""What a provider is."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bench.cases import COMPUTE, FAMILIES, Case
from bench.formulas import Problem

ATTACKS = frozenset(name for name, family in FAMILIES.items() if family.attack)
EVERY_FAMILY = frozenset(FAMILIES)


def as_is(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


@dataclass(frozen=True)
class Run:
    """``call()`` is timed, with everything that the user pays; ``unpack`` turns its result into tensors, untimed.

    ``units``: how many times a call does the work of the case; times are of one.
    """

    call: Callable[[], Any]
    unpack: Callable[[Any], tuple[Tensor, ...]] = as_is
    units: float = 1


@dataclass(frozen=True)
class Provider:
    """One way to do the work of a case.

    ``requires``: module names that must be importable.  ``refuses``: why it cannot do a case, or None.
    ``default``: whether it runs unless named.  ``precision``: the tolerance it is held to, where not the case's dtype.
    """

    name: str
    about: str
    build: Callable[[Problem], Run]
    families: frozenset[str] = EVERY_FAMILY
    requires: tuple[str, ...] = ()
    refuses: Callable[[Case, str], str | None] = field(default=lambda case, device: None)
    default: bool = True
    precision: str | None = None

    def unavailable(self, case: Case, device: str) -> str | None:
        """Why this provider cannot run the case, in words; None when it can."""
        if case.family not in self.families:
            return f"has no {case.family}"
        missing = [name for name in self.requires if importlib.util.find_spec(name) is None]
        if missing:
            return f"needs {' and '.join(missing)}, not installed"
        return self.refuses(case, device)


def only(
    dtypes: Iterable[str] | None = None, activations: Iterable[str] | None = None, device: str | None = None
) -> Callable[[Case, str], str | None]:
    """A ``refuses`` that accepts these dtypes, activations and this device alone."""

    def refuses(case: Case, on: str) -> str | None:
        if device is not None and on != device:
            return f"runs on {device} alone"
        if dtypes is not None and case.dtype not in dtypes:
            return f"has no {case.dtype}"
        if activations is not None and case.activation not in activations:
            return f"has no {case.activation}"
        return None

    return refuses


def captured(call: Callable[[], Any]) -> tuple[torch.cuda.CUDAGraph, Any]:
    """The CUDA graph of a call, and the result that every replay overwrites."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # compilers and allocators settle
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = call()
    return graph, result


def compute_dtype(case: Case) -> torch.dtype:
    dtype: torch.dtype = getattr(torch, COMPUTE[case.dtype])
    return dtype
