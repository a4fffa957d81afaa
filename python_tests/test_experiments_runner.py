"""Trials run here or in other processes, resume, fail one by one, and stop cleanly."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import toy_experiment

from benign_kernels.experiments import Plan, Store, runner


def test_a_second_run_has_nothing_to_do(tmp_path):
    plan = Plan.of(toy_experiment.make())
    with Store(tmp_path / "s") as store:
        first, second = runner.run(plan, store, jobs=1), runner.run(plan, store, jobs=1)
        assert (first.ran, first.kept, second.ran, second.kept) == (9, 0, 0, 9)
        more = Plan.of(toy_experiment.make(), seeds=range(4))
        assert runner.run(more, store, jobs=1).ran == 3
        records = store.load(plan)
    assert records.where(size=2).column("error") == pytest.approx([0.2, 0.21, 0.22])
    assert [row.seed for row in records] == [0, 0, 0, 1, 1, 1, 2, 2, 2]


def test_processes_do_what_one_does(tmp_path):
    plan = Plan.of(toy_experiment.make())
    with Store(tmp_path / "one") as one, Store(tmp_path / "two") as two:
        runner.run(plan, one, jobs=1)
        assert runner.run(plan, two, jobs=2).ran == 9
        assert [row.record for row in one.load(plan)] == [row.record for row in two.load(plan)]


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_trial_that_raises_stops_no_other(tmp_path, jobs):
    plan = Plan.of(toy_experiment.make(behaviour="raises"))
    with Store(tmp_path / "s") as store:
        outcome = runner.run(plan, store, jobs=jobs)
        assert (outcome.ran, len(outcome.errors), len(store.load(plan))) == (6, 3, 6)
    text = runner.failure(outcome)
    assert "3 trials failed" in text
    assert "with seed 1" in text
    assert "this trial cannot be done" in text


@pytest.mark.parametrize("jobs", [1, 2])
def test_trials_run_together_and_are_kept_one_by_one(tmp_path, jobs):
    experiment = replace(toy_experiment.make(log=str(tmp_path / "log")), together=toy_experiment.TOGETHER)
    plan, alone = Plan.of(experiment), Plan.of(toy_experiment.make(log=str(tmp_path / "log")))
    with Store(tmp_path / "s") as store:
        assert runner.run(plan, store, jobs=jobs).ran == 9
        records = store.load(plan)
        assert [row.record for row in records] == [row.record for row in store.load(alone)]  # one key either way
        assert runner.run(Plan.of(experiment, seeds=range(4)), store, jobs=jobs).ran == 3
    assert sorted((tmp_path / "log-batches").read_text().split()) == ["2"] * 5  # 4 twos and a one; a two and a one


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_batch_does_what_it_can_where_a_trial_of_it_raises(tmp_path, jobs):
    experiment = replace(toy_experiment.make(behaviour="raises"), together=toy_experiment.TOGETHER)
    with Store(tmp_path / "s") as store:
        outcome = runner.run(Plan.of(experiment), store, jobs=jobs)
        assert (outcome.ran, {task.seed for task, _ in outcome.errors}) == (6, {1})


def test_batches_are_of_what_is_alike():
    experiment = toy_experiment.make()
    tasks = Plan.of(experiment, seeds=[0]).tasks()
    mixed = [replace(task, config=replace(task.config, exact=exact)) for task in tasks for exact in (False, True)]
    batches = toy_experiment.TOGETHER.batches(mixed)
    assert [len(batch) for batch in batches] == [2, 2, 1, 1]
    assert all(len({task.config.exact for task in batch}) == 1 for batch in batches)
    assert sorted(id(task) for batch in batches for task in batch) == sorted(map(id, mixed))


def test_a_worker_that_dies_is_named(tmp_path):
    plan = Plan.of(toy_experiment.make(behaviour="dies"))
    with Store(tmp_path / "s") as store:
        with pytest.raises(RuntimeError, match=r"a worker process died .*seed 1"):
            runner.run(plan, store, jobs=2)
        assert len(store.load(plan)) >= 2


def test_jobs_are_checked(tmp_path):
    with Store(tmp_path / "s") as store, pytest.raises(ValueError, match="jobs: got 0, expected an integer ≥ 1"):
        runner.run(Plan.of(toy_experiment.make()), store, jobs=0)


PROGRAM = """
import dataclasses, sys
import toy_experiment
from benign_kernels.experiments import Plan, Store, runner

if __name__ == "__main__":
    experiment = toy_experiment.make(behaviour="slow", log=sys.argv[2])
    if sys.argv[3] == "2":
        experiment = dataclasses.replace(experiment, together=toy_experiment.TOGETHER)
    plan = Plan.of(experiment, seeds=range(300))
    with Store(sys.argv[1]) as store:
        try:
            runner.run(plan, store, jobs=2)
        except KeyboardInterrupt:
            sys.exit(130)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals")
@pytest.mark.parametrize("together", [1, 2])
@pytest.mark.parametrize(("blow", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_several_processes_stop_cleanly_and_leave_nobody_behind(tmp_path, blow, status, together):
    log, path, program = tmp_path / "begun", tmp_path / "s", tmp_path / "program.py"
    program.write_text(PROGRAM)
    folders = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(folders)}
    arguments = [sys.executable, str(program), str(path), str(log), str(together)]
    with subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, start_new_session=True) as process:
        _wait_until(lambda: log.exists() and log.stat().st_size >= 6)
        if blow == signal.SIGINT:
            os.killpg(process.pid, blow)  # as a terminal does: to all of them
        else:
            process.send_signal(blow)
        assert process.wait(timeout=30) == status
        assert process.stderr.read() == b""  # and, as it ends here, no worker holds it any more
    begun = log.stat().st_size
    plan = Plan.of(toy_experiment.make(behaviour="slow", log=str(log)), seeds=range(300))
    with Store(path) as store:
        assert begun - 2 * together <= len(store.load(plan)) <= begun


def _wait_until(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_bar_where_somebody_looks(tmp_path, capsys):
    pytest.importorskip("rich")
    plan = Plan.of(toy_experiment.make())
    with Store(tmp_path / "s") as store:
        runner.run(plan, store, jobs=1)
        assert capsys.readouterr() == ("", "")
        runner.run(Plan.of(toy_experiment.make(), seeds=range(5)), store, jobs=1, progress=True)
    assert "toy quick" in capsys.readouterr().err
