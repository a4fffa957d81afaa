"""List the ops, activations, algorithms and experiments there are."""

from __future__ import annotations

import argparse
import inspect
import re
from collections.abc import Iterator


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", nargs="?", choices=list(_SECTIONS), help="only these (default: all)")


def main(arguments: argparse.Namespace) -> int:
    for name, rows in _SECTIONS.items():
        if arguments.what in (None, name):
            print(name)
            for label, text in rows():
                print(f"  {label:28} {text}".rstrip())
    return 0


def _ops() -> Iterator[tuple[str, str]]:
    from .. import attack, ops

    for module in (ops, attack):
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if function.__module__ == module.__name__ and not name.startswith("_"):
                # Sphinx's roles, as in :func:`l2_pgd`, are for the reader of a page.
                yield name, re.sub(r":\w+:`([^`]*)`", r"\1", (function.__doc__ or "").partition("\n")[0])


def _activations() -> Iterator[tuple[str, str]]:
    from ..activation import activations

    for activation in activations():
        yield activation.name, repr(activation)


def _algorithms() -> Iterator[tuple[str, str]]:
    from .. import _host

    for name in _host.available_algorithms():
        yield name, "the planner's choice" if name == "auto" else ""


def _experiments() -> Iterator[tuple[str, str]]:
    """Each with its presets, claims, and the fields that --set sets."""
    from .. import experiments
    from ..experiments import overrides, registry

    for name in experiments.names():
        experiment = experiments.get(name)
        yield name, registry.summary(name)
        for preset, chosen in experiment.presets.items():
            trials = len(experiments.Plan.of(experiment, preset).tasks())
            yield f"  --preset {preset}", f"{trials} trials: {chosen.summary}"
        for field, kind, default in overrides.describe(experiment.config):
            yield f"  --set {field}={default}", kind
        for claim in experiment.claims:
            yield f"  claim {claim.name}", claim.sentence


_SECTIONS = {"ops": _ops, "activations": _activations, "algorithms": _algorithms, "experiments": _experiments}
