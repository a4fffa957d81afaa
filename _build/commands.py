"""setuptools' build_ext, replaced by the build of native.py."""

from __future__ import annotations

import sys
from pathlib import Path

from setuptools import Extension
from setuptools.command.build_ext import build_ext

from .native import BUILD_ERRORS, LIBRARY, MODULE, ROOT, build_into

PACKAGE = "benign_kernels"
EXTENSION = Extension(f"{PACKAGE}._host", sources=[])


class BuildNative(build_ext):
    """Builds the library and the module _host into the package, or into the source tree for --inplace and -e."""

    def run(self) -> None:
        # Errors of the environment are sentences for the user; a traceback would bury them.
        try:
            build_into(ROOT / PACKAGE if self.inplace else Path(self.build_lib) / PACKAGE)
        except BUILD_ERRORS as error:
            sys.exit(f"benign_kernels: {error}")

    def get_source_files(self) -> list[str]:
        return []

    def get_outputs(self) -> list[str]:
        return [str(Path(self.build_lib) / PACKAGE / name) for name in (LIBRARY, MODULE)]

    def get_output_mapping(self) -> dict[str, str]:
        if not self.inplace:
            return {}
        return {output: str(ROOT / PACKAGE / Path(output).name) for output in self.get_outputs()}
