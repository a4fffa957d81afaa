"""Figures of records: lines of means with bands over seeds, as SVG for the report and as PDF or PNG."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .claims import interval
from .records import Records

FORMATS = ("svg", "pdf", "png")
#: Distinguishable in grey and by the colour-blind.
COLOURS = ("#1b4965", "#2a9d8f", "#8ab17d", "#e9a03b", "#d1603d", "#8e3b5e", "#5c5c5c")
#: What a legend or caption calls the bands of `line`.
BAND = "mean and 95 % interval over seeds"
_SIZE = (6.4, 4.0)
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "lines.linewidth": 1.7,
    "lines.markersize": 4.0,
}


@dataclass(frozen=True)
class Figure:
    """``draw(axes, records)`` draws on matplotlib axes, and returns False where there is nothing to draw."""

    name: str
    title: str
    caption: str
    draw: Callable[[Any, Records], bool] = field(repr=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", self.name):
            raise ValueError(f"name: got {self.name!r}, expected small letters, digits and underscores")


def line(
    axes: Any,
    records: Records,
    x: str,
    measure: str,
    *,
    label: str | None,
    colour: str,
    floor: float | None = None,
    **style: Any,
) -> None:
    """The mean of ``measure`` against the configuration's ``x``, and its Student-t interval over seeds as a band.

    ``floor``: what both are raised to, for logarithmic axes.
    """
    groups = records.groups(x)
    if not groups:
        return
    least = -math.inf if floor is None else floor
    points = []
    for group in groups.values():
        values = group.column(measure)
        mean = float(np.mean(values))
        low, high = interval("student", values, 0.95) if len(values) > 1 else (mean, mean)
        points.append([max(value, least) for value in (mean, low, high)])
    means, lows, highs = zip(*points, strict=True)
    axes.plot(list(groups), means, **{"marker": "o", "color": colour, "label": label, **style})
    axes.fill_between(list(groups), lows, highs, color=colour, alpha=0.18, linewidth=0)


def curve(axes: Any, xs: Sequence[float], ys: Sequence[float], *, label: str | None, colour: str, **style: Any) -> None:
    """A closed form, dashed and without marks, so that it is not taken for a measurement."""
    axes.plot(xs, ys, **{"color": colour, "label": label, "linestyle": "--", "linewidth": 1.1, **style})


def render(figure: Figure, records: Records, kind: str) -> bytes | None:
    """The drawn figure as a file of that kind; None where there is nothing to draw."""
    if kind not in FORMATS:
        raise ValueError(f"format: got {kind!r}, expected one of {', '.join(map(repr, FORMATS))}")
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure as Canvas

    with matplotlib.rc_context({**_STYLE, "svg.hashsalt": figure.name}):
        canvas = Canvas(figsize=_SIZE, layout="constrained")
        FigureCanvasAgg(canvas)
        axes = canvas.add_subplot()
        if figure.draw(axes, records) is False:
            return None
        axes.set_title(figure.title)
        buffer = io.BytesIO()
        # No date: the same records give the same file.
        canvas.savefig(buffer, format=kind, dpi=160, metadata=_NO_DATE[kind])
    return buffer.getvalue()


_NO_DATE: dict[str, dict[str, None]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}, "png": {}}


def write(figure: Figure, records: Records, path: Path, kind: str) -> bool:
    """Writes the figure; False where there is nothing to draw."""
    content = render(figure, records, kind)
    if content is None:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return True


def inline_svg(figure: Figure, records: Records) -> str | None:
    """The figure as an <svg> element to stand in an HTML page: no prologue, no namespaces, ids of its own."""
    content = render(figure, records, "svg")
    if content is None:
        return None
    svg = content.decode()
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    svg = re.sub(r'\sxmlns(:\w+)?="[^"]*"', "", svg).replace("xlink:href", "href")
    prefix = f"{figure.name}-"
    svg = re.sub(r'\bid="([^"]+)"', rf'id="{prefix}\1"', svg)
    svg = re.sub(r"url\(#([^)]+)\)", rf"url(#{prefix}\1)", svg)
    svg = re.sub(r'href="#([^"]+)"', rf'href="#{prefix}\1"', svg)
    return svg.strip()
