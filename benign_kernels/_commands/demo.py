"""Train networks adversarially on noisy labels, and see where that overfitting is benign: claims, table, pictures.

It is the preset demo of the experiment wang24: two-layer ReLU networks fit every label of a Gaussian mixture robustly,
the wrong ones too; at which budgets and in which dimensions the robust test error stays at the label noise is measured.
"""

from __future__ import annotations

import argparse
import time
from importlib import import_module
from pathlib import Path

from ..experiments import Plan, Records, claims, figures, get
from . import _experiment

_EXPERIMENT, _SEEDS = "wang24", 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("out/demo"), help="folder of trials, pictures and page (default: %(default)s)"
    )
    parser.add_argument(
        "--seed",
        type=_experiment.not_negative,
        default=0,
        metavar="S",
        help=f"the first of {_SEEDS} seeds (default: %(default)s)",
    )
    parser.add_argument("--jobs", type=_experiment.positive, metavar="N", help="processes (default: one a core)")


def main(arguments: argparse.Namespace) -> int:
    import_module("matplotlib")  # missing, it is missed before the work and not after it
    seeds = range(arguments.seed, arguments.seed + _SEEDS)
    plan = Plan.of(get(_EXPERIMENT), "demo", seeds=seeds)
    print(f"{plan.experiment.title} ({plan.experiment.reference}): {len(plan.tasks())} trainings", flush=True)
    began = time.perf_counter()
    show(plan, arguments)
    print(f"{time.perf_counter() - began:.0f} s in all")
    return 0


def show(plan: Plan, arguments: argparse.Namespace) -> None:
    """Runs what is missing of the plan; prints claims and table, writes pictures and page."""
    from ..report import page, versions

    with _experiment.store_of(arguments) as store:
        _experiment.run_missing(plan, store, arguments)
        records, seconds = store.load(plan), store.seconds(plan)
    verdicts = [claims.judge(claim, records) for claim in plan.experiment.claims]
    tested = [verdict for verdict in verdicts if verdict.outcome != claims.UNTESTED]
    print("\n" + claims.table(tested))
    name = plan.experiment.name
    print(f"{len(verdicts) - len(tested)} more claims and questions need other trials: benign verify {name}\n")
    print(table(records) + "\n")
    for figure in plan.experiment.figures:
        path = arguments.out / f"{figure.name}.png"
        if figures.write(figure, records, path, "png"):
            print(f"wrote {path}")
    path = arguments.out / f"{name}.html"
    command = f"benign demo --seed {arguments.seed}"
    text = page(plan, records, command=command, versions=versions(), seconds=seconds)
    path.write_text(text, encoding="utf-8")
    print(f"wrote {path}")


def table(records: Records) -> str:
    """The means over seeds by budget, beside the averaging classifier's robust error and the Bayes bound."""
    from ..experiments.wang24 import predictions

    measures = ("train_robust_error", "test_error", "test_robust_error")
    lines = [
        "           errors: robust     clean    robust   robust test,      no classifier",
        "budget/‖μ‖       training      test      test   averaging        errs less",
    ]
    for ratio, rows in records.sweep("budget").groups("ratio").items():
        means = [sum(rows.column(name)) / len(rows) for name in measures]
        theory = [predictions.robust(rows[0].config), predictions.bayes(rows[0].config)]
        found, closed = ("".join(f"{value:10.3f}" for value in values) for values in (means, theory))
        lines.append(f"{ratio:10.1f}    {found}   {closed}")
    return "\n".join(lines)
