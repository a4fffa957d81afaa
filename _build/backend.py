"""The PEP 517 backend: setuptools', with torch taken from the environment that the package is installed into.

pip builds in isolation, where only the build requirements can be imported. With torch among them every installation
would download a second torch, possibly not the user's. pip's isolation keeps the user's interpreter, so that sysconfig
still knows where the user's torch is (torch_location.py); torch is a requirement only where there is none.

Other front ends build in a temporary environment from which the user's cannot be found; there one sentence
says what to do.
"""

from __future__ import annotations

import os
import sys

from setuptools import build_meta
from setuptools.build_meta import *  # noqa: F403

from .torch_location import TorchError, TorchNotFound, find_torch

REQUIREMENT = "torch>=2.11"


def get_requires_for_build_wheel(config_settings: dict | None = None) -> list[str]:
    return build_meta.get_requires_for_build_wheel(config_settings) + _torch_requirement()


def get_requires_for_build_editable(config_settings: dict | None = None) -> list[str]:
    return build_meta.get_requires_for_build_editable(config_settings) + _torch_requirement()


def _torch_requirement() -> list[str]:
    try:
        find_torch()
    except TorchNotFound:
        if _is_pip():
            return [REQUIREMENT]
        sys.exit(
            "benign_kernels: the temporary build environment has no torch to build against; install the build "
            "requirements (pip install torch setuptools ninja pybind11) and build with --no-build-isolation "
            "(python -m build: --no-isolation), or name your torch's folder in BENIGN_KERNELS_TORCH."
        )
    except TorchError as error:
        sys.exit(f"benign_kernels: {error}")
    return []


def _is_pip() -> bool:
    """Whether pip runs this build: then in the interpreter that it installs into."""
    return "PIP_BUILD_TRACKER" in os.environ
