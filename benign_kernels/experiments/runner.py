"""Runs the trials that a store does not hold yet, in this process or in several, each kept as soon as it is done."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

from . import _workers
from .registry import Experiment, Plan, Task
from .store import Store

Progress = Callable[[Task], None]


@dataclass
class Outcome:
    """What a run did: how many trials it ran, how many were kept before, and the errors of those that failed."""

    ran: int = 0
    kept: int = 0
    seconds: float = 0.0
    errors: list[tuple[Task, str]] = field(default_factory=list)


def run(plan: Plan, store: Store, *, jobs: int | None = None, progress: bool | None = None) -> Outcome:
    """Runs what is missing of ``plan``; with ``jobs`` > 1 in as many processes.

    Interrupting loses the trials in flight only (of each process one, or one batch where the experiment computes trials
    together): the same call goes on where it was stopped. A trial that raises is reported in ``errors`` and does not
    stop the others. ``progress=None`` shows a bar on a terminal only.

    >>> import tempfile, pathlib
    >>> from benign_kernels import experiments
    >>> small = {"d": 40, "tests": 10, "iterations": 10}
    >>> plan = experiments.Plan.of(experiments.get("chen21"), overrides=small, seeds=[0])
    >>> with tempfile.TemporaryDirectory() as folder, Store(pathlib.Path(folder) / "trials.sqlite") as store:
    ...     first, second = run(plan, store, jobs=1), run(plan, store, jobs=1)
    >>> first.ran == second.kept == len(plan.tasks())
    True
    """
    tasks = plan.tasks()
    todo = store.missing(tasks)
    jobs = default_jobs() if jobs is None else jobs
    if jobs < 1:
        raise ValueError(f"jobs: got {jobs}, expected an integer ≥ 1")
    outcome, began = Outcome(kept=len(tasks) - len(todo)), time.perf_counter()
    code, batches = _batches(plan.experiment, todo)
    several = min(jobs, len(batches)) > 1
    found = _workers.run(code, batches, jobs) if several else _here(code, batches)
    # Closed here and not when it is collected: the workers are gone before an interruption is told of.
    with closing(found), _bar(plan, len(tasks), outcome.kept, progress) as advance:
        for result in chain.from_iterable(found):
            if result.error is not None:
                outcome.errors.append((result.task, result.error))
            else:
                store.put(plan.experiment, result.task, result.record, result.seconds)
                outcome.ran += 1
            advance()
    outcome.seconds = time.perf_counter() - began
    return outcome


def default_jobs() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _batches(experiment: Experiment, tasks: list[Task]) -> tuple[_workers.Code, list[tuple[Task, ...]]]:
    together = experiment.together
    if together is None:
        return _workers.Code(experiment.trial), [(task,) for task in tasks]
    return _workers.Code(experiment.trial, together.trials), together.batches(tasks)


def _here(code: _workers.Code, batches: list[tuple[Task, ...]]) -> Generator[list[_workers.Result], None, None]:
    for batch in batches:
        yield _workers.attempt(code, batch)


@contextmanager
def _bar(plan: Plan, total: int, done: int, wanted: bool | None) -> Iterator[Callable[[], None]]:
    """A progress bar with the time left; none where nobody looks, or where rich is not installed."""
    if wanted is None:
        wanted = sys.stderr.isatty()
    progress: Any = None
    if wanted and done < total:
        try:
            from rich import progress as bars
            from rich.console import Console
        except ImportError:
            wanted = False
        else:
            progress = bars.Progress(
                bars.TextColumn("{task.description}"),
                bars.BarColumn(),
                bars.MofNCompleteColumn(),
                bars.TimeElapsedColumn(),
                bars.TextColumn("left"),
                bars.TimeRemainingColumn(elapsed_when_finished=False),
                console=Console(stderr=True, force_terminal=True),
                transient=True,
            )
    if progress is None:
        yield lambda: None
        return
    with progress:
        task = progress.add_task(f"{plan.experiment.name} {plan.preset}", total=total, completed=done)
        yield lambda: progress.advance(task)


def failure(outcome: Outcome) -> str:
    """The failed trials of a run in a sentence and the first one's traceback."""
    task, error = outcome.errors[0]
    return f"{len(outcome.errors)} trials failed; the first, {task.config} with seed {task.seed}:\n{error.rstrip()}"
