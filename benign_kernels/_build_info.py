"""How the installed library was built, and what of it this machine uses."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class BuildInfo:
    """The facts of the build that :func:`build_info` returns; ``nvcc`` is ``"none"`` in a CPU build."""

    torch_target: str
    torch_built: str
    nvcc: str
    architectures: tuple[str, ...]
    simd_levels: tuple[str, ...]
    compiler: str
    revision: str


def build_info() -> BuildInfo:
    """How the installed library was built.

    >>> build_info().torch_target
    '2.11'
    """
    from . import _host

    info = _host.build_info()
    return BuildInfo(
        torch_target=info.torch_target,
        torch_built=info.torch_built,
        nvcc=info.nvcc,
        architectures=tuple(info.architectures),
        simd_levels=tuple(info.simd_levels),
        compiler=info.compiler,
        revision=info.revision,
    )
