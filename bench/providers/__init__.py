"""Who does the work of a case: this library, plain torch in several forms, compilers, the attack libraries.

A new one is a :class:`~bench.providers.base.Provider` in one of the modules here.
"""

from __future__ import annotations

import difflib
import fnmatch
from collections.abc import Sequence

from bench.providers import compiled, eager, libraries, ours
from bench.providers.base import Provider, Run
from benign_kernels._commands import UsageError

__all__ = ["OURS", "PROVIDERS", "Provider", "Run", "select"]

PROVIDERS = {provider.name: provider for module in (ours, eager, compiled, libraries) for provider in module.PROVIDERS}
OURS = "ours"


def select(patterns: Sequence[str] | None) -> list[Provider]:
    """The providers that match, ours always among them; without patterns, all that run by default."""
    if patterns is None:
        return [provider for provider in PROVIDERS.values() if provider.default]
    chosen = {OURS}
    for pattern in patterns:
        names = fnmatch.filter(PROVIDERS, pattern)
        if not names:
            near = difflib.get_close_matches(pattern, PROVIDERS, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise UsageError(f"--provider: nothing is named {pattern!r}{hint} (there are {', '.join(PROVIDERS)})")
        chosen.update(names)
    return [provider for name, provider in PROVIDERS.items() if name in chosen]
