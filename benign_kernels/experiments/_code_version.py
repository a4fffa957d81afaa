"""A hash of the code that a trial runs, so that stored trials of other code are not taken for its own."""

from __future__ import annotations

import ast
import hashlib
import inspect
import sys
import textwrap
import types
from collections.abc import Callable
from functools import lru_cache
from typing import Any


@lru_cache(maxsize=64)
def code_version(function: Callable[..., Any]) -> str:
    """Hash of a function and of all functions, classes and constants of its module that it reaches.

    Comments, docstrings and layout do not count; nor do figures and claims, which a trial does not reach.
    """
    seen: dict[str, str] = {}
    _visit(function.__name__, function, function.__module__, seen)
    text = "\n".join(f"{name}: {seen[name]}" for name in sorted(seen))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _visit(name: str, value: Any, module: str, seen: dict[str, str]) -> None:
    if name in seen:
        return
    if isinstance(value, (types.FunctionType, type)):
        if value.__module__ != module:
            return
        tree = ast.parse(textwrap.dedent(inspect.getsource(value)))
        _drop_docstrings(tree)
        seen[name] = ast.unparse(tree)
        scope = vars(sys.modules[module])
        for node in ast.walk(tree):
            if isinstance(node, ast.Name) and node.id in scope:
                _visit(node.id, scope[node.id], module, seen)
    elif isinstance(value, (bool, int, float, str, tuple)):
        seen[name] = repr(value)
    elif isinstance(value, dict):
        seen[name] = repr(sorted(map(str, value)))
        for key, entry in value.items():
            if isinstance(entry, types.FunctionType) and entry.__name__ != "<lambda>":
                _visit(f"{name}.{key}", entry, module, seen)


def _drop_docstrings(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if (
            isinstance(node, (ast.FunctionDef, ast.ClassDef, ast.AsyncFunctionDef))
            and ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:] or [ast.Pass()]
