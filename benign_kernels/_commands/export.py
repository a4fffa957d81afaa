"""Write what is kept of an experiment as tables (csv, parquet) and figures (pdf, png, svg); nothing is run.

A table has one line a trial: its configuration, its seed, what it measured.

examples:
  benign export chen21                             out/chen21-quick.csv
  benign export chen21 --preset paper --format parquet pdf
"""

from __future__ import annotations

import argparse

from ..experiments import export, figures
from . import _experiment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _experiment.add_arguments(parser, runs=False)
    formats = (*export.FORMATS, *figures.FORMATS)
    parser.add_argument(
        "--format", nargs="+", choices=formats, default=["csv"], help=f"one or more of {', '.join(formats)}"
    )


def main(arguments: argparse.Namespace) -> int:
    plan = _experiment.plan_of(arguments)
    with _experiment.store_of(arguments) as store:
        records = store.load(plan)
    if not len(records):
        raise ValueError(
            f"export: no trial of {arguments.name} is kept in {store.path}; "
            f"run `{_experiment.command_line(arguments, 'run', plan)}` first"
        )
    base = _experiment.result_path(arguments, plan)
    for kind in dict.fromkeys(arguments.format):
        if kind in export.FORMATS:
            path = base.with_name(f"{base.name}.{kind}")
            export.write(records, path, kind)
            print(f"wrote {path}: {len(records)} trials")
            continue
        for figure in plan.experiment.figures:
            path = base.with_name(f"{base.name}-{figure.name}.{kind}")
            if figures.write(figure, records, path, kind):
                print(f"wrote {path}")
    return 0
