"""The figures of chen21."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ... import theory
from ..figures import BAND, COLOURS, Figure, curve, line
from ..records import Records
from .predictions import predicted, predicted_margin


def _draw_dimension(measure: str, which: int, name: str) -> Callable[[Any, Records], bool]:
    def draw(axes: Any, records: Records) -> bool:
        groups = records.sweep("dimension").groups("exponent")
        for colour, (exponent, group) in zip(COLOURS, groups.items(), strict=False):
            line(axes, group, "d", measure, label=f"r = {exponent:g}", colour=colour)
            configs = [rows[0].config for rows in group.groups("d").values()]
            curve(axes, [c.d for c in configs], [predicted(c)[which] for c in configs], label=None, colour=colour)
        if not groups:
            return False
        noise = next(iter(groups.values()))[0].config.noise_rate
        axes.axhline(noise, color="0.6", linewidth=0.9, linestyle=":", label="label noise η")
        curve(axes, [], [], label="closed form", colour="0.3")
        axes.set(xscale="log", xlabel="dimension d", ylabel=name, ylim=(0, 0.65))
        axes.legend(ncols=4, loc="upper center")
        return True

    return draw


def _draw_budget(axes: Any, records: Records) -> bool:
    records = records.sweep("budget")
    if not len(records):
        return False
    for measure, name, colour in (
        ("test_robust_error", "robust test error", COLOURS[4]),
        ("train_robust_error", "robust training error", COLOURS[0]),
        ("test_error", "clean test error", COLOURS[1]),
    ):
        line(axes, records, "ratio", measure, label=name, colour=colour)
    config, top = records[0].config, records.distinct("ratio")[-1]
    ratios = [top * i / 200 for i in range(201)]
    noise, budgets = {"noise_rate": config.noise_rate}, [ratio * config.signal for ratio in ratios]
    formula = theory.robust_error(predicted_margin(config), budget=budgets, **noise)
    curve(axes, ratios, formula, label="averaging classifier, closed form", colour=COLOURS[4])
    least = theory.bayes_error(config.signal, budget=budgets, **noise)
    axes.fill_between(ratios, 0, least, color="0.92", linewidth=0, label="no classifier is here (Bayes)")
    axes.set(xlabel="budget ε / ‖μ‖", ylabel="error", xlim=(-0.01, top + 0.01), ylim=(0, 1))
    axes.legend(loc="upper left")
    return True


def _draw_loss(axes: Any, records: Records) -> bool:
    records = records.sweep("loss")
    if not len(records):
        return False
    looks = ((COLOURS[4], "-", 3.2), (COLOURS[0], "--", 1.4))  # where the two agree, both are seen
    for (colour, dash, width), (loss, group) in zip(looks, records.groups("loss").items(), strict=False):
        name = f"{loss} loss, robust test error"
        line(axes, group, "exponent", "test_robust_error", label=name, colour=colour, linestyle=dash, linewidth=width)
        name = f"{loss} loss, training error"
        line(axes, group, "exponent", "train_error", label=name, colour=colour, linestyle=":", marker="s")
    axes.set(xlabel="r, where ‖μ‖ = d^r", ylabel="error", ylim=(-0.02, 0.55))
    axes.legend()
    return True


def _draw_iterations(axes: Any, records: Records) -> bool:
    groups = records.sweep("iterations").groups("exponent")
    for colour, (exponent, group) in zip(COLOURS[1::2], groups.items(), strict=False):
        line(axes, group, "iterations", "train_error", label=f"r = {exponent:g}, training error", colour=colour)
        name = f"r = {exponent:g}, robust test error"
        line(axes, group, "iterations", "test_robust_error", label=name, colour=colour, linestyle=":", marker="s")
    if not groups:
        return False
    axes.set(xscale="log", xlabel="iterations", ylabel="error", ylim=(-0.02, 0.5))
    axes.legend(ncols=2)
    return True


FIGURES = (
    Figure(
        "robust_risk",
        "Adversarial test error against dimension, ‖μ‖ = d^r",
        f"Solid: test error under PGD at ε = .1, {BAND}. Dashed: the averaging classifier in closed form. "
        "The theory's threshold is r = ¼.",
        _draw_dimension("test_robust_error", 1, "robust test error"),
    ),
    Figure(
        "clean_risk",
        "Clean test error against dimension, ‖μ‖ = d^r",
        f"Solid: test error, {BAND}. Dashed: closed form.",
        _draw_dimension("test_error", 0, "clean test error"),
    ),
    Figure(
        "budget",
        "Error against the attacker's budget",
        f"Trained and attacked at the same ε, d = 2000, r = .3; {BAND}. The grey area is below the Bayes bound.",
        _draw_budget,
    ),
    Figure(
        "loss", "Logistic and exponential loss", f"The two losses after as many steps, d = 2000; {BAND}.", _draw_loss
    ),
    Figure(
        "iterations",
        "How long training takes to fit every label, d = 200",
        f"The claim on training is made for 1000 iterations; {BAND}.",
        _draw_iterations,
    ),
)
