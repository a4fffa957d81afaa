"""The compiled library: loading it, and saying clearly what is wrong where it cannot be loaded."""

from __future__ import annotations

from pathlib import Path

import torch

PATH = Path(__file__).with_name("libbenign_kernels.so")


def _load() -> None:
    if not PATH.exists():
        raise ImportError(f"benign_kernels is not built: {PATH.name} is missing; run `pip install .` in the project")
    try:
        torch.ops.load_library(str(PATH))
    except OSError as error:
        raise ImportError(
            f"{PATH.name} does not load with torch {torch.__version__} (torch 2.11 or newer is needed): {error}"
        ) from error


_load()
ops = torch.ops.benign_kernels
