"""Run an experiment: every trial that is not kept yet, each kept as soon as it is done.

Stopping it, with Ctrl-C or kill -9, loses only the trials in flight: the same command goes on from there. Where an
experiment computes many trials in one call, these are in flight together.

examples:
  benign run chen21                                the preset quick, on all cores
  benign run wang24 --preset paper --jobs 4        the reference sizes
  benign run chen21 --set loss=exponential         another loss in every configuration
"""

from __future__ import annotations

import argparse

from . import _experiment


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _experiment.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    plan = _experiment.plan_of(arguments)
    with _experiment.store_of(arguments) as store:
        outcome = _experiment.run_missing(plan, store, arguments)
        print(f"{plan.experiment.name} {plan.preset}: {outcome.ran} trials run, {outcome.kept} kept from before")
    for command in ("verify", "report"):
        print(f"  {_experiment.command_line(arguments, command, plan)}")
    return 0
