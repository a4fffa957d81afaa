"""The claims of chen21."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

from ... import theory
from ..claims import Claim, Place
from ..records import Records, label
from .predictions import predicted, turning_dimension

_AXES = ("d", "exponent")


def _all_fit(records: Records) -> Iterator[Place]:
    for group in records.sweep("dimension").groups(*_AXES).values():
        if group[0].config.d >= 200:
            yield Place(label(group[0].config, *_AXES), tuple(group.column("train_error")))


def _rise(records: Records) -> Iterator[Place]:
    """Robust risk at the largest d less that at the first d of the sweep past the formula's turning point."""
    for exponent, group in records.sweep("dimension").groups("exponent").items():
        if exponent >= 0.25:
            continue
        first = next((d for d in group.distinct("d") if d >= turning_dimension(group[0].config)), math.inf)
        last = group.distinct("d")[-1]
        if last > first:
            before, after = (group.where(d=d).by_seed("robust_risk") for d in (first, last))
            rises = tuple(after[seed] - before[seed] for seed in after if seed in before)
            yield Place(f"exponent={exponent:g}, d={first:g} to {last}", rises)


def _fall(records: Records) -> Iterator[Place]:
    """Robust risk above the noise, where d is largest."""
    for exponent, group in records.sweep("dimension").groups("exponent").items():
        if exponent > 0.25:
            group = group.where(d=group.distinct("d")[-1])
            excess = tuple(risk - group[0].config.noise_rate for risk in group.column("robust_risk"))
            yield Place(label(group[0].config, *_AXES), excess)


def _distance(measure: str, which: int, sign: int) -> Callable[[Records], Iterator[Place]]:
    def places(records: Records) -> Iterator[Place]:
        for group in records.sweep("dimension").groups(*_AXES).values():
            formula = predicted(group[0].config)[which]
            differences = tuple(sign * (value - formula) for value in group.column(measure))
            yield Place(label(group[0].config, *_AXES), differences)

    return places


def _above_bayes(records: Records) -> Iterator[Place]:
    """Sampled robust test error, three standard errors of the sampling added, less the bound."""
    for group in records.sweep("budget").groups("ratio").values():
        config = group[0].config
        least = float(theory.bayes_error(config.signal, noise_rate=config.noise_rate, budget=config.budget))
        slack = 3 * math.sqrt(least * (1 - least) / config.tests)
        yield Place(label(config, "ratio"), tuple(e + slack - least for e in group.column("test_robust_error")))


def _gap(records: Records) -> Iterator[Place]:
    for config in dict.fromkeys(row.config for row in records):
        group = [row for row in records if row.config == config]
        where = label(config, *_AXES, "budget", "loss")
        yield Place(where, tuple(float(row.record["attack_gap"]) for row in group))


_FORMULA = "formula: η + (1−2η)Φ(−M), and (1−η)Φ(ε−M) + ηΦ(ε+M), M that of the averaging classifier"


def _near_formula(name: str, kind: str, measure: str, which: int, *, above: bool) -> Claim:
    side = "above" if above else "below"
    return Claim(
        name,
        f"The {kind} test error is at most .06 {side} the formula",
        f"{kind} test error − formula" if above else f"formula − {kind} test error",
        "<=",
        0.06,
        _distance(measure, which, 1 if above else -1),
        mark="d",
        note=_FORMULA,
    )


CLAIMS = (
    Claim(
        "T1",
        "Training fits every label, the flipped ones too, once d ≥ 200",
        "training error",
        "<=",
        0.0,
        _all_fit,
        interval="range",
    ),
    Claim(
        "T2",
        "Where r < ¼ the adversarial risk rises with d",
        "rise of the robust risk",
        ">=",
        0.0,
        _rise,
        note="risk of the whole population, exact for the θ found; from where the formula's M begins to fall (d)",
    ),
    Claim(
        "T3",
        "Where r > ¼ the adversarial risk falls to the noise η",
        "robust risk − η at the largest d",
        "<=",
        0.01,
        _fall,
        note="how near to η counts as falling to it, .01, is our choice (c)",
    ),
    _near_formula("T4a", "robust", "test_robust_error", 1, above=True),
    _near_formula("T4b", "robust", "test_robust_error", 1, above=False),
    _near_formula("T4c", "clean", "test_error", 0, above=True),
    _near_formula("T4d", "clean", "test_error", 0, above=False),
    Claim(
        "T5",
        "No robust test error is below the Bayes bound",
        "robust test error + 3 s.e. − bound",
        ">=",
        0.0,
        _above_bayes,
        mark="d",
        interval="range",
        note="bound: η + (1−2η) min(½, Φ(ε−‖μ‖)), for every classifier; s.e.: of as many test samples",
    ),
    Claim(
        "T6",
        "PGD on the identity network finds the inner maximum in closed form",
        "gap in units of ε‖θ‖",
        "<=",
        0.01,
        _gap,
        mark="d",
        interval="range",
        note="float32 rounds f to about u‖x‖‖θ‖: 1e-4 of ε‖θ‖ where ε = .1 and d = 20000",
    ),
)
