"""Benchmarks: what the ops cost beside what they replace, in one run, on the same inputs.

Cases (:mod:`bench.cases`) times providers (:mod:`bench.providers`); ``benign bench`` or ``python -m bench`` runs them.
"""
