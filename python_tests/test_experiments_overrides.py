"""``--set key=value`` against the configuration: what is wrong is named, with what is accepted."""

from dataclasses import dataclass
from typing import Literal

import pytest
import toy_experiment

from benign_kernels import experiments
from benign_kernels.experiments import overrides


@dataclass(frozen=True)
class Config:
    size: int = 1
    rate: float = 0.5
    exact: bool = False
    kind: Literal["plain", "robust"] = "plain"
    limit: float | None = None
    name: str = ""
    odd: tuple[int, ...] = ()


def test_values_get_their_fields_types():
    given = ["size=3", "rate=1e-3", "exact=yes", "kind=robust", "limit=none", "name=a=b"]
    expected = {"size": 3, "rate": 0.001, "exact": True, "kind": "robust", "limit": None, "name": "a=b"}
    assert overrides.parse(Config, given) == expected
    assert overrides.parse(Config, ["limit=2"]) == {"limit": 2.0}


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("size", r"--set: got 'size', expected key=value, as in --set size=…"),
        ("sise=3", r"--set key: got 'sise', expected one of 'size', 'rate', .* – did you mean 'size'\?"),
        ("size=3.5", "--set size: got '3.5', expected an integer"),
        ("rate=fast", "--set rate: got 'fast', expected a number"),
        ("exact=perhaps", "--set exact: got 'perhaps', expected true or false"),
        ("kind=robst", r"--set kind: got 'robst', expected one of 'plain', 'robust' – did you mean 'robust'\?"),
        ("odd=1", "--set odd: is of type .*, which the command line cannot set"),
    ],
)
def test_errors_name_key_value_and_what_is_accepted(assignment, message):
    with pytest.raises(ValueError, match=message):
        overrides.parse(Config, [assignment])


def test_a_key_comes_once():
    with pytest.raises(ValueError, match="'size' twice"):
        overrides.parse(Config, ["size=1", "size=2"])


def test_the_configuration_judges_too():
    with pytest.raises(ValueError, match="--set size: got -1, expected an integer ≥ 0"):
        overrides.check(toy_experiment.Config, {"size": -1})


def test_a_plan_takes_what_was_set_and_repeats_nothing():
    plan = experiments.Plan.of(toy_experiment.make(), overrides={"size": 7}, seeds=[4])
    assert [(task.config.size, task.seed) for task in plan.tasks()] == [(7, 4)]
    with pytest.raises(ValueError, match="preset: got 'quik', expected one of 'quick' – did you mean 'quick'"):
        experiments.Plan.of(toy_experiment.make(), "quik")
    with pytest.raises(ValueError, match=r"experiment: got 'chen', expected one of .*'chen21'"):
        experiments.get("chen")


def test_an_experiment_is_checked():
    @dataclass
    class Loose:
        size: int = 1

    fields = {"name": "x", "title": "", "reference": "", "trial": toy_experiment.trial, "presets": {}}
    with pytest.raises(TypeError, match="expected a frozen dataclass"):
        experiments.Experiment(config=Loose, **fields)
    with pytest.raises(ValueError, match="claims: x has two of the same name"):
        experiments.Experiment(config=Config, claims=(toy_experiment.CLAIM, toy_experiment.CLAIM), **fields)
    with pytest.raises(ValueError, match="mark: got 'x', expected one of 's', 'c', 'd'"):
        experiments.Fact("text", "x")
    with pytest.raises(ValueError, match="name: got 'a b', expected small letters"):
        experiments.Figure("a b", "", "", lambda axes, records: True)
