"""What the commands on experiments share: their arguments, the plan these make, and running what is missing of it."""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

from ..experiments import Plan, Store, get, names, overrides, runner
from ..experiments.registry import suggestion
from . import UsageError

_STORE = "experiments.sqlite"
# Seeds are 64-bit integers in torch and in the store; this leaves room to count up from the first.
_MOST = 2**31 - 1


def add_arguments(parser: argparse.ArgumentParser, *, runs: bool = True) -> None:
    parser.add_argument("name", type=_name, metavar="NAME", help=f"the experiment: {', '.join(names())}")
    parser.add_argument(
        "--preset",
        default="quick",
        help="how much to run: quick, paper, or one more that `benign list` shows (default: %(default)s)",
    )
    parser.add_argument("--seeds", type=positive, metavar="N", help="how many seeds (default: the preset's)")
    parser.add_argument("--seed", type=not_negative, metavar="S", help="the first seed, 0 if not given; alone: only it")
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        dest="assignments",
        metavar="KEY=VALUE",
        help="set a field of every configuration; may be repeated. `benign list experiments` shows the fields",
    )
    parser.add_argument("--out", type=Path, default=Path("out"), help="folder of all results (default: %(default)s)")
    if runs:
        parser.add_argument("--jobs", type=positive, metavar="N", help="processes (default: one a core)")


def plan_of(arguments: argparse.Namespace) -> Plan:
    """What the arguments ask for, every part of it checked."""
    experiment = get(arguments.name)
    try:
        values = overrides.parse(experiment.config, arguments.assignments)
        overrides.check(experiment.config, values)
        return Plan.of(experiment, arguments.preset, overrides=values, seeds=_seeds(arguments))
    except ValueError as error:
        raise UsageError(str(error)) from None


def store_of(arguments: argparse.Namespace) -> Store:
    try:
        return Store(arguments.out / _STORE)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--out: got {str(arguments.out)!r}, expected a folder to write to: {reason}") from None


def run_missing(plan: Plan, store: Store, arguments: argparse.Namespace) -> runner.Outcome:
    """Runs the trials that the store does not hold; raises if one of them failed."""
    try:
        outcome = runner.run(plan, store, jobs=arguments.jobs)
    except KeyboardInterrupt:
        kept = len(plan.tasks()) - len(store.missing(plan.tasks()))
        say(f"stopped: {kept} of {len(plan.tasks())} trials are kept; the same command goes on from there")
        raise
    if outcome.ran or outcome.errors:
        say(f"ran {outcome.ran} trials in {outcome.seconds:.1f} s, {outcome.kept} were there before: {store.path}")
    if outcome.errors:
        raise RuntimeError(runner.failure(outcome))
    return outcome


def say(line: str) -> None:
    """For the person at the terminal: standard output is left to results."""
    print(line, file=sys.stderr, flush=True)


def command_line(arguments: argparse.Namespace, command: str, plan: Plan) -> str:
    """The command that makes the same again, with what was left to defaults said."""
    words = ["benign", command, arguments.name, "--preset", plan.preset]
    words += ["--seed", str(plan.seeds[0]), "--seeds", str(len(plan.seeds))]
    for assignment in arguments.assignments:
        words += ["--set", assignment]
    return shlex.join(words)


def result_path(arguments: argparse.Namespace, plan: Plan) -> Path:
    """Where files of this plan go, without the suffix; with --set they get a name of their own."""
    parts = [arguments.name, plan.preset, *arguments.assignments]
    return Path(arguments.out) / "-".join(part.replace("=", "_").replace("/", "_") for part in parts)


def _seeds(arguments: argparse.Namespace) -> list[int] | None:
    if arguments.seeds is None:
        return None if arguments.seed is None else [arguments.seed]
    first = arguments.seed or 0
    return list(range(first, first + arguments.seeds))


def _name(text: str) -> str:
    if text not in names():
        raise argparse.ArgumentTypeError(suggestion("experiment", text, names()))
    return text


def positive(text: str) -> int:
    return _integer(text, 1)


def not_negative(text: str) -> int:
    return _integer(text, 0)


def _integer(text: str, least: int) -> int:
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if value < least:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an integer ≥ {least}")
    if value > _MOST:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected an integer ≤ {_MOST}")
    return value
