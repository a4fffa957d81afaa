"""``benign run | verify | report | export``: what they print, write and return."""

import re

import pytest
import toy_experiment

from benign_kernels import cli
from benign_kernels.experiments import Claim, Place, registry

SMALL = ["--set", "d=40", "--set", "tests=10", "--set", "iterations=20", "--seeds", "2", "--jobs", "1"]


@pytest.fixture
def toy(monkeypatch):
    """The toy experiment in place of the registered ones; the list is the claims it has."""
    claims = [toy_experiment.CLAIM]

    def get(name):
        return toy_experiment.Experiment(**{**vars(toy_experiment.make()), "name": name, "claims": tuple(claims)})

    monkeypatch.setattr("benign_kernels._commands._experiment.get", get)
    return claims


def test_run_resumes(tmp_path, capsys):
    arguments = ["chen21", *SMALL, "--out", str(tmp_path)]
    assert cli.main(["run", *arguments]) == 0
    out = capsys.readouterr().out
    assert re.match(r"chen21 quick: (\d+) trials run, 0 kept from before", out)
    assert "benign report chen21 --preset quick --seed 0 --seeds 2 --set d=40" in out
    assert cli.main(["run", *arguments]) == 0
    assert "0 trials run" in capsys.readouterr().out


def claim(name, bound, values):
    return Claim(name, "it is", "size", "<=", bound, lambda records: [Place("here", values)])


@pytest.mark.parametrize(
    ("bound", "values", "status"), [(1.0, (0.1, 0.2), 0), (0.15, (0.1, 0.2), 0), (0.0, (0.10, 0.11), 1)]
)
def test_verify_fails_only_when_a_claim_does(toy, tmp_path, capsys, bound, values, status):
    toy.append(claim("A2", bound, values))
    assert cli.main(["verify", "chen21", "--jobs", "1", "--out", str(tmp_path)]) == status
    assert "A2  it is" in capsys.readouterr().out


def test_verify_that_cannot_run_is_no_failed_claim(toy, tmp_path, capsys):
    arguments = ["verify", "chen21", "--jobs", "1", "--out", str(tmp_path), "--set", "behaviour=raises"]
    assert cli.main(arguments) == 3
    err = capsys.readouterr().err
    assert "3 trials failed" in err
    assert "this trial cannot be done" in err


def test_report_and_export(toy, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    place = ["chen21", "--out", str(tmp_path)]
    assert cli.main(["export", *place]) == 1
    assert "run `benign run chen21 --preset quick --seed 0 --seeds 3` first" in capsys.readouterr().err
    assert cli.main(["report", *place, "--jobs", "1"]) == 0
    html = (tmp_path / "chen21-quick.html").read_text(encoding="utf-8")
    assert "benign report chen21 --preset quick --seed 0 --seeds 3" in html
    assert cli.main(["export", *place, "--format", "csv", "png", "pdf", "svg"]) == 0
    assert len((tmp_path / "chen21-quick.csv").read_text().splitlines()) == 10
    for suffix in ("png", "pdf", "svg"):
        assert (tmp_path / f"chen21-quick-error.{suffix}").stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["chen12"], "experiment: got 'chen12', expected one of 'chen21', 'wang24' – did you mean 'chen21'?"),
        (
            ["chen21", "--preset", "papr"],
            "preset: got 'papr', expected one of 'quick', 'paper' – did you mean 'paper'?",
        ),
        (["chen21", "--set", "los=logistic"], "did you mean 'loss'?"),
        (["chen21", "--set", "loss=hinge"], "--set loss: got 'hinge', expected one of 'logistic', 'exponential'"),
        (["chen21", "--set", "n=0"], "--set n: got 0, expected an integer ≥ 1"),
        (["chen21", "--seeds", "0"], "got '0', expected an integer ≥ 1"),
        (["chen21", "--seed", "x"], "got 'x', expected an integer ≥ 0"),
        (["chen21", "--jobs", "-2"], "got '-2', expected an integer ≥ 1"),
        (["chen21", "--seeds", "9" * 20], f"got '{'9' * 20}', expected an integer ≤ 2147483647"),
        (["chen21", "--seed", "9" * 20], f"got '{'9' * 20}', expected an integer ≤ 2147483647"),
    ],
)
@pytest.mark.parametrize("command", ["run", "verify"])
def test_wrong_usage_exits_with_2_and_says_what_is_accepted(command, arguments, message, tmp_path, capsys):
    try:
        status = cli.main([command, *arguments, "--out", str(tmp_path)])
    except SystemExit as stop:
        status = stop.code
    assert status == 2
    assert message in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("command", [["run", "chen21"], ["export", "chen21"], ["demo"]])
def test_results_that_cannot_be_kept_are_told_before_the_work(command, tmp_path, capsys):
    (tmp_path / "file").touch()
    (tmp_path / "taken" / "experiments.sqlite").mkdir(parents=True)
    for name, reason in (("file", "File exists"), ("taken", "unable to open database file")):
        assert cli.main([*command, "--out", str(tmp_path / name)]) == 2
        err = capsys.readouterr().err
        assert f"--out: got '{tmp_path / name}', expected a folder to write to: " in err
        assert reason in err


@pytest.mark.parametrize("command", ["run", "verify", "report", "export"])
def test_help_has_examples(command, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([command, "--help"])
    assert stop.value.code == 0
    out = capsys.readouterr().out
    assert "examples:" in out
    assert f"benign {command} chen21" in out
    assert "--set KEY=VALUE" in out


def test_an_interrupted_run_says_how_to_go_on(toy, tmp_path, monkeypatch, capsys):
    def trial(config, seed):
        if seed:
            raise KeyboardInterrupt
        return {"error": 0.0}

    trial.__module__, trial.__name__ = toy_experiment.trial.__module__, "trial"
    monkeypatch.setattr("benign_kernels.experiments.runner._workers.attempt", lambda _, batch: _attempt(trial, batch))
    assert cli.main(["run", "chen21", "--jobs", "1", "--out", str(tmp_path)]) == 130
    assert "stopped: 3 of 9 trials are kept" in capsys.readouterr().err


def _attempt(trial, batch):
    from benign_kernels.experiments._workers import Result

    return [Result(task, trial(task.config, task.seed), 0.0) for task in batch]


def test_list_names_experiments_with_what_can_be_set(capsys):
    assert cli.main(["list", "experiments"]) == 0
    out = capsys.readouterr().out
    for part in (*registry.names(), "--preset paper", "--set loss=logistic", "claim T1"):
        assert part in out
