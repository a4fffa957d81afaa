"""``--set key=value``: text checked against the fields of a configuration dataclass."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Sequence
from typing import Any

from .registry import suggestion

_TRUTH = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_EXPECTED = {int: "an integer", float: "a number", bool: "true or false", str: "a word"}


def parse(config: type, assignments: Sequence[str]) -> dict[str, Any]:
    """The fields that ``assignments`` set, as values of the fields' types.

    >>> from benign_kernels import experiments
    >>> parse(experiments.get("chen21").config, ["d=500", "step_size=1e-3"])
    {'d': 500, 'step_size': 0.001}
    """
    accepted = {field.name: kind for field, kind in zip(dataclasses.fields(config), _types(config), strict=True)}
    values: dict[str, Any] = {}
    for assignment in assignments:
        key, equals, text = assignment.partition("=")
        key = key.strip()
        if not equals:
            raise ValueError(f"--set: got {assignment!r}, expected key=value, as in --set {next(iter(accepted))}=…")
        if key not in accepted:
            raise ValueError(f"--set {suggestion('key', key, list(accepted))}")
        if key in values:
            raise ValueError(f"--set: got {key!r} twice, expected each key once")
        values[key] = _value(key, text.strip(), accepted[key])
    return values


def check(config: type, values: dict[str, Any]) -> None:
    """Lets the configuration itself judge the values."""
    try:
        config(**values)
    except (TypeError, ValueError) as error:
        raise ValueError(f"--set {error}") from None


def describe(config: type) -> list[tuple[str, str, str]]:
    """Name, type and default of each field, for help."""
    rows = []
    for field, kind in zip(dataclasses.fields(config), _types(config), strict=True):
        choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
        name = " or ".join(map(str, choices)) if choices else getattr(kind, "__name__", str(kind))
        rows.append((field.name, name, "" if field.default is dataclasses.MISSING else str(field.default)))
    return rows


def _types(config: type) -> list[Any]:
    hints = typing.get_type_hints(config)
    return [hints[field.name] for field in dataclasses.fields(config)]


def _value(key: str, text: str, kind: Any) -> Any:
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        found = next((choice for choice in arguments if str(choice) == text), None)
        if found is None:
            raise ValueError(f"--set {suggestion(key, text, [str(choice) for choice in arguments])}")
        return found
    if origin in (typing.Union, types.UnionType) and type(None) in arguments:
        if text.lower() == "none":
            return None
        kind = next(argument for argument in arguments if argument is not type(None))
    if kind not in _EXPECTED:
        raise ValueError(f"--set {key}: is of type {kind}, which the command line cannot set")
    try:
        return _TRUTH[text.lower()] if kind is bool else kind(text)
    except (KeyError, ValueError):
        raise ValueError(f"--set {key}: got {text!r}, expected {_EXPECTED[kind]}") from None
