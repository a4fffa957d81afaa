"""Where records are kept: one SQLite file, one commit a trial.

The journal is a write-ahead log and every commit is flushed, so that whatever ends the process, and whenever, leaves
the file whole and holding every trial that was put. Several processes may write to one file.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from .. import __version__
from .records import Records, Row, check_record
from .registry import Experiment, Plan, Task

_SCHEMA = """
CREATE TABLE IF NOT EXISTS trials (
    key TEXT PRIMARY KEY,          -- hash of experiment, code, configuration and seed
    experiment TEXT NOT NULL,
    code TEXT NOT NULL,            -- version of what a trial computes
    config TEXT NOT NULL,          -- JSON
    seed INTEGER NOT NULL,
    record TEXT NOT NULL,          -- JSON
    seconds REAL NOT NULL,
    finished REAL NOT NULL,        -- Unix time
    version TEXT NOT NULL          -- of benign_kernels
)
"""
_FORMAT = 1
_BUSY_SECONDS = 60.0


class Store:
    """The records of trials, in a file that is made where there is none.

    >>> import tempfile, pathlib
    >>> from benign_kernels import experiments
    >>> plan = experiments.Plan.of(experiments.get("chen21"), seeds=[0])
    >>> with tempfile.TemporaryDirectory() as folder, Store(pathlib.Path(folder) / "trials.sqlite") as store:
    ...     len(store.missing(plan.tasks())) == len(plan.tasks())
    True
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        # isolation_level=None: a statement is its own transaction.
        try:
            self._db = sqlite3.connect(self.path, timeout=_BUSY_SECONDS, isolation_level=None)
            try:
                self._open()
            except sqlite3.Error:
                self._db.close()
                raise
        except sqlite3.Error as error:
            raise ValueError(f"store: {self.path} cannot be used as a store of trials: {error}") from None

    def _open(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute(_SCHEMA)
        found = self._db.execute("PRAGMA user_version").fetchone()[0]
        if found > _FORMAT:
            raise sqlite3.DatabaseError(f"it has format {found}, this version of benign_kernels reads up to {_FORMAT}")
        self._db.execute(f"PRAGMA user_version = {_FORMAT}")

    def close(self) -> None:
        self._db.close()

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def put(self, experiment: Experiment, task: Task, record: Mapping[str, Any], seconds: float) -> None:
        """Keeps the record of one trial; on return it is on the disk."""
        self._db.execute(
            "INSERT OR REPLACE INTO trials VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(task.key, experiment.name, experiment.code, _json(dataclasses.asdict(task.config)), task.seed),
                *(_json(check_record(record)), seconds, time.time(), __version__),
            ),
        )

    def missing(self, tasks: Iterable[Task]) -> list[Task]:
        """The trials that are not kept yet, in their order."""
        kept = {key for (key,) in self._db.execute("SELECT key FROM trials")}
        return [task for task in tasks if task.key not in kept]

    def load(self, plan: Plan) -> Records:
        """The records of a plan's trials, as far as they are kept, in the plan's order."""
        kept = self._columns(plan, "record")
        rows = [Row(task.config, task.seed, json.loads(kept[task.key])) for task in plan.tasks() if task.key in kept]
        return Records(rows, plan.sweeps)

    def seconds(self, plan: Plan) -> float:
        """How long the plan's trials took together, as far as they are kept."""
        kept = self._columns(plan, "seconds")
        return sum(kept[task.key] for task in plan.tasks() if task.key in kept)

    def versions(self, plan: Plan) -> list[str]:
        """The versions of benign_kernels that made the plan's records."""
        kept = self._columns(plan, "version")
        return sorted({kept[task.key] for task in plan.tasks() if task.key in kept})

    def _columns(self, plan: Plan, column: str) -> dict[str, Any]:
        query = f"SELECT key, {column} FROM trials WHERE experiment = ? AND code = ?"
        return dict(self._db.execute(query, (plan.experiment.name, plan.experiment.code)))


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
