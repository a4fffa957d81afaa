"""Records outlive whatever ends the process: kill -9 at any moment loses at most the trial in flight."""

import ast
import csv
import os
import random
import signal
import sqlite3
import sys
import textwrap
import time

import pytest
import toy_experiment

from benign_kernels.experiments import Plan, Records, Store, export, runner
from benign_kernels.experiments._code_version import code_version
from benign_kernels.experiments.records import Row, check_record


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the processes to be killed are forked")
def test_kill_at_any_moment_loses_at_most_the_trial_in_flight(tmp_path):
    log, path = tmp_path / "begun", tmp_path / "trials.sqlite"
    log.touch()
    plan = Plan.of(toy_experiment.make(log=str(log)), seeds=range(150))
    moments = random.Random(0)
    kills = 0
    while True:
        begun_before, kept_before = log.stat().st_size, _kept(path, plan)
        child = os.fork()
        if child == 0:
            with Store(path) as store:
                runner.run(plan, store, jobs=1, progress=False)
            os._exit(0)
        time.sleep(moments.uniform(0.0, 0.06))
        os.kill(child, signal.SIGKILL)
        status = os.waitpid(child, 0)[1]
        begun, kept = log.stat().st_size - begun_before, _kept(path, plan) - kept_before
        assert begun - 1 <= kept <= begun
        kills += os.WIFSIGNALED(status)
        if kills >= 25 or _kept(path, plan) == len(plan.tasks()):
            break
    assert kills >= 5
    with Store(path) as store:
        outcome = runner.run(plan, store, jobs=1)
        assert outcome.kept + outcome.ran == len(store.load(plan)) == len(plan.tasks())
    assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)


def _kept(path, plan):
    with Store(path) as store:
        return len(store.load(plan))


def test_the_key_is_of_configuration_seed_and_code(monkeypatch):
    experiment = toy_experiment.make()
    config = toy_experiment.Config()
    keys = {experiment.key(config, 0), experiment.key(config, 1), experiment.key(toy_experiment.Config(size=2), 0)}
    assert len(keys) == 3
    assert experiment.key(config, 0) == toy_experiment.make().key(toy_experiment.Config(), 0)
    code_version.cache_clear()
    monkeypatch.setattr(toy_experiment, "FACTOR", 20)  # reached through a function that the trial calls
    assert toy_experiment.make().key(config, 0) not in keys
    code_version.cache_clear()


def test_code_version_sees_code_and_no_comments(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)

    def version(name, body):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(body))
        return code_version(__import__(name).trial)

    plain = version("first", "def trial(config, seed):\n    return {'a': 1}\n")
    same = version("second", 'def trial(config, seed):\n    """Doc."""\n    # why\n    return {"a": 1}\nOTHER = 3\n')
    other = version("third", "def trial(config, seed):\n    return {'a': 2}\n")
    table = "def f():\n    return {}\nT = {{'f': f}}\ndef trial(config, seed):\n    return T['f']()\n"
    assert plain == same != other
    assert version("fourth", table.format(1)) != version("fifth", table.format(2))
    for name in ("first", "second", "third", "fourth", "fifth"):
        del sys.modules[name]


def test_a_file_that_is_no_store_is_named(tmp_path):
    path = tmp_path / "trials.sqlite"
    path.write_text("no database at all, but long enough to be looked at" * 20)
    with pytest.raises(ValueError, match=r"store: .*trials.sqlite cannot be used"):
        Store(path)
    newer = tmp_path / "newer.sqlite"
    with sqlite3.connect(newer) as database:
        database.execute("PRAGMA user_version = 99")
    with pytest.raises(ValueError, match="format 99"):
        Store(newer)


def test_records_hold_only_what_json_can():
    with pytest.raises(TypeError, match=r"record: got object for 'a'"):
        check_record({"a": object()})
    with pytest.raises(TypeError, match="record: got list, expected a mapping"):
        check_record([1])


def test_two_stores_write_one_file(tmp_path):
    experiment = toy_experiment.make()
    plan = Plan.of(experiment)
    with Store(tmp_path / "s") as one, Store(tmp_path / "s") as two:
        for store, task in zip((one, two) * 9, plan.tasks(), strict=False):
            store.put(experiment, task, {"error": 1.0}, 0.1)
        assert len(one.load(plan)) == len(two.load(plan)) == 9
        assert one.seconds(plan) == pytest.approx(0.9)


ROWS = Records(
    [
        Row(toy_experiment.Config(size=1), 0, {"error": 0.1, "path": [1.0, 2.0], "note": "a, b"}),
        Row(toy_experiment.Config(size=2), 0, {"error": float("nan")}),
    ]
)


def test_csv(tmp_path):
    export.write(ROWS, tmp_path / "new" / "rows.csv", "csv")
    first, second = csv.DictReader((tmp_path / "new" / "rows.csv").open())
    assert (first["size"], first["error"], first["note"]) == ("1", "0.1", "a, b")
    assert ast.literal_eval(first["path"]) == [1.0, 2.0]
    assert (second["error"], second["path"]) == ("nan", "")


def test_parquet(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is not installed")
    export.write(ROWS, tmp_path / "rows.parquet", "parquet")
    table = parquet.read_table(tmp_path / "rows.parquet").to_pydict()
    assert table["size"] == [1, 2]
    assert table["path"] == [[1.0, 2.0], None]


def test_parquet_says_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match="pip install pyarrow"):
        export.write(ROWS, tmp_path / "rows.parquet", "parquet")
    with pytest.raises(ValueError, match="format: got 'xls', expected one of 'csv', 'parquet'"):
        export.write(ROWS, tmp_path / "rows.xls", "xls")
