"""Records as tables for other programs: CSV and Parquet, one line a trial."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

from .records import Records, flat

FORMATS = ("csv", "parquet")


def write(records: Records, path: Path, kind: str) -> None:
    """Writes configuration, seed and record of each trial; the folder is made."""
    if kind not in FORMATS:
        raise ValueError(f"format: got {kind!r}, expected one of {', '.join(map(repr, FORMATS))}")
    names, columns = _columns(records)
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "csv":
        _write_csv(names, columns, path)
    else:
        _write_parquet(names, columns, path)


def _columns(records: Records) -> tuple[list[str], dict[str, list[Any]]]:
    """Names in the order of their first appearance; a name that a trial did not measure is None there."""
    rows = [flat(row) for row in records]
    names = list(dict.fromkeys(name for row in rows for name in row))
    return names, {name: [row.get(name) for row in rows] for name in names}


def _write_csv(names: list[str], columns: dict[str, list[Any]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        for line in zip(*columns.values(), strict=True):
            writer.writerow([json.dumps(value) if isinstance(value, (list, tuple)) else value for value in line])


def _write_parquet(names: list[str], columns: dict[str, list[Any]], path: Path) -> None:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise ImportError(
            "format: 'parquet' needs pyarrow, which is not installed: `pip install pyarrow`, or choose 'csv'"
        ) from None
    parquet.write_table(pyarrow.table(columns, names=None if columns else names), path)
