"""Reports: one self-contained HTML page of an experiment's figures, claims and facts."""

from .page import page
from .versions import versions

__all__ = ["page", "versions"]
