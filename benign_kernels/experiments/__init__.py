"""The experiments of papers on benign and robust overfitting, as code that can be run, resumed and falsified.

An experiment (`registry.Experiment`) is a frozen dataclass of one trial's configuration, presets that list
configurations, a pure function ``trial(config, seed) -> record``, the figures drawn from the records, and the claims
that the records support or refute. `runner` runs what a `store` does not hold yet; `claims` and `figures` read it.

>>> from benign_kernels import experiments
>>> experiments.names()
['chen21', 'wang24']
"""

from .claims import Claim, Place, Verdict, judge
from .figures import Figure
from .records import Records, Row
from .registry import Experiment, Fact, Plan, Preset, Together, get, names
from .runner import run
from .store import Store

__all__ = [
    "Claim",
    "Experiment",
    "Fact",
    "Figure",
    "Place",
    "Plan",
    "Preset",
    "Records",
    "Row",
    "Store",
    "Together",
    "Verdict",
    "get",
    "judge",
    "names",
    "run",
]
