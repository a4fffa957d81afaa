"""The compiled library: loading it, and saying clearly what is wrong where it cannot be loaded."""

from __future__ import annotations

from pathlib import Path

import torch

_PATH = Path(__file__).with_name("libbenign_kernels.so")


def _load() -> None:
    if not _PATH.exists():
        raise ImportError(f"benign_kernels is not built: {_PATH.name} is missing; run `pip install .` in the project")
    try:
        torch.ops.load_library(str(_PATH))
    except OSError as error:
        raise ImportError(
            f"{_PATH.name} does not load with torch {torch.__version__} (torch 2.11 or newer is needed): {error}"
        ) from error


_load()
ops = torch.ops.benign_kernels
