"""The figures of wang24."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..figures import BAND, COLOURS, Figure, curve, line
from ..records import Records
from . import predictions
from .trials import Config

_ROBUST, _TRAIN, _CLEAN, _BOUND = COLOURS[4], COLOURS[0], COLOURS[1], COLOURS[5]
Draw = Callable[[Any, Records], bool]


def _errors(axes: Any, records: Records, x: str, *, train: bool = True) -> None:
    line(axes, records, x, "test_robust_error", label="robust test error", colour=_ROBUST)
    if train:
        line(axes, records, x, "train_robust_error", label="robust training error", colour=_TRAIN, marker="s")
    line(axes, records, x, "test_error", label="clean test error", colour=_CLEAN, marker="^")


def _theory(axes: Any, configs: Sequence[Config], x: str, colour: str = _ROBUST) -> None:
    """The yardstick and the Bayes bound, which both go by the configuration."""
    at = [getattr(config, x) for config in configs]
    yardstick = [predictions.robust(config) for config in configs]
    curve(axes, at, yardstick, label="averaging classifier, robust", colour=colour)
    least = [predictions.bayes(config) for config in configs]
    axes.fill_between(at, 0, least, color="0.92", linewidth=0, label="no classifier is here (Bayes)")


def _between(config: Config, field: str, low: float, high: float) -> list[Config]:
    """The configuration with many values of one field."""
    changes: list[dict[str, Any]] = [{field: float(value)} for value in np.linspace(low, high, 200)]
    return [dataclasses.replace(config, **change) for change in changes]


def _draw_budget(axes: Any, records: Records) -> bool:
    records = records.sweep("budget")
    if not len(records):
        return False
    _errors(axes, records, "ratio")
    name = "certified: no attack exceeds this"
    line(axes, records, "ratio", "test_certified_error", label=name, colour=_BOUND, marker="", linestyle=":")
    top = records.distinct("ratio")[-1]
    _theory(axes, _between(records[0].config, "ratio", 0, top), "ratio")
    axes.set(xlabel="budget α / ‖μ‖", ylabel="error", xlim=(-0.01, top + 0.01), ylim=(-0.02, 1.02))
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=3)
    return True


def _draw_plain(axes: Any, records: Records) -> bool:
    records = records.sweep("plain")
    for way, name, colour in ((True, "adversarial training", _ROBUST), (False, "plain training", _TRAIN)):
        rows = records.where(adversarial=way)
        line(axes, rows, "ratio", "test_robust_error", label=f"{name}, robust test error", colour=colour)
        name = f"{name}, robust training error"
        line(axes, rows, "ratio", "train_robust_error", label=name, colour=colour, marker="s", linestyle=":")
    if not len(records):
        return False
    _theory(axes, _between(records[0].config, "ratio", 0, records.distinct("ratio")[-1]), "ratio")
    axes.set(xlabel="budget α / ‖μ‖", ylabel="error", ylim=(-0.02, 1.02))
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return True


def _draw_dimension(sweep: str, top: float) -> Draw:
    def draw(axes: Any, records: Records) -> bool:
        records = records.sweep(sweep)
        if not len(records):
            return False
        _errors(axes, records, "d")
        _theory(axes, [rows[0].config for rows in records.groups("d").values()], "d")
        axes.set(xscale="log", xlabel="dimension d", ylabel="error", ylim=(-0.02, top))
        axes.legend(loc="upper left")
        return True

    return draw


def _draw_signal(axes: Any, records: Records) -> bool:
    records = records.sweep("signal")
    if not len(records):
        return False
    _errors(axes, records, "signal")
    low, high = records.distinct("signal")[0], records.distinct("signal")[-1]
    _theory(axes, _between(records[0].config, "signal", low, high), "signal")
    axes.set(xlabel="signal ‖μ‖", ylabel="error", ylim=(-0.02, 0.72))
    axes.legend()
    return True


def _draw_condition(axes: Any, records: Records) -> bool:
    groups = records.sweep("condition").groups("m")
    for colour, (m, group) in zip(COLOURS[::2], groups.items(), strict=False):
        line(axes, group, "load", "interpolation", label=f"m = {m}", colour=colour, floor=0.5)
    if not groups:
        return False
    iterations = next(iter(groups.values()))[0].config.iterations
    axes.axhline(iterations, color="0.6", linewidth=0.9, linestyle=":", label="end of training")
    axes.set(xscale="log", yscale="log", xlabel="n‖μ‖² / d", ylabel="iterations until every point is robustly fitted")
    axes.legend()
    return True


def _draw_noise(axes: Any, records: Records) -> bool:
    records = records.sweep("noise")
    if not len(records):
        return False
    _errors(axes, records, "noise_rate")
    top = records.distinct("noise_rate")[-1]
    _theory(axes, _between(records[0].config, "noise_rate", 0, top), "noise_rate")
    axes.set(xlabel="label noise β", ylabel="error", ylim=(-0.02, 0.82))
    axes.legend(loc="upper left")
    return True


def _draw_activation(axes: Any, records: Records) -> bool:
    records = records.sweep("activation")
    groups = records.groups("phi_name")
    for colour, mark, (name, group) in zip(COLOURS, "os^Dv", groups.items(), strict=False):
        line(axes, group, "ratio", "test_robust_error", label=name, colour=colour, marker=mark)
    if not groups:
        return False
    _theory(axes, _between(records[0].config, "ratio", 0, records.distinct("ratio")[-1]), "ratio", "0.3")
    axes.set(xlabel="budget α / ‖μ‖", ylabel="robust test error", ylim=(-0.02, 1.02))
    axes.legend(title="φ, with its slope below 0")
    return True


def _draw_width(axes: Any, records: Records) -> bool:
    groups = records.sweep("width").groups("ratio")
    for colour, (ratio, group) in zip((_CLEAN, _ROBUST), groups.items(), strict=False):
        name = f"α = {ratio:g}‖μ‖"
        line(axes, group, "m", "test_robust_error", label=f"{name}, robust test error", colour=colour)
        name = f"{name}, robust training error"
        line(axes, group, "m", "train_robust_error", label=name, colour=colour, marker="s", linestyle=":")
        level = [predictions.robust(rows[0].config) for rows in group.groups("m").values()]
        curve(axes, group.distinct("m"), level, label=None, colour=colour)
    if not groups:
        return False
    curve(axes, [], [], label="averaging classifier, robust", colour="0.3")
    least = predictions.bayes(group[0].config)
    axes.axhspan(0, least, color="0.92", linewidth=0, label="no classifier is here (Bayes)")
    axes.set(xscale="log", xlabel="width m", ylabel="error", ylim=(-0.02, 0.82))
    axes.legend(ncols=2, loc="upper center")
    return True


def _draw_images(axes: Any, records: Records) -> bool:
    records = records.sweep("images")
    if not len(records):
        return False
    _errors(axes, records, "ratio")
    axes.set(xlabel="budget α / ‖μ‖", ylabel="error", ylim=(-0.02, 1.02))
    axes.legend()
    return True


def _draw_phase(axes: Any, records: Records) -> bool:
    """Robust test error as colours; the lines are where theory has a coin's error."""
    records = records.sweep("phase")
    if not len(records):
        return False
    from matplotlib import colormaps
    from matplotlib.colors import BoundaryNorm

    ratios, dimensions = records.distinct("ratio"), records.distinct("d")
    groups = records.groups("d", "ratio")
    mean = [[_mean(groups.get((d, ratio))) for ratio in ratios] for d in dimensions]
    colours = colormaps["YlOrRd"]
    # Few colours: more of them, and the colour bar would be drawn as an image.
    levels = BoundaryNorm([i / 20 for i in range(21)], colours.N)
    edges = _edges(ratios), np.exp(_edges([math.log(d) for d in dimensions]))
    cells = axes.pcolormesh(*edges, mean, cmap=colours, norm=levels, edgecolors="face", linewidth=0.3)
    bar = axes.figure.colorbar(cells, ax=axes, label="robust test error", ticks=[0, 0.25, 0.5, 0.75, 1])
    bar.minorticks_off()
    fine = np.geomspace(dimensions[0], dimensions[-1], 100)
    margins = [predictions.margin(dataclasses.replace(records[0].config, d=int(d))) for d in fine]
    name = "α = M, the averaging classifier's margin"
    curve(axes, [M / records[0].config.signal for M in margins], list(fine), label=name, colour="0.1")
    axes.axvline(1, color="0.1", linewidth=1.1, linestyle=":", label="α = ‖μ‖: no classifier beats a coin beyond")
    low, high = edges[0][[0, -1]]
    axes.set(yscale="log", xlabel="budget α / ‖μ‖", ylabel="dimension d", xlim=(low, high))
    axes.figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return True


