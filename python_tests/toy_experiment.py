"""A small experiment for the tests of the frame; in a module, so that worker processes can import it."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, replace
from pathlib import Path

from benign_kernels.experiments import Claim, Experiment, Fact, Figure, Place, Preset, Together
from benign_kernels.experiments.figures import COLOURS, line


@dataclass(frozen=True)
class Config:
    size: int = 1
    rate: float = 0.5
    exact: bool = False
    log: str = ""
    behaviour: str = "well"

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"size: got {self.size}, expected an integer ≥ 0")


def scaled(value: int) -> float:
    return value / FACTOR


FACTOR = 10


def trial(config: Config, seed: int) -> dict[str, object]:
    """Says in a log that it begins; then behaves as the configuration says."""
    if config.log:
        with Path(config.log).open("a") as log:
            log.write("x")
    if config.behaviour == "raises" and seed == 1:
        raise ArithmeticError("this trial cannot be done")
    if config.behaviour == "dies" and seed == 1:
        os._exit(9)
    if config.behaviour == "slow":
        time.sleep(0.02)
    return {"error": scaled(config.size) + 0.01 * seed, "path": [1.0, 2.0], "note": "a, b"}


def trials(configs: list[Config], seeds: list[int]) -> list[dict[str, object]]:
    """Says in a log how many it is called for."""
    if configs[0].log:
        with Path(configs[0].log + "-batches").open("a") as log:
            log.write(f"{len(seeds)} ")
    return [trial(config, seed) for config, seed in zip(configs, seeds, strict=True)]


def exactness(config: Config) -> bool:
    return config.exact


def two(config: Config) -> int:
    return 2


TOGETHER = Together(trials, exactness, two)


def _draw(axes, records):
    line(axes, records.sweep("size"), "size", "error", label="error", colour=COLOURS[0])
    return len(records) > 0


def _errors(records):
    return [Place(f"size={size}", tuple(group.column("error"))) for size, group in records.groups("size").items()]


CLAIM = Claim("A1", "Errors <are> small", "error", "<=", 1.0, _errors, interval="range")


def make(**fields: object) -> Experiment:
    config = replace(Config(), **fields)
    return Experiment(
        name="toy",
        title="A toy & its errors",
        reference="nobody, never",
        config=Config,
        trial=trial,
        presets={"quick": Preset("small", {"size": tuple(replace(config, size=s) for s in (1, 2, 3))}, seeds=3)},
        figures=(Figure("error", "Error", "The error of the toy.", _draw),),
        claims=(CLAIM,),
        facts=(Fact("Everything is made up.", "c"),),
    )
