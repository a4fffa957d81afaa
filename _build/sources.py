"""Reads csrc/sources.txt; the format is described there."""

from __future__ import annotations

from pathlib import Path

KINDS = ("host", "simd", "cuda", "torch", "module")


def read_sources(root: Path) -> dict[str, list[str]]:
    """The sources of every kind, as sorted paths relative to `root`."""
    sources: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for kind, pattern, excluded in read_lines(root):
        matches = {path.relative_to(root).as_posix() for path in root.glob(pattern)}
        sources[kind] += sorted(matches - set(excluded))
    return sources


def read_lines(root: Path) -> list[tuple[str, str, list[str]]]:
    """The list itself: (kind, pattern, excluded files) of every line."""
    lines = []
    for number, text in enumerate((root / "csrc" / "sources.txt").read_text(encoding="utf-8").splitlines(), 1):
        words = text.split("#")[0].split()
        if not words:
            continue
        if words[0] not in KINDS or len(words) == 1 or (len(words) > 2 and (words[2] != "but" or len(words) == 3)):
            raise ValueError(
                f"csrc/sources.txt, line {number}: got {text!r}, expected '<how> <pattern> [but <file> ...]'"
            )
        lines.append((words[0], words[1], words[3:]))
    return lines