def _mean(rows: Records | None) -> float:
    return float(np.mean(rows.column("test_robust_error"))) if rows is not None else float("nan")


def _edges(centres: Sequence[float]) -> Any:
    """Half-way between neighbours, and as far beyond the outer ones."""
    middle = (np.asarray(centres[1:]) + np.asarray(centres[:-1])) / 2 if len(centres) > 1 else np.array([])
    first, last = (middle[0], middle[-1]) if len(middle) else (centres[0] - 0.05, centres[0] + 0.05)
    return np.concatenate([[2 * centres[0] - first], middle, [2 * centres[-1] - last]])


FIGURES = (
    Figure(
        "budget",
        "Errors against the attacker's budget",
        f"Trained and attacked at the same α; ‖μ‖ = 7, d = 5000; {BAND}. The true robust error lies between PGD's and "
        "the certified one. Dashed: the averaging classifier in closed form. Grey: below the Bayes bound.",
        _draw_budget,
    ),
    Figure(
        "phase",
        "Where overfitting is benign: robust test error by budget and dimension",
        "Means over seeds, ‖μ‖ = 7.",
        _draw_phase,
    ),
    Figure(
        "plain",
        "Plain and adversarial training, attacked at the same budget",
        f"‖μ‖ = 7, d = 5000; {BAND}.",
        _draw_plain,
    ),
    Figure(
        "dimension",
        "Errors against dimension, ‖μ‖ = 7 and α = .4‖μ‖",
        f"{BAND[0].upper()}{BAND[1:]}. Dashed: the averaging classifier in closed form.",
        _draw_dimension("dimension", 1.02),
    ),
    Figure(
        "benign",
        "Errors against dimension, ‖μ‖ = d^¼ and α = .1‖μ‖",
        f"The regime that theory calls benign; {BAND}.",
        _draw_dimension("benign", 0.42),
    ),
    Figure("signal", "Errors against ‖μ‖, α = .2‖μ‖", f"d = 5000; {BAND}.", _draw_signal),
    Figure(
        "condition",
        "Is d ≥ C n‖μ‖² a real condition?",
        f"Iterations until PGD from the point misses no training point, d = 1000, α = .1‖μ‖; {BAND}.",
        _draw_condition,
    ),
    Figure("noise", "Errors against label noise, α = .2‖μ‖", f"‖μ‖ = 7, d = 5000; {BAND}.", _draw_noise),
    Figure("activation", "Robust test error by activation", f"‖μ‖ = 7, d = 5000; {BAND}.", _draw_activation),
    Figure("width", "Errors against width", f"‖μ‖ = 7, d = 5000; {BAND}.", _draw_width),
    Figure(
        "images",
        "Real images of two classes",
        f"‖μ‖ is half the distance of the classes' means; {BAND}.",
        _draw_images,
    ),
)
