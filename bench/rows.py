"""Results as JSON lines, one per (case, provider, hardware, threads, clock, cold): a new row replaces the old one."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path


@dataclass(frozen=True)
class Row:
    """Times in seconds: of the wall, or where ``clock`` is "processor", of the process; "event", between CUDA events.

    ``ratio``: how many times longer than ours, the median over rounds with its 90 % interval.

    ``fraction``: of the ``limit`` ("fma", "copy") of the dense algorithm; above 1 where an algorithm needs less.
    ``error``: relative to float64, over the tolerance it is a wrong result, and then there are no times.
    """

    case: str
    provider: str
    error: float
    tolerance: float
    median: float | None = None
    q10: float | None = None
    q90: float | None = None
    rounds: int = 0
    ratio: float | None = None
    ratio_low: float | None = None
    ratio_high: float | None = None
    fraction: float | None = None
    limit: str = ""
    limit_seconds: float | None = None
    extra_mb: float | None = None
    device: str = "cpu"
    hardware: str = ""
    simd: str = ""
    threads: int = 1
    clock: str = "wall"
    cold: bool = False
    driver: str | None = None
    clock_mhz: int | None = None
    memory_clock_mhz: int | None = None
    load: float = 0.0
    torch: str = ""
    revision: str = ""
    date: str = ""
    command: str = ""

    @property
    def key(self) -> tuple[object, ...]:
        return (self.case, self.provider, self.hardware, self.threads, self.clock, self.cold)

    @property
    def correct(self) -> bool:
        return self.error <= self.tolerance


_FIELDS = {field.name for field in fields(Row)}


def read(path: str | Path) -> list[Row]:
    rows = []
    for number, line in enumerate(Path(path).read_text().splitlines(), start=1):
        try:
            values = json.loads(line)
            rows.append(Row(**{name: value for name, value in values.items() if name in _FIELDS}))
        except (ValueError, TypeError, AttributeError) as error:
            raise ValueError(f"{path}, line {number}: not a row of results ({error})") from error
    return rows


def write(path: str | Path, rows: Iterable[Row]) -> None:
    """Adds the rows to the file, in place of those with the same key."""
    target = Path(path)
    known = {row.key: row for row in read(target)} if target.exists() else {}
    known.update((row.key, row) for row in rows)
    target.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(_rounded(asdict(row)), ensure_ascii=False) for _, row in sorted(known.items(), key=_order)]
    target.write_text("".join(f"{line}\n" for line in lines))


def _order(item: tuple[tuple[object, ...], Row]) -> tuple[str, ...]:
    return tuple(map(str, item[0]))


def _rounded(values: dict[str, object]) -> dict[str, object]:
    """Four digits are more than a timing has; what is infinite or not a number is none of JSON's."""
    return {
        name: (float(f"{value:.4g}") if abs(value) < 1e300 else 1e300) if isinstance(value, float) else value
        for name, value in values.items()
        if value is not None
    }
