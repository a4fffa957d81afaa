"""Times the ops beside what they replace: correctness first, then interleaved rounds, medians and ratios.

benign bench                              the ops, the steps, the attacks and the call overhead
benign bench --case floor --check         nothing slower than the eager expression it replaces
benign bench --case 'l2_attack/*' --provider 'onednn' --provider jax
benign bench --quick                      small shapes and no compilers, in some seconds
benign bench --list                       every case, group and provider
"""

from __future__ import annotations

import argparse
import gc
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from bench import limits, machine, memory, providers, rows, table
from bench.cases import CASES, DEFAULT_GROUPS, GROUPS, ITEM_SIZE, Case, select
from bench.formulas import TOLERANCE, Oracle, make_problem
from bench.providers import OURS, Provider
from bench.rows import Row
from bench.timing import Clock, CpuClock, CudaClock, Effort, interleave, ratio, summary
from benign_kernels._commands import UsageError

#: What builds or starts too slowly for --quick.
_NOT_QUICK = frozenset({"compile", "graph", "jax", "torchattacks", "foolbox"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--case", action="append", metavar="GLOB", help="a group or a glob of case names; may be repeated")
    add("--provider", action="append", metavar="GLOB", help="providers beside ours (default: all but the slowest)")
    add("--dtype", choices=ITEM_SIZE, help="only the cases of this dtype")
    add("--device", choices=("cpu", "cuda"), help="default: cuda where there is one")
    add("--threads", type=int, metavar="N", help="CPU threads, and CPUs, for everybody (default: torch's)")
    add("--rounds", type=int, default=Effort.rounds, metavar="N", help="at most so many (default %(default)s)")
    add("--budget", type=float, metavar="SECONDS", help="of timing, over all cases (default: 3 per case)")
    add("--cold", action="store_true", help="empty the caches before every call")
    add("--processor-time", action="store_true", help="with one thread: do not count waiting for a CPU")
    add("--memory", action="store_true", help="also the peak memory of each, in a process of its own")
    add("--json", metavar="FILE", help="add the rows to this file, replacing those of the same key")
    add("--quick", action="store_true", help="small shapes, few rounds, no compilers and no libraries")
    add("--check", action="store_true", help="exit with 1 where ours is wrong or slower than it may be")
    add("--list", action="store_true", help="print the cases, groups and providers there are")


def main(arguments: argparse.Namespace) -> int:
    if arguments.list:
        print(_listing())
        return 0
    device = arguments.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device: got cuda, but torch sees no CUDA device here")
    if arguments.rounds < 1:
        raise UsageError(f"--rounds: got {arguments.rounds}, expected at least 1")
    if arguments.budget is not None and not arguments.budget > 0:
        raise UsageError(f"--budget: got {arguments.budget}, expected a positive number of seconds")
    patterns = arguments.case or (["quick"] if arguments.quick else DEFAULT_GROUPS[device])
    cases = select(patterns, arguments.dtype)
    chosen = providers.select(arguments.provider)
    if arguments.quick and arguments.provider is None:
        chosen = [provider for provider in chosen if provider.name not in _NOT_QUICK]
    threads = machine.use_threads(arguments.threads)
    if device == "cuda":
        # Some containers allow it for everything by an environment variable; here only what is named so uses it.
        torch.backends.cuda.matmul.allow_tf32 = False
    effort = Effort(
        rounds=min(arguments.rounds, 7) if arguments.quick else arguments.rounds,
        seconds=3.0 if arguments.budget is None else arguments.budget / len(cases),
    )
    if arguments.processor_time and (device == "cuda" or threads != 1):
        raise UsageError("--processor-time: needs --device cpu --threads 1, since threads that wait count as busy")
    clock: Clock = CpuClock(arguments.cold, arguments.processor_time) if device == "cpu" else CudaClock(arguments.cold)
    if arguments.json is not None:
        _check_file(arguments.json)
    kind = "event" if device == "cuda" else "processor" if arguments.processor_time else "wall"
    bench = Bench(device, threads, effort, clock, kind, arguments.memory, shlex.join(["benign", *_typed()]))
    found = bench.run(cases, chosen, arguments.json)
    problems = table.violations(cases, found)
    print("\n".join(["", *table.worst(found), *problems]))
    return 1 if arguments.check and problems else 0


def _check_file(file: str) -> None:
    """That the rows can be added to the file, found out before they are measured."""
    try:
        rows.write(file, [])
    except OSError as error:
        raise UsageError(f"--json: got {file!r}, expected a file to write to: {error.strerror}") from None
    except ValueError as error:
        raise UsageError(f"--json: {error}") from None


def _typed() -> list[str]:
    """What was typed after ``benign``, but for the file: rows end up in others."""
    words = sys.argv[2:] if sys.argv[1:2] == ["bench"] else sys.argv[1:]
    file = words.index("--json") if "--json" in words else len(words)
    return ["bench", *words[:file], *words[file + 2 :]]


def _listing() -> str:
    groups = [f"  {group:8} {sum(group in case.groups for case in CASES.values())} cases" for group in GROUPS]
    names = [f"  {name}" for name in CASES]
    about = [
        f"  {name:12} {provider.about}{'' if provider.default else '; only when named'}"
        for name, provider in providers.PROVIDERS.items()
    ]
    return "\n".join(["groups", *groups, "", "providers", *about, "", "cases", *names])


@dataclass(frozen=True)
class Bench:
    """How everything in one run of the command is measured."""

    device: str
    threads: int
    effort: Effort
    clock: Clock
    kind: str
    memory: bool
    command: str

    def run(self, cases: Sequence[Case], chosen: Sequence[Provider], file: str | None = None) -> list[Row]:
        """All cases, each printed, and its rows written, as it is done."""
        able = [
            provider for provider in chosen if any(provider.unavailable(case, self.device) is None for case in cases)
        ]
        measured = limits.measure(self.device, self.threads)
        plural = "" if self.threads == 1 else "s"
        on = f"{self.threads} thread{plural}, {machine.simd()}" if self.device == "cpu" else "CUDA"
        print(f"{machine.hardware(self.device)}; {on}; torch {torch.__version__}; {machine.revision()}")
        print(f"limits: {measured}; {self.kind} time; load average {machine.load()}")
        for provider in chosen:
            if provider not in able:
                meant = [case for case in cases if case.family in provider.families]
                reasons = sorted({provider.unavailable(case, self.device) or "" for case in meant})
                print(f"left out: {provider.name}: {', '.join(reasons) or 'none of these families'}")
        printed = table.Table(cases, [provider.name for provider in able])
        print(f"\n{printed.header()}", flush=True)
        found: list[Row] = []
        for number, case in enumerate(cases, start=1):
            self._progress(f"{number}/{len(cases)} {case.name}")
            case_rows = self.measure(case, able, measured)
            self._progress("")
            print(printed.line(case, case_rows), flush=True)
            if self.memory:
                print(printed.memory_line(case_rows), flush=True)
            if file is not None:
                rows.write(file, case_rows)
            found += case_rows
        return found

    @staticmethod
    def _progress(text: str) -> None:
        if sys.stderr.isatty():
            print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)

    def measure(self, case: Case, chosen: Sequence[Provider], measured: limits.Limits) -> list[Row]:
        """One case: who can run it, who is right, and only then how long they take."""
        problem = make_problem(case, self.device)
        oracle = Oracle(problem)
        calls: dict[str, Callable[[], Any]] = {}
        units: dict[str, float] = {}
        errors: dict[str, tuple[float, float]] = {}
        for provider in chosen:
            if provider.unavailable(case, self.device) is not None:
                continue
            tolerance = TOLERANCE[provider.precision or case.dtype]
            try:
                run = provider.build(problem)
                error = oracle.error(tuple(tensor.detach() for tensor in run.unpack(run.call())))
            except Exception as failure:  # out of memory, a compiler that is missing: the others go on
                self._report(case, provider, failure)
                if provider.name == OURS:
                    errors[provider.name] = float("inf"), tolerance
            else:
                errors[provider.name] = error, tolerance
                if error <= tolerance:
                    calls[provider.name], units[provider.name] = run.call, run.units
            self._tidy()
        samples = interleave(calls, self.clock, self.effort) if calls else {}
        samples = {name: [seconds / units[name] for seconds in times] for name, times in samples.items()}
        least, limit = measured.seconds(case)
        circumstances = self._circumstances()
        found = []
        for name, (error, tolerance) in errors.items():
            row = Row(case.name, name, error, tolerance, limit=limit, limit_seconds=least, **circumstances)
            if name in samples:
                time = summary(samples[name])
                row = replace(row, **asdict(time), rounds=len(samples[name]), fraction=least / time.median)
            if name in samples and OURS in samples:
                over = ratio(samples[name], samples[OURS])
                row = replace(row, ratio=over.value, ratio_low=over.low, ratio_high=over.high)
            if self.memory:
                row = replace(row, extra_mb=memory.extra_mb(case.name, name, self.device, self.threads))
            found.append(row)
        return found

    def _report(self, case: Case, provider: Provider, failure: Exception) -> None:
        self._progress("")
        reason = next(iter(str(failure).splitlines()), "")
        print(f"{case.name}: {provider.name} fails: {type(failure).__name__}: {reason}", flush=True)

    def _tidy(self) -> None:
        """So that what one provider held is free for the next."""
        gc.collect()
        if self.device == "cuda":
            torch.cuda.empty_cache()

    def _circumstances(self) -> dict[str, Any]:
        """What every row says about where and how it was measured."""
        return {
            "device": self.device,
            "hardware": machine.hardware(self.device),
            "simd": machine.simd(),
            "threads": self.threads,
            "clock": self.kind,
            "cold": self.clock.cold,
            **machine.accelerator(self.device),
            "load": machine.load(),
            "torch": torch.__version__,
            "revision": machine.revision(),
            "date": machine.now(),
            "command": self.command,
        }
