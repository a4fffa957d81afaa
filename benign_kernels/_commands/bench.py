"""Time the ops against what they replace: cases × providers, checked, then timed; a table and JSON rows."""

from __future__ import annotations

import argparse
import importlib
import sys
from pathlib import Path
from types import ModuleType

_ROOT = Path(__file__).resolve().parent.parent.parent


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _bench().add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    return _bench().main(arguments)


def _bench() -> ModuleType:
    """The folder bench/ of the repository: the benchmarks are not installed with the package."""
    if not (_ROOT / "bench" / "command.py").exists():
        raise ImportError(
            "'benign bench' runs in a checkout of the repository: use `make bench`, or `pip install -e .` there"
        )
    if str(_ROOT) not in sys.path:
        sys.path.insert(0, str(_ROOT))
    return importlib.import_module("bench.command")
