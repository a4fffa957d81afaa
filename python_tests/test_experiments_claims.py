"""A claim holds, fails, or is undecided – and says why."""

import math

import numpy as np
import pytest

from benign_kernels.experiments import Claim, Place, Records, judge
from benign_kernels.experiments.claims import count, interval, student_quantile, table


def claim(relation="<=", bound=1.0, interval="student", question=False, **values):
    places = [Place(where, tuple(numbers)) for where, numbers in values.items()]
    options = {"interval": interval, "question": question}
    return Claim("A1", "it is small", "size", relation, bound, lambda records: places, **options)


def verdict(*args, **kwargs):
    return judge(claim(*args, **kwargs), Records([]))


def test_three_outcomes():
    assert verdict(a=[0.1, 0.2, 0.3]).outcome == "holds"
    assert verdict(a=[1.5, 1.6, 1.7]).outcome == "fails"
    assert verdict(a=[0.1, 1.2, 0.9]).outcome == "undecided"
    assert verdict(">=", a=[1.5, 1.6, 1.7]).outcome == "holds"
    assert verdict(">=", a=[0.1, 0.2, 0.3]).outcome == "fails"


def test_a_question_is_answered_and_never_fails():
    found = [verdict(question=True, a=values) for values in ([0.1, 0.2], [1.5, 1.51], [0.1, 1.9], [0.3])]
    assert [one.outcome for one in found] == ["yes", "no", "undecided", "undecided"]
    assert count(found) == {"holds": 0, "fails": 0, "undecided": 2, "yes": 1, "no": 1}
    assert count(found[2:]) == {"holds": 0, "fails": 0, "undecided": 2}


def test_one_place_is_enough_to_fail_and_is_named():
    found = verdict(a=[0.1, 0.11, 0.12], b=[5.0, 5.1, 5.2], c=[0.9, 1.0, 1.1])
    assert (found.outcome, found.where, found.places, found.seeds) == ("fails", "b", 3, 3)


@pytest.mark.parametrize(("values", "outcome"), [([0.0, 0.0], "holds"), ([0.0, 0.02], "fails"), ([0.0], "holds")])
def test_a_range_lets_no_seed_break_the_bound(values, outcome):
    assert verdict(bound=0.0, interval="range", a=values).outcome == outcome
    assert verdict(">=", bound=0.0, interval="range", a=[-v for v in values]).outcome == outcome


def test_too_little_decides_nothing():
    assert verdict(a=[0.1]).reason == "one seed gives no interval"
    assert verdict(a=[0.1, math.nan]).reason == "a measured value is not a number"
    for kind in ("student", "range", "bootstrap"):
        assert verdict(interval=kind, a=[math.nan, 0.1]).outcome == "undecided"
    assert (verdict().outcome, verdict().reason) == ("untested", "no trials where the claim speaks")
    assert verdict(a=[]).outcome == "untested"


def test_many_places_widen_each_interval():
    one = verdict(a=[0.1, 0.2, 0.3])
    many = verdict(**{name: [0.1, 0.2, 0.3] for name in "abcdefgh"})
    assert many.high > one.high


@pytest.mark.parametrize(
    ("probability", "freedom", "expected"),  # from tables
    [(0.975, 1, 12.7062), (0.975, 2, 4.30265), (0.975, 9, 2.26216), (0.995, 30, 2.75), (0.975, 1000, 1.96234)],
)
def test_student_quantiles(probability, freedom, expected):
    assert student_quantile(probability, freedom) == pytest.approx(expected, rel=1e-5)
    assert student_quantile(0.5, freedom) == pytest.approx(0.0, abs=1e-9)


def test_intervals_cover_as_often_as_they_say():
    draws = np.random.default_rng(0).normal(3.0, 2.0, (1000, 5))
    covered = [low <= 3.0 <= high for low, high in (interval("student", row, 0.9) for row in draws)]
    assert np.mean(covered) == pytest.approx(0.9, abs=3 * math.sqrt(0.09 / 1000))
    low, high = interval("bootstrap", draws[0], 0.95)
    assert draws[0].min() <= low < draws[0].mean() < high <= draws[0].max()


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="relation: got '<', expected one of '<=', '>='"):
        claim("<")
    with pytest.raises(ValueError, match="interval: got 'normal', expected one of"):
        claim(interval="normal")
    with pytest.raises(ValueError, match="bound: got nan"):
        claim(bound=math.nan)
    with pytest.raises(ValueError, match="confidence: got 2"):
        Claim("A", "s", "m", "<=", 1.0, lambda records: [], confidence=2)


def test_the_table_says_all():
    text = table([verdict(a=[1.5, 1.6, 1.7], b=[0.0, 0.1])])
    assert "fails      A1  it is small (s)" in text
    assert "3 seeds, at a, the worst of 2 places" in text
