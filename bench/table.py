"""Rows for people: one line per case, how many times longer each provider takes than ours."""

from __future__ import annotations

from collections.abc import Sequence

from bench.cases import Case
from bench.providers import OURS
from bench.rows import Row

_EXPLANATION = """\
Columns of the providers: how many times longer they take than ours (below 1: they are faster). * the best of them,
~ the 90 % interval is wider than 10 %, ! the result is wrong, so nothing was timed, - cannot run this case.
of limit: of this machine's measured limit for the dense algorithm, products or copies from memory, whichever binds;
more than 100 % where the caches hold the data or an algorithm needs less."""
#: What the floor is about: the expressions that a call of an op replaces.
_UNITS = (("s", 1.0), ("ms", 1e-3), ("µs", 1e-6))
REPLACED = ("eager", "analytic")


def duration(seconds: float | None) -> str:
    """Three digits and a unit."""
    if seconds is None:
        return "-"
    unit, size = next((pair for pair in _UNITS if seconds >= pair[1]), _UNITS[-1])
    return f"{seconds / size:.3g} {unit}"


class Table:
    """Printed line by line, as the cases are done."""

    def __init__(self, cases: Sequence[Case], providers: Sequence[str]) -> None:
        self._peers = [name for name in providers if name != OURS]
        self._case_width = max(len(case.name) for case in cases)
        self._widths = {name: max(6, len(name)) for name in self._peers}

    def header(self) -> str:
        peers = "  ".join(f"{name:>{self._widths[name]}}" for name in self._peers)
        return f"{_EXPLANATION}\n\n{'case':{self._case_width}}  {'ours':>8}  {'of limit':>8}  {peers}".rstrip()

    def line(self, case: Case, rows: Sequence[Row]) -> str:
        found = {row.provider: row for row in rows}
        ours = found.get(OURS)
        timed = [row for row in rows if row.provider != OURS and row.ratio is not None]
        best = min(timed, key=lambda row: row.ratio or 0).provider if timed else None
        cells = "  ".join(f"{self._cell(found.get(name), name == best):>{self._widths[name]}}" for name in self._peers)
        time = "-" if ours is None else duration(ours.median) if ours.correct else "wrong!"
        fraction = f"{ours.fraction:.0%}" if ours is not None and ours.fraction is not None else "-"
        return f"{case.name:{self._case_width}}  {time:>8}  {fraction:>8}  {cells}".rstrip()

    @staticmethod
    def _cell(row: Row | None, best: bool) -> str:
        if row is None:
            return "-"
        if not row.correct:
            return "!"
        if row.ratio is None or row.ratio_low is None or row.ratio_high is None:
            return duration(row.median)
        noisy = row.ratio_high > 1.1 * row.ratio_low
        return f"{row.ratio:.3g}{'~' if noisy else ''}{'*' if best else ''}"

    def memory_line(self, rows: Sequence[Row]) -> str:
        found = {row.provider: row.extra_mb for row in rows}

        def cell(name: str) -> str:
            megabytes = found.get(name)
            return "-" if megabytes is None else f"{megabytes:.0f}"

        cells = "  ".join(f"{cell(name):>{self._widths[name]}}" for name in self._peers)
        label = "  extra MB at the peak"
        return f"{label:{self._case_width}}  {cell(OURS):>8}  {'':>8}  {cells}".rstrip()


def violations(cases: Sequence[Case], rows: Sequence[Row]) -> list[str]:
    """Where ours is wrong, slower than a call may be, or slower than what it replaces, in sentences.

    Slower than what it replaces counts from n·m·d ≥ 10⁶ on (n·d for the steps), and when the whole interval says so.
    """
    found = []
    for case in cases:
        by_name = {row.provider: row for row in rows if row.case == case.name}
        ours = by_name.get(OURS)
        if ours is None:
            continue
        if not ours.correct:
            found.append(f"{case.name}: ours is wrong by {ours.error:.2g}, {ours.tolerance:.2g} is allowed")
        elif case.at_most is not None and ours.device == "cpu" and (ours.median or 0) > case.at_most:
            found.append(f"{case.name}: ours takes {duration(ours.median)}, {duration(case.at_most)} is allowed")
        faster = [row for name in REPLACED if (row := by_name.get(name)) and (row.ratio_high or 1) < 1]
        if faster and case.n * case.d * max(1, case.m) >= 10**6:
            best = min(faster, key=lambda row: row.ratio or 0)
            found.append(
                f"{case.name}: {best.provider} takes {best.ratio:.2f} [{best.ratio_low:.2f}, {best.ratio_high:.2f}]"
                " of our time"
            )
    return found


def worst(rows: Sequence[Row]) -> list[str]:
    """The case in which ours does worst against each of the replaced expressions."""
    lines = []
    for name in REPLACED:
        timed = [row for row in rows if row.provider == name and row.ratio is not None]
        if timed:
            row = min(timed, key=lambda row: row.ratio or 0)
            slower = sum((row.ratio or 0) < 1 for row in timed)
            lines.append(
                f"worst against {name}: {row.ratio:.2f} [{row.ratio_low:.2f}, {row.ratio_high:.2f}] at {row.case}"
                f" (below 1 in {slower} of {len(timed)} cases)"
            )
    return lines
