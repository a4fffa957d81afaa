"""The definition of correctness: every op in float64, written as its formula and never fast.

Same names, arguments and shapes as the public functions. Arrays n×m are formed freely, independent networks are looped
over, and everything is computed in float64 whatever came in. The tests know no other oracle.

Letters: n samples, d dimension, m neurons, P patches, k heads, K steps.
"""

from .attack import Attacked, DirectionRule, l2_pgd, linf_pgd
from .network import (
    Network,
    head_shape,
    row_shape,
    two_layer,
    two_layer_parameter_grad,
    two_layer_value_and_grad,
)
from .step import l2_pgd_step, linf_pgd_step

__all__ = [
    "Attacked",
    "DirectionRule",
    "Network",
    "head_shape",
    "l2_pgd",
    "l2_pgd_step",
    "linf_pgd",
    "linf_pgd_step",
    "row_shape",
    "two_layer",
    "two_layer_parameter_grad",
    "two_layer_value_and_grad",
]
