"""Microbenchmarks of single calls, by pytest-benchmark; not collected by the project's test run.

    pytest bench/test_micro.py

The two limits on the cost of a call are asserted on the minimum, which another process's load does not reach.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from pytest_benchmark.fixture import BenchmarkFixture

sys.path.append(str(Path(__file__).resolve().parents[1]))

from bench.cases import CASES, Case, select
from bench.formulas import make_problem
from bench.providers import OURS, PROVIDERS

_CALLS = 50  # short enough to fit between two switches of a busy machine


def _measure(benchmark: BenchmarkFixture, case: Case, provider: str) -> float:
    """The least seconds per call."""
    reason = PROVIDERS[provider].unavailable(case, "cpu")
    if reason is not None:
        pytest.skip(f"{provider} {reason}")
    benchmark.group = case.name
    run = PROVIDERS[provider].build(make_problem(case))
    benchmark.pedantic(run.call, rounds=200, iterations=_CALLS, warmup_rounds=5)
    assert benchmark.stats is not None
    return float(benchmark.stats.stats.min)


@pytest.mark.parametrize("provider", [OURS, "eager"])
@pytest.mark.parametrize("case", select(["call"]), ids=lambda case: case.name)
def test_call(benchmark: BenchmarkFixture, case: Case, provider: str) -> None:
    seconds = _measure(benchmark, case, provider)
    if provider == OURS and case.at_most is not None:
        assert seconds <= case.at_most


@pytest.mark.parametrize("provider", [OURS, "eager"])
@pytest.mark.parametrize("name", ["l2_step/100x1000/float32"])
def test_step(benchmark: BenchmarkFixture, name: str, provider: str) -> None:
    _measure(benchmark, CASES[name], provider)
