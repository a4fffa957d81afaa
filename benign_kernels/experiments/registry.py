"""What an experiment is, and which there are."""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
import importlib
import json
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ._code_version import code_version
from .claims import Claim
from .figures import Figure

#: Name and summary; the module of the same name has the ``EXPERIMENT``, and is imported when it is asked for.
_EXPERIMENTS = {
    "chen21": "benign overfitting in adversarially robust linear classification (Chen, Cao, Gu)",
    "wang24": "benign overfitting in adversarial training of neural networks (Wang, Zhang, Arora)",
}

#: Where a fact about an experiment comes from.
MARKS = {"s": "stated by the paper, or by reviews and notes of it", "c": "our choice", "d": "derived"}


@dataclass(frozen=True)
class Fact:
    """One sentence about data, model or training, with its mark: a key of ``MARKS``."""

    text: str
    mark: str

    def __post_init__(self) -> None:
        if self.mark not in MARKS:
            raise ValueError(f"mark: got {self.mark!r}, expected one of {', '.join(map(repr, MARKS))}")


@dataclass(frozen=True)
class Preset:
    """How much to run: configurations by the name of their sweep, each with ``seeds`` seeds."""

    summary: str
    sweeps: Mapping[str, tuple[Any, ...]]
    seeds: int


@dataclass(frozen=True)
class Together:
    """Trials that one call computes: ``trials(configs, seeds)`` returns for each pair the record of ``trial``.

    Trials whose configurations have the same ``shape(config)`` go together, at most ``most(config)`` of them.
    ``trials`` is a function of its module, as ``trial`` is.
    """

    trials: Callable[[Sequence[Any], Sequence[int]], Sequence[Mapping[str, Any]]]
    shape: Callable[[Any], Hashable]
    most: Callable[[Any], int]

    def batches(self, tasks: Sequence[Task]) -> list[tuple[Task, ...]]:
        """The tasks in the order in which their batches fill: what comes first in ``tasks`` is computed early."""
        full: list[tuple[Task, ...]] = []
        filling: dict[Hashable, list[Task]] = {}
        for task in tasks:
            batch = filling.setdefault(self.shape(task.config), [])
            batch.append(task)
            if len(batch) >= self.most(task.config):
                full.append(tuple(batch))
                batch.clear()
        return full + [tuple(batch) for batch in filling.values() if batch]


@dataclass(frozen=True)
class Experiment:
    """A paper's experiments: a pure trial, what to run, what to draw, and what is claimed.

    ``config`` is a frozen dataclass; ``trial(config, seed)`` returns a record (names to numbers, truth values, strings
    or lists of them), depends on nothing else and is a function of its module, so that other processes can import it.
    ``version`` is raised when something outside that module changes what a trial measures; a change of the trial's own
    code is noticed without that. ``together`` computes many trials in one call, where that is faster.
    """

    name: str
    title: str
    reference: str
    config: type
    trial: Callable[[Any, int], Mapping[str, Any]]
    presets: Mapping[str, Preset]
    figures: tuple[Figure, ...] = ()
    claims: tuple[Claim, ...] = ()
    facts: tuple[Fact, ...] = ()
    version: int = 1
    together: Together | None = None

    def __post_init__(self) -> None:
        if not dataclasses.is_dataclass(self.config) or not self.config.__dataclass_params__.frozen:  # type: ignore[attr-defined]
            raise TypeError(f"config: got {self.config!r}, expected a frozen dataclass")
        for kind, names in (("claim", [c.name for c in self.claims]), ("figure", [f.name for f in self.figures])):
            if len(set(names)) < len(names):
                raise ValueError(f"{kind}s: {self.name} has two of the same name among {', '.join(names)}")

    @property
    def code(self) -> str:
        """Version of what a trial computes: ``version`` and a hash of the trial's code."""
        return f"{self.version}-{code_version(self.trial)}"

    def key(self, config: Any, seed: int) -> str:
        """What a trial is stored under: the same for the same configuration, seed and code."""
        parts = [self.name, self.code, dataclasses.asdict(config), seed]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True)
class Task:
    """One trial to run."""

    key: str
    config: Any
    seed: int


@dataclass(frozen=True)
class Plan:
    """A preset of an experiment, with the fields that the user has set and the seeds asked for.

    >>> from benign_kernels import experiments
    >>> plan = experiments.Plan.of(experiments.get("chen21"), "quick", overrides={"iterations": 10}, seeds=[0])
    >>> plan.tasks()[0].config.iterations
    10
    """

    experiment: Experiment
    preset: str
    sweeps: Mapping[str, tuple[Any, ...]]
    seeds: tuple[int, ...]

    @classmethod
    def of(
        cls,
        experiment: Experiment,
        preset: str = "quick",
        *,
        overrides: Mapping[str, Any] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> Plan:
        chosen = experiment.presets.get(preset)
        if chosen is None:
            raise ValueError(suggestion("preset", preset, list(experiment.presets)))
        changed = dict(overrides or {})
        sweeps = {
            name: tuple(dict.fromkeys(dataclasses.replace(config, **changed) for config in configs))
            for name, configs in chosen.sweeps.items()
        }
        return cls(experiment, preset, sweeps, tuple(range(chosen.seeds) if seeds is None else seeds))

    def configs(self) -> list[Any]:
        """Every configuration once."""
        return list(dict.fromkeys(config for configs in self.sweeps.values() for config in configs))

    def tasks(self) -> list[Task]:
        """Every trial, seed by seed: a run that is cut short has whole sweeps."""
        configs, experiment = self.configs(), self.experiment
        return [Task(experiment.key(config, seed), config, seed) for seed in self.seeds for config in configs]


def names() -> list[str]:
    """The experiments there are."""
    return list(_EXPERIMENTS)


def summary(name: str) -> str:
    """An experiment in a line."""
    return _EXPERIMENTS[name]


def get(name: str) -> Experiment:
    """The experiment of that name.

    >>> from benign_kernels import experiments
    >>> experiments.get("chen21").config().n
    50
    """
    if name not in _EXPERIMENTS:
        raise ValueError(suggestion("experiment", name, names()))
    experiment = importlib.import_module(f"{__package__}.{name}").EXPERIMENT
    assert isinstance(experiment, Experiment)
    return experiment


def suggestion(what: str, given: str, accepted: Sequence[str]) -> str:
    """The sentence for a name that does not exist: what came, what is accepted, and what may have been meant."""
    near = difflib.get_close_matches(given, accepted, n=1, cutoff=0.5)
    meant = f" – did you mean {near[0]!r}?" if near else ""
    return f"{what}: got {given!r}, expected one of {', '.join(map(repr, accepted))}{meant}"
