"""The benchmark harness: its arithmetic with a fake clock, its judgement of results, its files and its command line."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

# Last in the path: the package under test stays the one that is installed.
sys.path.append(str(Path(__file__).resolve().parents[1]))

from bench import command, compare, limits, machine, providers, rows, table, timing
from bench.cases import CASES, Case, select
from bench.formulas import TOLERANCE, Oracle, make_problem
from bench.rows import Row
from benign_kernels._commands import UsageError

_SLOW_TO_BUILD = {"compile", "keops"}
_LIBRARIES = {"torchattacks", "foolbox", "cleverhans", "jax"}


# ---- timing ---------------------------------------------------------------------------------------------------------


class FakeClock:
    """Calls take as long as told; the calls are recorded."""

    cold = True

    def __init__(self, seconds: dict[str, Callable[[int], float]]) -> None:
        self.seconds = seconds
        self.order: list[str] = []

    def time(self, call: Callable[[], Any], repeats: int) -> float:
        name = call()
        self.order.append(name)
        return self.seconds[name](self.order.count(name) - 1)


def _calls(*names: str) -> dict[str, Callable[[], str]]:
    return {name: (lambda name=name: name) for name in names}  # type: ignore[misc]


def test_rounds_interleave() -> None:
    clock = FakeClock({"a": lambda k: 1.0, "b": lambda k: 2.0})
    samples = timing.interleave(_calls("a", "b"), clock, timing.Effort(rounds=4, seconds=1e9))
    assert clock.order[2:] == ["a", "b"] * 4  # after a warm-up call of each
    assert samples == {"a": [1.0] * 4, "b": [2.0] * 4}


def test_a_slow_provider_drops_out_and_the_others_go_on() -> None:
    clock = FakeClock({"ours": lambda k: 0.1, "slow": lambda k: 50.0, "quick": lambda k: 0.2})
    samples = timing.interleave(_calls("ours", "slow", "quick"), clock, timing.Effort(rounds=20, seconds=60))
    assert len(samples["slow"]) == 2
    assert len(samples["ours"]) == len(samples["quick"]) == 20


def test_ratio_survives_a_load_that_all_share() -> None:
    load = [1.0, 10.0, 3.0, 1.0, 7.0]
    found = timing.ratio([2 * slow for slow in load], load)
    assert found == timing.Ratio(2.0, 2.0, 2.0)
    assert not found.noisy
    assert timing.ratio([1.0, 4.0, 1.0, 4.0, 2.0], [1.0] * 5).noisy


def test_summary_is_median_and_deciles() -> None:
    assert timing.summary([float(k) for k in range(11)]) == timing.Summary(median=5.0, q10=1.0, q90=9.0)


def test_short_calls_are_repeated_within_a_sample() -> None:
    counted = []
    clock = timing.CpuClock()
    samples = timing.interleave({"a": lambda: counted.append(1)}, clock, timing.Effort(rounds=2, seconds=1))
    assert len(counted) > 1000
    assert 0 < samples["a"][0] < 1e-4


# ---- correctness ----------------------------------------------------------------------------------------------------


def _provided() -> list[Any]:
    found = []
    for provider in providers.PROVIDERS.values():
        for case in select(["tiny"]):
            if provider.name == providers.OURS or provider.unavailable(case, "cpu") is None:
                if provider.name in _SLOW_TO_BUILD and (case.activation, case.dtype) != ("relu", "float32"):
                    continue
                marks = [pytest.mark.slow] if provider.name in _SLOW_TO_BUILD else []
                marks += [pytest.mark.peers] if provider.name in _LIBRARIES else []
                found.append(pytest.param(provider, case, id=f"{provider.name}-{case.name}", marks=marks))
    return found


@pytest.mark.parametrize(("provider", "case"), _provided())
def test_provider_agrees_with_float64(provider: providers.Provider, case: Case) -> None:
    problem = make_problem(case)
    run = provider.build(problem)
    error = Oracle(problem).error(tuple(tensor.detach() for tensor in run.unpack(run.call())))
    assert error <= TOLERANCE[provider.precision or case.dtype]


def test_ours_can_run_everything() -> None:
    ours = providers.PROVIDERS[providers.OURS]
    assert [case.name for case in CASES.values() if ours.unavailable(case, "cpu") is not None] == []


@pytest.mark.parametrize("family", ["forward", "value_and_grad", "parameter_grad", "autograd", "l2_step", "l2_attack"])
def test_a_wrong_result_is_not_timed(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = next(case for case in select(["tiny"]) if case.family == family and case.dtype == "float64")
    eager = providers.PROVIDERS["eager"]

    def build(problem: Any) -> providers.Run:
        run = eager.build(problem)
        return providers.Run(lambda: tuple(part * 1.01 for part in run.unpack(run.call())))

    wrong = replace(eager, name="wrong", build=build)
    bench = command.Bench("cpu", 1, timing.Effort(2, 0.1), timing.CpuClock(), "wall", False, "")
    found = {row.provider: row for row in bench.measure(case, [eager, wrong], limits.Limits({case.dtype: 1.0}, 1.0))}
    assert not found["wrong"].correct
    assert found["wrong"].median is None
    assert found["eager"].correct
    assert found["eager"].median is not None


def test_a_provider_that_fails_keeps_no_other_from_running(capsys: pytest.CaptureFixture[str]) -> None:
    case = CASES["forward/relu/6x5x32/float32"]
    ours, eager = providers.PROVIDERS["ours"], providers.PROVIDERS["eager"]

    def build(problem: Any) -> providers.Run:
        raise torch.OutOfMemoryError("no memory\nand a page more")

    bench = command.Bench("cpu", 1, timing.Effort(2, 0.1), timing.CpuClock(), "wall", False, "")
    limit = limits.Limits({case.dtype: 1.0}, 1.0)
    assert [row.provider for row in bench.measure(case, [ours, replace(eager, build=build)], limit)] == ["ours"]
    assert capsys.readouterr().out == f"{case.name}: eager fails: OutOfMemoryError: no memory\n"
    failed, timed = bench.measure(case, [replace(ours, build=build), eager], limit)
    assert timed.median is not None
    assert "ours is wrong by inf" in table.violations([case], [failed, timed])[0]


def test_points_outside_the_ball_are_wrong() -> None:
    case = CASES["l2_attack/tanh/6x5x32/K3/float64"]
    problem = make_problem(case)
    problem = replace(problem, radius=0.2)
    run = providers.PROVIDERS["eager"].build(problem)
    (x,) = run.unpack(run.call())
    oracle = Oracle(problem)
    assert oracle.error((x,)) <= TOLERANCE["float64"]
    assert oracle.error((problem.x + (x - problem.x) * 1.0001,)) == float("inf")


# ---- the machine ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("script", "told"),
    [
        ("echo 580.65.06, 1980, 2619", {"driver": "580.65.06", "clock_mhz": 1980, "memory_clock_mhz": 2619}),
        ("echo 580.65.06, [N/A], [N/A]", {}),
        ("exit 9", {}),
        (None, {}),
    ],
)
def test_the_driver_and_the_clocks_are_what_nvidia_smi_tells(
    script: str | None, told: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if script is not None:
        (tmp_path / "nvidia-smi").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "nvidia-smi").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda index: SimpleNamespace(uuid="0-1"))
    assert machine.accelerator("cuda") == told
    assert machine.accelerator("cpu") == {}


# ---- files and the comparison ---------------------------------------------------------------------------------------


def _row(ratio: float, **changes: Any) -> Row:
    row = Row("forward/relu/1000x784x2048/float32", "eager", 0.0, 1.0, ratio=ratio, hardware="this", median=1.0)
    return replace(row, **{"ratio_low": ratio * 0.99, "ratio_high": ratio * 1.01, **changes})


def test_rows_replace_those_with_the_same_key(tmp_path: Path) -> None:
    path = tmp_path / "results" / "rows.json"
    rows.write(path, [_row(1.0), _row(2.0, threads=2)])
    rows.write(path, [_row(3.0)])
    assert [row.ratio for row in rows.read(path)] == [3.0, 2.0]
    assert all(json.loads(line)["case"] for line in path.read_text().splitlines())


def test_a_file_that_holds_no_rows_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"case": 1}\n')
    with pytest.raises(ValueError, match=r"rows\.json, line 1: not a row"):
        rows.read(path)


@pytest.mark.parametrize(
    ("new", "status"),
    [
        ([_row(2.0)], 0),
        ([_row(1.9)], 0),  # within the tolerance
        ([_row(5.0)], 0),
        ([_row(1.5)], 1),
        ([_row(1.5, ratio_high=1.85)], 0),  # too noisy to tell
        ([_row(1.5, threads=7)], 1),  # nothing to compare with
        ([_row(2.0), Row("forward/relu/1000x784x2048/float32", "ours", 9.0, 1.0, hardware="this")], 1),  # wrong
    ],
)
def test_compare(new: list[Row], status: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows.write(tmp_path / "old.json", [_row(2.0)])
    rows.write(tmp_path / "new.json", new)
    assert compare.main([str(tmp_path / "old.json"), str(tmp_path / "new.json")]) == status
    captured = capsys.readouterr()
    assert ("regression" in captured.err) == (status == 1 and new[0].threads == 1)


# ---- the command ----------------------------------------------------------------------------------------------------


def _run(*options: str) -> int:
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.main(parser.parse_args(options))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--case", "flor"], "nothing is named 'flor'; did you mean floor"),
        (["--case", "tiny", "--provider", "eagr"], "did you mean eager"),
        (["--case", "call", "--dtype", "float64"], "none of the chosen cases is in float64"),
        (["--threads", "0"], "--threads: got 0, expected 1 to"),
        (["--rounds", "0"], "--rounds: got 0"),
        (["--budget", "-1"], "--budget: got -1.0"),
    ],
)
def test_wrong_arguments_are_explained(options: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        _run(*options)


def test_a_file_that_cannot_take_rows_is_told_before_they_are_measured(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not rows")
    for file, message in (
        (tmp_path, r"--json: got '.*', expected a file to write to: Is a directory"),
        (tmp_path / "notes.txt" / "rows.json", r"--json: got '.*', expected a file to write to: "),
        (tmp_path / "notes.txt", r"--json: .*notes\.txt, line 1: not a row of results"),
    ):
        with pytest.raises(UsageError, match=message):
            _run("--device", "cpu", "--case", "tiny", "--json", str(file))


def test_processor_time_is_for_one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    with pytest.raises(ValueError, match="needs --device cpu --threads 1"):
        _run("--device", "cpu", "--processor-time")


@pytest.mark.skipif(torch.cuda.is_available(), reason="has a CUDA device")
def test_no_cuda_is_said() -> None:
    with pytest.raises(ValueError, match="torch sees no CUDA device"):
        _run("--device", "cuda")


def test_command_prints_and_writes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "measure", lambda device, threads: limits.Limits({"float32": 1e12}, 1e11))
    path = tmp_path / "rows.json"
    name = "forward/relu/6x5x32/float32"
    options = ["--case", name, "--provider", "eager", "--rounds", "3", "--budget", ".1", "--device", "cpu"]
    assert _run(*options, "--json", str(path)) == 0
    printed = capsys.readouterr().out
    assert "GFLOP/s" in printed
    assert name in printed
    by_name = {row.provider: row for row in rows.read(path)}
    assert by_name["eager"].rounds == 3
    assert by_name["ours"].ratio == 1.0
    assert by_name["eager"].ratio is not None


def test_list_names_everything(capsys: pytest.CaptureFixture[str]) -> None:
    assert _run("--list") == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in (*CASES, *providers.PROVIDERS))


# ---- what is reported -----------------------------------------------------------------------------------------------


def test_violations_are_sentences() -> None:
    call, large = CASES["forward/relu/4x8x16/float32"], CASES["forward/relu/1000x784x2048/float32"]
    found = table.violations(
        [call, large],
        [
            Row(call.name, "ours", 0.0, 1.0, median=9e-6),
            replace(_row(0.5), case=call.name),  # below 10⁶ products nothing is promised
            Row(large.name, "ours", 0.0, 1.0, median=1.0),
            replace(_row(0.9), case=large.name),
            replace(_row(0.995, ratio_high=1.1), case=large.name, provider="analytic"),
        ],
    )
    assert len(found) == 2
    assert "ours takes 9 µs, 8 µs is allowed" in found[0]
    assert "eager takes 0.90" in found[1]


def test_floor_covers_what_it_promises() -> None:
    floor = select(["floor"])
    assert all(case.n * case.d * max(1, case.m) >= 10**6 or case.family == "l2_step" for case in floor)
    assert {case.dtype for case in floor} == {"float32", "float64", "bfloat16"}
    assert {case.activation for case in floor} >= {"relu", "tanh"}
    assert any(case.n == 1 for case in floor)
    assert any(case.d < 5 for case in floor)
    assert any(case.m >= 50_000 for case in floor)


def test_limits_are_plausible() -> None:
    measured = limits.measure("cpu", torch.get_num_threads())
    assert all(1e8 < peak < 1e15 for peak in measured.flops.values())
    assert 1e8 < measured.copy < 1e13
    case = CASES["forward/relu/1000x784x2048/float32"]
    assert measured.seconds(case)[0] >= 2 * 1000 * 784 * 2048 / measured.flops["float32"]
