"""Claims: sentences made falsifiable, and what the trials say of them.

A claim names what is measured, the bound it must keep, and how an interval for the measured mean is made from the
seeds. It *holds* if the whole interval keeps the bound at every place of the sweep, *fails* if at some place the whole
interval breaks it, and is *undecided* otherwise: too few seeds decide nothing. Without any trials where it speaks it is
*untested*. An open question is judged the same way, and answered *yes* or *no*: no paper is contradicted by either.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np

from .records import Records

HOLDS, FAILS, UNDECIDED, UNTESTED, YES, NO = OUTCOMES = ("holds", "fails", "undecided", "untested", "yes", "no")
INTERVALS = {
    "student": "Student-t interval of the mean over seeds",
    "bootstrap": "percentile bootstrap of the mean over seeds",
    "range": "least to greatest over seeds: no seed may break the bound",
}
_RELATIONS = ("<=", ">=")
_RESAMPLES = 20_000


@dataclass(frozen=True)
class Place:
    """Where a claim is tested, a point of a sweep, and the number measured there by each seed."""

    where: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Claim:
    """``measure`` is ``relation`` ``bound`` at each of ``places(records)``; ``mark`` says whose claim it is.

    With several places their intervals hold together: each is made at confidence 1 − (1 − confidence)/places.
    ``note`` tells the reader what the numbers behind the bound are. ``question``: ``sentence`` is what was asked.
    """

    name: str
    sentence: str
    measure: str
    relation: str
    bound: float
    places: Callable[[Records], Iterable[Place]] = field(repr=False)
    mark: str = "s"
    interval: str = "student"
    confidence: float = 0.95
    note: str = ""
    question: bool = False

    def __post_init__(self) -> None:
        for what, given, accepted in (
            ("relation", self.relation, _RELATIONS),
            ("interval", self.interval, tuple(INTERVALS)),
            ("mark", self.mark, ("s", "c", "d")),
        ):
            if given not in accepted:
                raise ValueError(f"{what}: got {given!r}, expected one of {', '.join(map(repr, accepted))}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence: got {self.confidence}, expected a number between 0 and 1")
        if not math.isfinite(self.bound):
            raise ValueError(f"bound: got {self.bound}, expected a finite number")


@dataclass(frozen=True)
class Verdict:
    """What the trials say of a claim: ``outcome``, and the mean and interval at the place that decides it."""

    claim: Claim
    outcome: str
    reason: str = ""
    where: str = ""
    mean: float = math.nan
    low: float = math.nan
    high: float = math.nan
    seeds: int = 0
    places: int = 0


def judge(claim: Claim, records: Records) -> Verdict:
    """Tests a claim on the records.

    >>> claim = Claim("A1", "errors are small", "error", "<=", 0.5, lambda records: [Place("d=1", (0.1, 0.2, 0.3))])
    >>> verdict = judge(claim, Records([]))
    >>> verdict.outcome, round(verdict.low, 3), round(verdict.high, 3)
    ('holds', -0.048, 0.448)
    """
    places = [place for place in claim.places(records) if place.values]
    if not places:
        return Verdict(claim, UNTESTED, "no trials where the claim speaks")
    confidence = 1 - (1 - claim.confidence) / len(places)
    sign = 1.0 if claim.relation == "<=" else -1.0
    tested = []
    for place in places:
        low, high = interval(claim.interval, place.values, confidence)
        # Upwards is bad: how far the interval's worse end, and its better end, lie beyond the bound.
        ends = sorted((sign * (low - claim.bound), sign * (high - claim.bound)))
        # In a range each seed counts; one without a value keeps it from holding, and breaks nothing.
        better, worse = (ends[1], ends[1]) if claim.interval == "range" and math.isfinite(ends[1]) else ends
        tested.append((better, worse, low, high, place))
    broken = [row for row in tested if row[0] > 0]
    better, worse, low, high, place = max(broken or tested, key=lambda row: row[0] if broken else row[1])
    mean = float(np.mean(place.values))
    good, bad = (YES, NO) if claim.question else (HOLDS, FAILS)
    outcome = bad if broken else good if worse <= 0 else UNDECIDED
    reason = ""
    if outcome == UNDECIDED:
        reason = _why_undecided(place)
    return Verdict(claim, outcome, reason, place.where, mean, low, high, len(place.values), len(places))


def _why_undecided(place: Place) -> str:
    if any(math.isnan(value) for value in place.values):
        return "a measured value is not a number"
    if len(place.values) < 2:
        return "one seed gives no interval"
    return "the bound lies within the interval: more seeds may decide"


def interval(kind: str, values: Sequence[float], confidence: float) -> tuple[float, float]:
    """The interval of a mean; from minus to plus infinity where the values tell nothing.

    >>> interval("range", [1.0, 3.0, 2.0], 0.95)
    (1.0, 3.0)
    >>> interval("student", [1.0], 0.95)
    (-inf, inf)
    """
    if kind not in INTERVALS:
        raise ValueError(f"interval: got {kind!r}, expected one of {', '.join(map(repr, INTERVALS))}")
    sample = np.asarray(values, dtype=np.float64)
    if np.isnan(sample).any() or not sample.size:
        return -math.inf, math.inf
    if kind == "range":
        return float(sample.min()), float(sample.max())
    if sample.size < 2:
        return -math.inf, math.inf
    if kind == "student":
        half = student_quantile(0.5 + confidence / 2, sample.size - 1) * sample.std(ddof=1) / math.sqrt(sample.size)
        return float(sample.mean() - half), float(sample.mean() + half)
    draws = np.random.default_rng(0).integers(0, sample.size, (_RESAMPLES, sample.size))
    low, high = np.quantile(sample[draws].mean(1), [0.5 - confidence / 2, 0.5 + confidence / 2])
    return float(low), float(high)


@lru_cache(maxsize=1024)
def student_quantile(probability: float, freedom: int) -> float:
    """Quantile of Student's t.

    >>> round(student_quantile(0.975, 4), 3), round(student_quantile(0.975, 1), 3)
    (2.776, 12.706)
    """
    if not 0.5 <= probability < 1:
        raise ValueError(f"probability: got {probability}, expected one from 0.5 up to 1")
    if freedom < 1:
        raise ValueError(f"freedom: got {freedom}, expected an integer ≥ 1")
    # With t = √ν tan θ the mass between 0 and t is c ∫₀^θ cos^(ν−1); it is inverted by bisection over θ.
    log_c = math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2) - math.log(math.pi) / 2
    nodes, weights = np.polynomial.legendre.leggauss(96)

    def mass(theta: float) -> float:
        inside = np.cos(theta * (nodes + 1) / 2) ** (freedom - 1)
        return math.exp(log_c) * theta / 2 * float(weights @ inside)

    low, high = 0.0, math.pi / 2
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if mass(middle) < probability - 0.5 else (low, middle)
    return math.sqrt(freedom) * math.tan(low)


def count(verdicts: Iterable[Verdict]) -> dict[str, int]:
    """How many verdicts have each outcome; of what is untested, and of answers to questions, if there are any."""
    counted = Counter(verdict.outcome for verdict in verdicts)
    return {outcome: counted[outcome] for outcome in OUTCOMES if counted[outcome] or outcome not in (UNTESTED, YES, NO)}


def table(verdicts: Sequence[Verdict]) -> str:
    """The verdicts as text, for a terminal."""
    lines = []
    for verdict in verdicts:
        lines.append(f"{verdict.outcome:9}  {verdict.claim.name}  {verdict.claim.sentence} ({verdict.claim.mark})")
        lines.append(
            f"           {verdict.claim.measure} {verdict.claim.relation} {verdict.claim.bound:g}: {found(verdict)}"
        )
    return "\n".join(lines)


def found(verdict: Verdict) -> str:
    """What was measured where, in a line."""
    if not verdict.places:
        return verdict.reason
    confidence = f"{verdict.claim.confidence:.0%} interval" if verdict.claim.interval != "range" else "over seeds"
    text = f"{verdict.mean:.4g}, {confidence} [{verdict.low:.4g}, {verdict.high:.4g}], {verdict.seeds} seeds"
    text += f", at {verdict.where}" if verdict.where else ""
    text += f", the worst of {verdict.places} places" if verdict.places > 1 else ""
    return f"{text}; {verdict.reason}" if verdict.reason else text
