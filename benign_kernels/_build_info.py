"""How the installed library was built, and what of it this machine uses."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class BuildInfo:
    """The facts of the build that :func:`build_info` returns.

    ``nvcc`` is ``"none"`` in a CPU build, and ``simd_level`` is the one of ``simd_levels`` that is in use.
    """

    torch_target: str
    torch_built: str
    nvcc: str
    architectures: tuple[str, ...]
    simd_levels: tuple[str, ...]
    simd_level: str
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
        simd_level=simd_level(),
        compiler=info.compiler,
        revision=info.revision,
    )


def simd_level() -> str:
    """The instruction set that the CPU kernels use: ``"amx"`` (AVX-512 and AMX tiles), ``"v4"`` (AVX-512), ``"v3"``
    (AVX2) or ``"base"``.

    It is the best of this machine, or what the environment variable ``BENIGN_KERNELS_SIMD`` names; a ValueError where
    that is none of this machine's, as from every op on the CPU.
    """
    level = _text(_native().benign_kernels_simd_level)
    if level is None:
        raise ValueError(_text(_native().benign_kernels_simd_problem))
    return level


def _text(function: Any) -> str | None:
    function.restype = ctypes.c_char_p
    text: bytes | None = function()
    return None if text is None else text.decode()


def set_simd_level(level: str) -> None:
    """Makes the CPU kernels use that level from now on, in the whole process."""
    function = _native().benign_kernels_set_simd_level
    function.restype, function.argtypes = ctypes.c_bool, [ctypes.c_char_p]
    if not function(level.encode()):
        raise ValueError(
            f"level: got {level!r}, expected an instruction set of this build and machine: amx, v4, v3 or base"
        )


def _native() -> ctypes.CDLL:
    from . import _library

    return ctypes.CDLL(str(_library.PATH))
