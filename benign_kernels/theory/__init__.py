"""Closed forms that the experiments are held against."""

from .mixture import averaging_margin, bayes_error, clean_error, robust_error

__all__ = ["averaging_margin", "bayes_error", "clean_error", "robust_error"]
