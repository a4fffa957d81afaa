"""Finds the torch to build against without importing it: its headers and libraries are all that is needed."""

from __future__ import annotations

import importlib.util
import os
import re
import site
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

MINIMUM = (2, 11)


class TorchError(RuntimeError):
    """There is a torch, or the user named one, and it does not serve."""


class TorchNotFound(TorchError):
    """There is no torch."""


def find_torch() -> Path:
    """The folder of the torch package that the user has.

    Under pip's build isolation the import path is pip's own, but sysconfig still describes the environment that pip
    installs into.
    """
    override = os.environ.get("BENIGN_KERNELS_TORCH")
    if override:
        for folder in (Path(override), Path(override) / "torch"):
            if _is_torch(folder):
                return _checked(folder)
        raise TorchError(
            f"BENIGN_KERNELS_TORCH: got {override!r}, expected the folder of an installed torch package, "
            "such as .../site-packages/torch"
        )
    for folder in _candidates():
        if _is_torch(folder):
            return _checked(folder)
    raise TorchNotFound("benign_kernels is built against torch >= 2.11, and this environment has no torch")


def torch_version(folder: Path) -> str:
    """'2.13.0+cpu', read from the package without importing it."""
    text = (folder / "version.py").read_text(encoding="utf-8")
    match = re.search(r"^__version__\s*=\s*['\"]([^'\"]+)", text, re.MULTILINE)
    if match is None:
        raise TorchError(f"{folder / 'version.py'} names no version")
    return match.group(1)


def _candidates() -> Iterator[Path]:
    spec = importlib.util.find_spec("torch")
    if spec is not None and spec.origin:
        yield Path(spec.origin).parent
    for name in ("purelib", "platlib"):
        yield Path(sysconfig.get_path(name)) / "torch"
    if _sees_system_packages():
        for name in ("purelib", "platlib"):
            variables = {"base": sys.base_prefix, "platbase": sys.base_exec_prefix}
            yield Path(sysconfig.get_path(name, vars=variables)) / "torch"
    if site.ENABLE_USER_SITE is not False:
        yield Path(site.getusersitepackages()) / "torch"


def _sees_system_packages() -> bool:
    config = Path(sys.prefix) / "pyvenv.cfg"
    if not config.exists():
        return True
    return bool(
        re.search(r"^include-system-site-packages\s*=\s*true", config.read_text(), re.MULTILINE | re.IGNORECASE)
    )


def _is_torch(folder: Path) -> bool:
    return (folder / "version.py").is_file() and (folder / "include" / "torch" / "csrc" / "stable").is_dir()


def _checked(folder: Path) -> Path:
    version = torch_version(folder)
    if tuple(int(part) for part in version.split(".")[:2]) < MINIMUM:
        raise TorchError(f"benign_kernels needs torch >= 2.11, and {folder} is torch {version}")
    return folder
