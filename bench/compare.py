"""Compares two files of results; exits with 1 when ours has lost against eager torch.

    python bench/compare.py old.json new.json [--tolerance 0.1]

What is compared is the ratio to eager on the same machine and threads, not the time: it survives another day's load.
A loss counts when even the favourable end of the new ratio's interval is below the old ratio by more than the
tolerance.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.append(str(Path(__file__).resolve().parents[1]))

from bench.providers import OURS
from bench.rows import Row, read
from bench.table import duration

BASELINE = "eager"


def regressions(old: list[Row], new: list[Row], tolerance: float) -> tuple[list[str], list[str]]:
    """The table's lines, and the sentences about what has become worse."""
    before = {row.key: row for row in old}
    lines, losses = [], []
    for row in new:
        known = before.get(row.key)
        if row.provider == OURS and not row.correct:
            losses.append(f"{row.case}: ours is wrong by {row.error:.2g}, {row.tolerance:.2g} is allowed")
        if known is None or row.provider != BASELINE:
            continue
        if row.ratio is None or row.ratio_high is None or known.ratio is None:
            continue
        change = row.ratio / known.ratio - 1
        lost = row.ratio_high < known.ratio * (1 - tolerance)
        verdict = "worse" if lost else "better" if change > tolerance else ""
        lines.append(f"{row.case:56} {known.ratio:8.2f} {row.ratio:8.2f} {change:+8.0%}  {verdict}".rstrip())
        if lost:
            losses.append(f"{row.case}: {known.ratio:.2f} times as fast as {BASELINE} before, {row.ratio:.2f} now")
    missing = {row.key for row in old if row.provider == OURS} - {row.key for row in new}
    lines += [f"{key[0]:56} not measured in the new file" for key in sorted(missing, key=str)]
    return lines, losses


def _times(rows: list[Row]) -> str:
    ours = [row for row in rows if row.provider == OURS]
    slowest = max(ours, key=lambda row: row.median or 0, default=None)
    return f"{len(ours)} cases" + (f", the longest {duration(slowest.median)}" if slowest else "")


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--tolerance", type=float, default=0.1, help="relative loss that is let pass (default 0.1)")
    arguments = parser.parse_args(argv)
    try:
        old, new = read(arguments.old), read(arguments.new)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    lines, losses = regressions(old, new, arguments.tolerance)
    print(f"old: {arguments.old}, {_times(old)}\nnew: {arguments.new}, {_times(new)}\n")
    print(f"{'times as fast as ' + BASELINE:56} {'old':>8} {'new':>8} {'change':>8}")
    print("\n".join(lines) if lines else "nothing in common: no case on the same hardware with as many threads")
    for loss in losses:
        print(f"regression: {loss}", file=sys.stderr)
    return 1 if losses or not lines else 0


if __name__ == "__main__":
    sys.exit(main())
