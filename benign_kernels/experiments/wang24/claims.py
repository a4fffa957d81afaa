"""The claims of wang24."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

from ..claims import Claim, Place
from ..records import Records, Row
from .predictions import bayes

Places = Callable[[Records], Iterable[Place]]

# What counts as a small budget, a test that fails, an error that has left the noise, a large d, a moderate width: ours.
SMALL, SMALL_FOR_IMAGES, FAILED, LEFT, LARGE_D, MODERATE = 0.3, 0.1, 0.25, 0.05, 1000, 50


# ---- values of a trial -----------------------------------------------------------------------------------------------


def _measured(name: str) -> Callable[[Row], float]:
    return lambda row: float(row.record[name])


def _from_noise(name: str) -> Callable[[Row], float]:
    """How far an error is from the label noise β."""
    return lambda row: abs(float(row.record[name]) - row.config.noise_rate)


def _above_bayes(row: Row) -> float:
    """Robust test error less the bound, three standard errors of as many test points added."""
    least = bayes(row.config)
    return float(row.record["test_robust_error"]) - least + 3 * math.sqrt(least * (1 - least) / row.config.tests)


def _robust_less_clean(row: Row) -> float:
    return float(row.record["test_robust_error"]) - float(row.record["test_error"])


# ---- places of a sweep -----------------------------------------------------------------------------------------------


def _each(sweep: str, by: str, value: Callable[[Row], float], keep: Callable[[Any], bool] = lambda _: True) -> Places:
    """The value of each trial, wherever ``by`` is one to keep."""

    def places(records: Records) -> Iterator[Place]:
        for at, group in records.sweep(sweep).groups(by).items():
            if keep(at):
                yield Place(f"{by}={at:g}", tuple(value(row) for row in group))

    return places


def _rises(sweep: str, by: str, measure: str) -> Places:
    """From each value of ``by`` to the next, seed by seed."""

    def places(records: Records) -> Iterator[Place]:
        for (low, before), (high, after) in pairwise(records.sweep(sweep).groups(by).items()):
            yield Place(f"{by}={low:g} to {high:g}", _differences(after, before, measure))

    return places


def _rise(sweep: str, by: str, measure: str, least: float) -> Places:
    """From the first value of ``by`` that is at least so much to the last, seed by seed."""

    def places(records: Records) -> Iterator[Place]:
        groups = [(at, group) for at, group in records.sweep(sweep).groups(by).items() if at >= least]
        if len(groups) > 1:
            (low, before), (high, after) = groups[0], groups[-1]
            yield Place(f"{by}={low:g} to {high:g}", _differences(after, before, measure))

    return places


def _apart(
    sweep: str, by: str, measure: str, reference: Callable[[Records], Any], keep: Callable[[Any], bool]
) -> Places:
    """How far each value of ``by`` is from the reference at the same ratio, above and below, seed by seed."""

    def places(records: Records) -> Iterator[Place]:
        for ratio, group in records.sweep(sweep).groups("ratio").items():
            there = group.groups(by)
            standard = there.pop(reference(group), Records([]))
            for at, rows in there.items():
                if keep(at):
                    differences = _differences(rows, standard, measure)
                    where = f"{at if isinstance(at, str) else f'{by}={at}'}, ratio={ratio:g}"
                    yield Place(f"{where}, above", differences)
                    yield Place(f"{where}, below", tuple(-value for value in differences))

    return places


def _differences(one: Records, other: Records, measure: str) -> tuple[float, ...]:
    """One less the other, of the seeds that both have."""
    left, right = one.by_seed(measure), other.by_seed(measure)
    return tuple(left[seed] - right[seed] for seed in left if seed in right)


def _seeds(records: Records) -> dict[int, Records]:
    seeds = dict.fromkeys(row.seed for row in records)
    return {seed: Records([row for row in records if row.seed == seed]) for seed in seeds}


def _head_start(records: Records) -> Iterator[Place]:
    """The largest ratio up to which all training points are robustly fitted, less the first at which the test fails."""
    values = []
    for rows in _seeds(records.sweep("budget")).values():
        curve = sorted(rows, key=lambda row: row.config.ratio)
        fitted = 0.0
        for row in curve:
            if row.record["train_robust_error"] > 0:
                break
            fitted = row.config.ratio
        failed = [row.config.ratio for row in curve if row.record["test_robust_error"] >= FAILED]
        if failed:
            values.append(fitted - failed[0])
    yield Place("", tuple(values))


def _slowdown(records: Records) -> Iterator[Place]:
    """log₂ of the iterations at the largest n‖μ‖²/d less that at the smallest; never counts as the end."""
    for m, group in records.sweep("condition").groups("m").items():
        loads = group.distinct("load")
        if len(loads) > 1:
            few, many = (group.where(load=load).by_seed("interpolation") for load in (loads[0], loads[-1]))
            values = tuple(math.log2(max(1.0, many[seed]) / max(1.0, few[seed])) for seed in many if seed in few)
            yield Place(f"m={m}, n‖μ‖²/d={loads[0]:.2g} to {loads[-1]:.3g}", values)


def _order_of_leaving(records: Records) -> Iterator[Place]:
    """At which β the clean error has left the noise, less at which the robust error has; if never, one step more."""
    values = []
    for rows in _seeds(records.sweep("noise")).values():
        curve = sorted(rows, key=lambda row: row.config.noise_rate)
        rates = [row.config.noise_rate for row in curve]
        never = 2 * rates[-1] - rates[-2] if len(rates) > 1 else math.inf
        clean, robust = (
            next((r.config.noise_rate for r in curve if r.record[name] - r.config.noise_rate > LEFT), never)
            for name in ("test_error", "test_robust_error")
        )
        if robust < never:
            values.append(clean - robust)
    yield Place("", tuple(values))


def _gain(records: Records) -> Iterator[Place]:
    """Robust test error after plain training less that after adversarial training, attacked alike."""
    for ratio, group in records.sweep("plain").groups("ratio").items():
        if ratio > 0:
            adversarial, plain = (group.where(adversarial=way) for way in (True, False))
            yield Place(f"ratio={ratio:g}", _differences(plain, adversarial, "test_robust_error"))


# ---- the claims ------------------------------------------------------------------------------------------------------


def _is_reference(ratio: float) -> bool:
    return math.isclose(ratio, 0.1)


_OURS = "how near is near is our choice (c)"

CLAIMS = (
    Claim(
        "W1a",
        "Adversarial training fits every training point robustly, the mislabelled ones too",
        "robust training error",
        "<=",
        0.0,
        _each("budget", "ratio", _measured("train_robust_error"), _is_reference),
        interval="range",
    ),
    Claim(
        "W1b",
        "The clean test error is at the label noise β all the same",
        "|clean test error − β|",
        "<=",
        0.02,
        _each("budget", "ratio", _from_noise("test_error"), _is_reference),
        note=_OURS,
    ),
    Claim(
        "W1c",
        "So is the robust test error, at α = ‖μ‖/10",
        "|robust test error − β|",
        "<=",
        0.03,
        _each("budget", "ratio", _from_noise("test_robust_error"), _is_reference),
        note=_OURS,
    ),
    Claim(
        "W2a",
        f"The clean test error stays at β for small budgets, α ≤ {SMALL:g}‖μ‖",
        "|clean test error − β|",
        "<=",
        0.02,
        _each("budget", "ratio", _from_noise("test_error"), lambda ratio: ratio <= SMALL),
        note=_OURS,
    ),
    Claim(
        "W2b",
        "The robust test error does not fall as α grows",
        "rise from one α to the next",
        ">=",
        -0.02,
        _rises("budget", "ratio", "test_robust_error"),
        interval="range",
        note="a fall by less than .02 counts as none (c)",
    ),
    Claim(
        "W2c",
        "From α = ‖μ‖ on the robust test error is that of a coin, or worse",
        "robust test error",
        ">=",
        0.45,
        _each("budget", "ratio", _measured("test_robust_error"), lambda ratio: ratio > 1 - 1e-9),
    ),
    Claim(
        "W2d",
        "The robust training error is still 0 well past the budget at which the test fails",
        "(last α fitted − first α failed)/‖μ‖",
        ">=",
        0.1,
        _head_start,
        note=f"the test fails from a robust error of {FAILED:g} on; well past is a tenth of ‖μ‖ (c)",
    ),
    Claim(
        "W3",
        "No robust test error is below the Bayes bound",
        "robust test error + 3 s.e. − bound",
        ">=",
        0.0,
        _each("budget", "ratio", _above_bayes),
        mark="d",
        interval="range",
        note="bound: β + (1−2β) min(½, Φ(α−‖μ‖)), for every classifier; s.e.: of as many test points",
    ),
    Claim(
        "W4a",
        "At fixed ‖μ‖ and α the robust test error rises with d once d is large",
        "rise of the robust test error",
        ">=",
        0.1,
        _rise("dimension", "d", "test_robust_error", LARGE_D),
        note=f"large is d ≥ {LARGE_D}, a rise is one of .1 (c)",
    ),
    Claim(
        "W4b",
        "Where d is small training does not interpolate",
        "robust training error at the smallest d",
        ">=",
        0.01,
        lambda records: list(_each("dimension", "d", _measured("train_robust_error"))(records))[:1],
        interval="range",
    ),
    Claim(
        "W5a",
        "Where ‖μ‖ = d^¼ the clean test error stays at β as d grows",
        "|clean test error − β|",
        "<=",
        0.02,
        _each("benign", "d", _from_noise("test_error"), lambda d: d >= LARGE_D),
        note=_OURS,
    ),
    Claim(
        "W5b",
        "Where ‖μ‖ = d^¼ the robust test error stays at β, too",
        "|robust test error − β|",
        "<=",
        0.03,
        _each("benign", "d", _from_noise("test_robust_error"), lambda d: d >= LARGE_D),
        note=_OURS,
    ),
    Claim(
        "W6",
        "Does robust interpolation take longer where n‖μ‖²/d is large: is d ≥ C n‖μ‖² a real condition?",
        "log₂(iterations at the largest / at the smallest)",
        ">=",
        1.0,
        _slowdown,
        note="twice as long counts as longer (c)",
        question=True,
    ),
    Claim(
        "W7a",
        "The clean test error tracks β",
        "|clean test error − β|",
        "<=",
        0.03,
        _each("noise", "noise_rate", _from_noise("test_error")),
        note=_OURS,
    ),
    Claim(
        "W7b",
        "As β grows the robust test error leaves it before the clean one does",
        "β at which clean leaves − β at which robust does",
        ">=",
        0.01,
        _order_of_leaving,
        note=f"an error has left β when it is {LEFT:g} above (c); seeds whose robust error never leaves do not count",
    ),
    Claim(
        "W8",
        "Smooth or not, leaky or not: the curve against α has the same shape",
        "|robust test error − that of ReLU|",
        "<=",
        0.1,
        _apart("activation", "phi_name", "test_robust_error", lambda _: "ReLU", lambda _: True),
        note=_OURS,
    ),
    Claim(
        "W9",
        f"The outcome does not depend on the width m, for m ≥ {MODERATE}",
        "|robust test error − that of the largest m|",
        "<=",
        0.05,
        _apart("width", "m", "test_robust_error", lambda rows: rows.distinct("m")[-1], lambda m: m >= MODERATE),
        note=_OURS,
    ),
    Claim(
        "W10",
        "Is adversarial training better here than plain training, attacked at the same α?",
        "robust test error after plain − after adversarial training",
        ">=",
        0.0,
        _gain,
        mark="c",
        question=True,
    ),
    Claim(
        "W11a",
        "On real images training fits every point robustly",
        "robust training error",
        "<=",
        0.0,
        _each("images", "ratio", _measured("train_robust_error"), lambda ratio: ratio <= SMALL_FOR_IMAGES),
        interval="range",
        note=f"for α ≤ {SMALL_FOR_IMAGES:g}‖μ‖ (c)",
    ),
    Claim(
        "W11b",
        "On real images the robust test error is that of clean points, for small α",
        "robust − clean test error",
        "<=",
        0.02,
        _each("images", "ratio", _robust_less_clean, lambda ratio: ratio <= SMALL_FOR_IMAGES),
        note=f"for α ≤ {SMALL_FOR_IMAGES:g}‖μ‖; {_OURS}",
    ),
)
