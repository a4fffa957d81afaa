"""Trials in several processes.

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
_GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Result:
    """A trial that was run: its record, or the traceback of what it raised."""

    task: Task
    record: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    error: str | None = None


def attempt(trial: Trial, task: Task) -> Result:
    """Runs one trial; an exception becomes part of the result."""
    began = time.perf_counter()
    try:
        record = check_record(trial(task.config, task.seed))
    except Exception:
        return Result(task, error=traceback.format_exc())
    return Result(task, record, time.perf_counter() - began)


def run(trial: Trial, tasks: Sequence[Task], jobs: int) -> Generator[Result, None, None]:
    """The results in the order in which they come; the workers are gone when this ends, whatever ended it."""
    jobs = min(jobs, len(tasks))
    threads = max(1, torch.get_num_threads() // jobs)
    waiting = list(reversed(tasks))
    busy: dict[Connection, Task] = {}
    workers = []
    try:
        for _ in range(jobs):
            process, pipe = _start(trial, threads)
            workers.append((process, pipe))
            busy[pipe] = _send(pipe, waiting.pop())
        while busy:
            for ready in wait(list(busy)):
                pipe = cast(Connection, ready)
                task = busy.pop(pipe)
                yield _receive(pipe, task)
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


def _send(pipe: Connection, task: Task) -> Task:
    try:
        pipe.send(task)
    except ConnectionError:
        raise _died(task) from None
    return task


def _receive(pipe: Connection, task: Task) -> Result:
    try:
        result = pipe.recv()
    except (EOFError, ConnectionError):
        raise _died(task) from None
    assert isinstance(result, Result)
    return result


def _died(task: Task) -> RuntimeError:
    return RuntimeError(
        f"a worker process died (out of memory?) while it ran {task.config} with seed {task.seed}; "
        f"what was finished is kept, and fewer jobs need less memory"
    )


def _start(trial: Trial, threads: int) -> tuple[Any, Connection]:
    # Not forked: the threads of torch's pools do not survive a fork.
    context = multiprocessing.get_context("spawn")
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, trial, threads), daemon=True)
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


def _work(pipe: Connection, trial: Trial, threads: int) -> None:
    torch.set_num_threads(threads)
    try:
        while True:
            pipe.send(attempt(trial, pipe.recv()))
    except (EOFError, ConnectionError):
        pass  # the parent has gone, or needs no more
