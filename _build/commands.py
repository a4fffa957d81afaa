"""setuptools' build_ext, replaced by the build of native.py."""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext

from .cuda import CudaError
from .native import LIBRARY, BuildError, build
from .torch_location import TorchError

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "benign_kernels"
EXTENSION = Extension(f"{PACKAGE}._host", sources=[])


class BuildNative(build_ext):
    """Builds the library and the module _host into the package, or into the source tree for --inplace and -e."""

    def run(self) -> None:
        # Errors of the environment are sentences for the user; a traceback would bury them.
        try:
            built = build(ROOT, ROOT / "build" / "native", module=True)
        except (BuildError, CudaError, TorchError) as error:
            sys.exit(f"benign_kernels: {error}")
        folder = ROOT / PACKAGE if self.inplace else Path(self.build_lib) / PACKAGE
        folder.mkdir(parents=True, exist_ok=True)
        for name, path in built.items():
            _replace(path, folder / name)

    def get_source_files(self) -> list[str]:
        return []

    def get_outputs(self) -> list[str]:
        return [str(Path(self.build_lib) / PACKAGE / name) for name in self._names()]

    def get_output_mapping(self) -> dict[str, str]:
        if not self.inplace:
            return {}
        return {output: str(ROOT / PACKAGE / Path(output).name) for output in self.get_outputs()}

    def _names(self) -> list[str]:
        return [LIBRARY, "_host" + sysconfig.get_config_var("EXT_SUFFIX")]


def _replace(source: Path, target: Path) -> None:
    """Puts a new file in place: overwriting a library that a running process has mapped would crash that process."""
    temporary = target.with_name(target.name + ".new")
    shutil.copy2(source, temporary)
    temporary.replace(target)
