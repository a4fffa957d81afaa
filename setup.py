"""Build script; metadata is in pyproject.toml, the native build in _build/."""

import sys
from pathlib import Path

from setuptools import setup

sys.path.insert(0, str(Path(__file__).resolve().parent))

from _build.commands import EXTENSION, BuildNative

setup(ext_modules=[EXTENSION], cmdclass={"build_ext": BuildNative})
