"""Trials in batches, in this process or in several.

Each worker has a pipe of its own: a worker that dies is noticed and named, and one whose parent dies – however – reads
the end of its pipe and goes.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, wait
from typing import Any, cast

import torch

from .records import check_record
from .registry import Task

Trial = Callable[[Any, int], Mapping[str, Any]]
Trials = Callable[[Sequence[Any], Sequence[int]], Sequence[Mapping[str, Any]]]
Batch = tuple[Task, ...]
_GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Result:
    """A trial that was run: its record, or the traceback of what it raised."""

    task: Task
    record: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None


@dataclass(frozen=True)
class Code:
    """What computes trials: one alone, and, where there is such a function, many in one call."""

    trial: Trial
    trials: Trials | None = None


def attempt(code: Code, batch: Batch) -> list[Result]:
    """Runs the trials of a batch; where it raises, each alone, so that one that cannot be done stops no other."""
    if code.trials is not None and len(batch) > 1:
        began = time.perf_counter()
        try:
            records = code.trials([task.config for task in batch], [task.seed for task in batch])
            seconds = (time.perf_counter() - began) / len(batch)
            return [Result(task, check_record(record), seconds) for task, record in zip(batch, records, strict=True)]
        except Exception:
            pass  # the trial it is due to raises again
    return [_attempt_one(code.trial, task) for task in batch]


def _attempt_one(trial: Trial, task: Task) -> Result:
    began = time.perf_counter()
    try:
        record = check_record(trial(task.config, task.seed))
    except Exception:
        return Result(task, error=traceback.format_exc())
    return Result(task, record, time.perf_counter() - began)


def run(code: Code, batches: Sequence[Batch], jobs: int) -> Generator[list[Result], None, None]:
    """The results in the order in which they come; the workers are gone when this ends, whatever ended it."""
    jobs = min(jobs, len(batches))
    threads = max(1, torch.get_num_threads() // jobs)
    waiting = list(reversed(batches))
    busy: dict[Connection, Batch] = {}
    workers = []
    try:
        for _ in range(jobs):
            process, pipe = _start(code, threads)
            workers.append((process, pipe))
            busy[pipe] = _send(pipe, waiting.pop())
        while busy:
            for ready in wait(list(busy)):
                pipe = cast(Connection, ready)
                yield _receive(pipe, busy.pop(pipe))
                if waiting:
                    busy[pipe] = _send(pipe, waiting.pop())
    finally:
        for process, pipe in workers:
            pipe.close()
            process.terminate()
        for process, _ in workers:
            process.join(_GRACE_SECONDS)
            if process.is_alive():
                process.kill()
                process.join()


def _send(pipe: Connection, batch: Batch) -> Batch:
    try:
        pipe.send(batch)
    except ConnectionError:
        raise _died(batch) from None
    return batch


def _receive(pipe: Connection, batch: Batch) -> list[Result]:
    try:
        results: list[Result] = pipe.recv()
    except (EOFError, ConnectionError):
        raise _died(batch) from None
    return results


def _died(batch: Batch) -> RuntimeError:
    task, others = batch[0], len(batch) - 1
    return RuntimeError(
        f"a worker process died (out of memory?) while it ran {task.config} with seed {task.seed}"
        f"{f' and {others} trials more' if others else ''}; "
        f"what was finished is kept, and fewer jobs need less memory"
    )


def _start(code: Code, threads: int) -> tuple[Any, Connection]:
    # Not forked: the threads of torch's pools do not survive a fork.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, code, threads), daemon=True)
    with _interrupt_ignored():
        process.start()
    there.close()  # so that the end of the worker is the end of the pipe
    return process, here


@contextmanager
def _interrupt_ignored() -> Iterator[None]:
    """A process started here inherits that Ctrl-C, which a terminal sends to all, is the parent's affair."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _work(pipe: Connection, code: Code, threads: int) -> None:
    torch.set_num_threads(threads)
    try:
        while True:
            pipe.send(attempt(code, pipe.recv()))
    except (EOFError, ConnectionError):
        pass  # the parent has gone, or needs no more
