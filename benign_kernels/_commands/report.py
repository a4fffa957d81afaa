"""Write the report of an experiment, one HTML page, after running the trials that are missing.

The page has the figures, the claims and what the trials say of them, what was run, and how to run it again; it loads
nothing from anywhere.

examples:
  benign report chen21                             out/chen21-quick.html
  benign report chen21 --preset paper --out results
"""

from __future__ import annotations

import argparse
from importlib import import_module

from . import _experiment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _experiment.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    import_module("matplotlib")  # missing, it is missed before the work and not after it
    from ..report import page, versions

    plan = _experiment.plan_of(arguments)
    with _experiment.store_of(arguments) as store:
        _experiment.run_missing(plan, store, arguments)
        command = _experiment.command_line(arguments, "report", plan)
        made = {**versions(), "trials made by benign_kernels": ", ".join(store.versions(plan))}
        text = page(plan, store.load(plan), command=command, versions=made, seconds=store.seconds(plan))
    path = _experiment.result_path(arguments, plan)
    path = path.with_name(path.name + ".html")
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path}")
    return 0
