"""What trials measured, as claims and figures read it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload


@dataclass(frozen=True)
class Row:
    """One trial: its configuration, its seed, and what it measured."""

    config: Any
    seed: int
    record: Mapping[str, Any]


class Records(Sequence[Row]):
    """Trials in the order of their plan, and which configurations each sweep of the plan has.

    >>> from dataclasses import make_dataclass
    >>> Config = make_dataclass("Config", ["d"], frozen=True)
    >>> rows = [Row(Config(d), seed, {"error": d / 100 + seed}) for d in (10, 20) for seed in (0, 1)]
    >>> records = Records(rows, {"dimension": (Config(10), Config(20))})
    >>> records.sweep("dimension").where(d=20).column("error")
    [0.2, 1.2]
    >>> [(d, len(group)) for d, group in records.groups("d").items()]
    [(10, 2), (20, 2)]
    """

    def __init__(self, rows: Sequence[Row], sweeps: Mapping[str, Sequence[Any]] | None = None) -> None:
        self._rows = list(rows)
        self._sweeps = dict(sweeps or {})

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> Records: ...
    def __getitem__(self, index: int | slice) -> Row | Records:
        return Records(self._rows[index], self._sweeps) if isinstance(index, slice) else self._rows[index]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    def __repr__(self) -> str:
        return f"Records({len(self)} trials)"

    def sweep(self, name: str) -> Records:
        """The trials of one sweep; none if the plan has no such sweep."""
        configs = set(self._sweeps.get(name, ()))
        return Records([row for row in self._rows if row.config in configs], self._sweeps)

    def where(self, **values: Any) -> Records:
        """The trials whose configuration has these values (fields or properties)."""
        rows = [row for row in self._rows if all(getattr(row.config, k) == v for k, v in values.items())]
        return Records(rows, self._sweeps)

    def distinct(self, field: str) -> list[Any]:
        """The values of a field or property of the configuration, in ascending order."""
        return sorted({getattr(row.config, field) for row in self._rows})

    def groups(self, *fields: str) -> dict[Any, Records]:
        """The trials by the value of a field, or by the tuple of several fields' values, in ascending order."""
        found: dict[Any, list[Row]] = {}
        for row in self._rows:
            values = tuple(getattr(row.config, field) for field in fields)
            found.setdefault(values if len(fields) > 1 else values[0], []).append(row)
        return {key: Records(found[key], self._sweeps) for key in sorted(found)}

    def column(self, name: str) -> list[float]:
        """One measured number a trial, in the order of the trials."""
        return [float(row.record[name]) for row in self._rows]

    def by_seed(self, name: str) -> dict[int, float]:
        """One measured number a seed: of a single configuration."""
        if len({row.config for row in self._rows}) > 1:
            raise ValueError(f"by_seed: the records are of several configurations, expected one ({name!r} was asked)")
        return {row.seed: float(row.record[name]) for row in self._rows}


def check_record(record: Any) -> dict[str, Any]:
    """A record holds numbers, truth values, strings, and lists of numbers, by name."""
    if not isinstance(record, Mapping):
        raise TypeError(f"record: got {type(record).__name__}, expected a mapping from names to what was measured")
    for name, value in record.items():
        if not isinstance(name, str):
            raise TypeError(f"record: got the name {name!r}, expected strings")
        numbers = value if isinstance(value, (list, tuple)) else [value]
        if not all(isinstance(number, (bool, int, float, str)) for number in numbers):
            raise TypeError(
                f"record: got {type(value).__name__} for {name!r}, expected a number, a truth value, a string, or a "
                f"list of them (tensors have .item() and .tolist())"
            )
    return dict(record)


def flat(row: Row) -> dict[str, Any]:
    """A row as one line of a table: configuration, seed, record."""
    return {**dataclasses.asdict(row.config), "seed": row.seed, **row.record}


def label(config: Any, *fields: str) -> str:
    """``d=100, loss='logistic'``: how a place in a sweep is called."""
    return ", ".join(f"{name}={_short(getattr(config, name))}" for name in fields)


def _short(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) and math.isfinite(value) else str(value)
