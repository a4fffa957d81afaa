"""Closed forms and bounds that the experiments are held against."""

from .certificate import margin_bound
from .mixture import averaging_margin, bayes_error, clean_error, robust_error

__all__ = ["averaging_margin", "bayes_error", "clean_error", "margin_bound", "robust_error"]
