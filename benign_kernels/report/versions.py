"""What made the numbers: versions of everything between them and the machine."""

from __future__ import annotations

import contextlib
import os
import platform
from importlib import metadata

import numpy
import torch

from .. import __version__
from .._build_info import build_info


def versions() -> dict[str, str]:
    """Name and version, in the order in which a reader asks.

    >>> list(versions())[:3]
    ['benign_kernels', 'torch', 'numpy']
    """
    built = build_info()
    found = {
        "benign_kernels": f"{__version__} (revision {built.revision}, kernels {built.simd_level})",
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "Python": platform.python_version(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}",
    }
    with contextlib.suppress(metadata.PackageNotFoundError):
        found["matplotlib"] = metadata.version("matplotlib")
    return found
