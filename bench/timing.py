"""Timing in interleaved rounds: A B C A B C, so that whatever slows the machine for a while slows them all.

Absolute times on a shared machine mean little; ratios are taken within a round, and their median is what counts.
"""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

#: A sample lasts at least so long, by repeating the call: the clock and the loop around it then cost under 0.1 %.
_SAMPLE_SECONDS = 1e-3
#: One call of this length is enough to warm up: whoever checks the result first has called once already.
_LONG_SECONDS = 0.1
#: Larger than the last-level cache of what people run this on.
_FLUSH_BYTES = 2**28
_RESAMPLES = 1000


class Clock(Protocol):
    """Seconds per call of ``repeats`` calls in a row."""

    #: Whether every call meets empty caches, and so stands alone.
    cold: bool

    def time(self, call: Callable[[], Any], repeats: int) -> float: ...


class CpuClock:
    """Wall time, or this process's processor time.

    Processor time leaves out the waiting for a CPU that others hold.  With one thread it is what a quiet machine
    shows; with more it says little, because waiting threads spin.
    """

    def __init__(self, cold: bool = False, processor_time: bool = False) -> None:
        self.cold = cold
        self._now = time.process_time if processor_time else time.perf_counter
        self._flush = torch.zeros(_FLUSH_BYTES // 4) if cold else None

    def time(self, call: Callable[[], Any], repeats: int) -> float:
        if self._flush is not None:
            self._flush.add_(1)
        begin = self._now()
        for _ in range(repeats):
            call()
        return (self._now() - begin) / repeats


class CudaClock:
    """Time between two events on the current stream, which includes waiting for Python where Python is the slower."""

    def __init__(self, cold: bool = False) -> None:
        self.cold = cold
        self._flush = torch.zeros(_FLUSH_BYTES // 4, device="cuda") if cold else None

    def time(self, call: Callable[[], Any], repeats: int) -> float:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda.synchronize()
        if self._flush is not None:
            self._flush.add_(1)
        begin.record()
        for _ in range(repeats):
            call()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) * 1e-3 / repeats


@dataclass(frozen=True)
class Effort:
    """``rounds`` at most, and about ``seconds`` in all; a provider that alone takes more than its share drops out."""

    rounds: int = 30
    seconds: float = 3.0
    least: int = 5


def interleave(
    calls: Mapping[str, Callable[[], Any]], clock: Clock, effort: Effort, first: str | None = None
) -> dict[str, list[float]]:
    """Seconds per call, one sample a round, for each provider.

    ``first`` (by default the first of ``calls``) takes part in every round, since ratios are to it; the lists of the
    others may be shorter, and belong to the first rounds.
    """
    first = next(iter(calls)) if first is None else first
    repeats = {name: _repeats(call, clock) for name, call in calls.items()}
    samples: dict[str, list[float]] = {name: [] for name in calls}
    spent = dict.fromkeys(calls, 0.0)
    share = effort.seconds / len(calls)
    collecting = gc.isenabled()
    gc.disable()
    try:
        for number in range(effort.rounds):
            least = 2 if number < 2 else effort.least
            active = [
                name
                for name in calls
                if number < 2 or spent[name] < share or (number < least and spent[name] < 3 * share)
            ]
            if not active or (active == [first] and len(calls) > 1 and number >= effort.least):
                break
            for name in calls:
                if name in active or name == first:
                    seconds = clock.time(calls[name], repeats[name])
                    samples[name].append(seconds)
                    spent[name] += seconds * repeats[name]
    finally:
        if collecting:
            gc.enable()
        gc.collect()
    return samples


def _repeats(call: Callable[[], Any], clock: Clock) -> int:
    """How often to call per sample; finding out warms the provider up."""
    seconds = clock.time(call, 1)
    if seconds < _LONG_SECONDS:
        seconds = min(seconds, clock.time(call, 1))
    if clock.cold or seconds >= _SAMPLE_SECONDS:
        return 1
    count = math.ceil(_SAMPLE_SECONDS / max(seconds, 1e-8))
    return max(1, math.ceil(_SAMPLE_SECONDS / max(clock.time(call, count), 1e-8)))


@dataclass(frozen=True)
class Summary:
    median: float
    q10: float
    q90: float


def summary(samples: Sequence[float]) -> Summary:
    q10, median, q90 = (float(value) for value in np.quantile(samples, (0.1, 0.5, 0.9)))
    return Summary(median, q10, q90)


@dataclass(frozen=True)
class Ratio:
    """A median of per-round ratios and its 90 % bootstrap interval."""

    value: float
    low: float
    high: float

    @property
    def noisy(self) -> bool:
        return self.high > 1.1 * self.low


def ratio(samples: Sequence[float], base: Sequence[float]) -> Ratio:
    """How many times longer ``samples`` took than ``base``, over the rounds in which both took part."""
    pairs = np.array([sample / other for sample, other in zip(samples, base, strict=False)])
    drawn = np.random.default_rng(0).integers(len(pairs), size=(_RESAMPLES, len(pairs)))
    low, high = np.quantile(np.median(pairs[drawn], axis=1), (0.05, 0.95))
    return Ratio(float(np.median(pairs)), float(low), float(high))
