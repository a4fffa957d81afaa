"""``benign demo``: the claims that its trials speak of, a table, pictures and a page; again, it computes nothing."""

import argparse
import re

import pytest

from benign_kernels import cli
from benign_kernels._commands import demo
from benign_kernels.experiments import Plan, get

SMALL = {"n": 12, "m": 6, "tests": 30, "iterations": 5, "steps": 3, "starts": 1}


def test_the_demonstration_shows_what_was_measured(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    arguments = argparse.Namespace(out=tmp_path, seed=3, jobs=1)
    plan = Plan.of(get("wang24"), "demo", overrides=SMALL, seeds=[3, 4])
    demo.show(plan, arguments)
    first = capsys.readouterr()
    assert f"ran {len(plan.tasks())} trials" in first.err
    for claim in ("W1a", "W2b", "W3", "W10"):
        assert f"  {claim}  " in first.out
    assert "W4a" not in first.out  # no trial speaks of it
    assert len(re.findall(r"^ +[01]\.\d( +[01]\.\d{3}){5}$", first.out, re.MULTILINE)) == 12  # a line for each budget
    for name in ("budget.png", "phase.png", "plain.png", "wang24.html"):
        assert f"wrote {tmp_path / name}" in first.out
        assert (tmp_path / name).stat().st_size > 1000
    assert "benign demo --seed 3" in (tmp_path / "wang24.html").read_text(encoding="utf-8")
    demo.show(plan, arguments)
    assert capsys.readouterr() == (first.out, "")


@pytest.mark.parametrize(("option", "value"), [("--seed", "-1"), ("--seed", "1.5"), ("--jobs", "0"), ("--jobs", "x")])
def test_wrong_numbers_are_refused(option, value, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["demo", option, value, "--out", str(tmp_path)])
    assert stop.value.code == 2
    assert f"argument {option}: got '{value}', expected an integer ≥ " in capsys.readouterr().err


@pytest.mark.slow
def test_the_demonstration_as_it_is(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert demo.main(argparse.Namespace(out=tmp_path, seed=0, jobs=None)) == 0
    assert "holds      W1a" in capsys.readouterr().out
