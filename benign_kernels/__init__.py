"""ℓ2 and ℓ∞ attacks on two-layer networks, and the networks themselves, as fused torch ops."""

from .activation import (
    GELU,
    Activation,
    Erf,
    Identity,
    LeakyReLU,
    OddPower,
    ReLU,
    ReLUPower,
    Sigmoid,
    SiLU,
    SmoothedReLU,
    SmoothLeakyReLU,
    Softplus,
    Tanh,
    activations,
)
from .attack import AttackResult, l2_pgd, linf_pgd
from .geometry import Mixture, ReducedMixture, Span, reduce_to_span, sample_mixture, sample_reduced
from .model_attack import attack_model
from .network import TwoLayerNet, TwoLayerView, as_two_layer
from .ops import (
    l2_pgd_step,
    l2_pgd_step_,
    linf_pgd_step,
    linf_pgd_step_,
    two_layer,
    two_layer_parameter_grad,
    two_layer_value_and_grad,
)
from .plan import Plan, plan
from .training import Progress, TrainingResult, adversarial_train

__version__ = "0.1.0"
__all__ = [
    "GELU",
    "Activation",
    "AttackResult",
    "Erf",
    "Identity",
    "LeakyReLU",
    "Mixture",
    "OddPower",
    "Plan",
    "Progress",
    "ReLU",
    "ReLUPower",
    "ReducedMixture",
    "SiLU",
    "Sigmoid",
    "SmoothLeakyReLU",
    "SmoothedReLU",
    "Softplus",
    "Span",
    "Tanh",
    "TrainingResult",
    "TwoLayerNet",
    "TwoLayerView",
    "activations",
    "adversarial_train",
    "as_two_layer",
    "attack_model",
    "l2_pgd",
    "l2_pgd_step",
    "l2_pgd_step_",
    "linf_pgd",
    "linf_pgd_step",
    "linf_pgd_step_",
    "plan",
    "reduce_to_span",
    "sample_mixture",
    "sample_reduced",
    "two_layer",
    "two_layer_parameter_grad",
    "two_layer_value_and_grad",
]
