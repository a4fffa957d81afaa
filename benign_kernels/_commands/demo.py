"""Train a plain and a robust two-layer network and attack both: robust accuracy against radius, table and picture."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), help="folder of the picture (default: %(default)s)"
    )
    parser.add_argument(
        "--seed", type=int, default=0, help="of the data and the initial weights (default: %(default)s)"
    )


def main(arguments: argparse.Namespace) -> int:
    from .. import demo

    return demo.main(arguments.out, seed=arguments.seed)
