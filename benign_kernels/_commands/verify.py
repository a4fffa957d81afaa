"""Test the claims of an experiment, after running the trials that are missing.

Exit status: 0 no claim fails (some may be undecided, and questions are answered either way), 1 a claim fails, 2 wrong
usage, 3 trials could not be run.

examples:
  benign verify chen21
  benign verify chen21 --preset paper --seeds 20   more seeds decide more
"""

from __future__ import annotations

import argparse

from ..experiments import claims
from . import _experiment

#: 1 says that a claim fails, and nothing else.
ERROR_STATUS = 3


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _experiment.add_arguments(parser)


def main(arguments: argparse.Namespace) -> int:
    plan = _experiment.plan_of(arguments)
    with _experiment.store_of(arguments) as store:
        _experiment.run_missing(plan, store, arguments)
        records = store.load(plan)
    verdicts = [claims.judge(claim, records) for claim in plan.experiment.claims]
    print(claims.table(verdicts))
    count = claims.count(verdicts)
    print("\n" + ", ".join(f"{n} {outcome}" for outcome, n in count.items()))
    return 1 if count[claims.FAILS] else 0
