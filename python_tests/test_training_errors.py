"""What adversarial_train refuses, in one sentence that names the argument."""

import math
import re

import pytest
import torch
from torch import nn
from training_problems import problem

import benign_kernels as bk


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"net": nn.Linear(120, 1)}, TypeError, "net: got Linear, expected a two-layer network; Linear is neither"),
        (
            {"net": bk.TwoLayerNet(120, 4, dtype=torch.bfloat16)},
            TypeError,
            "net: got torch.bfloat16, expected float32 or",
        ),
        ({"net": (torch.ones(4), torch.ones(4))}, TypeError, "net: got tuple, expected a two-layer network; it is not"),
        ({"net": (torch.ones(4, 120), torch.ones(5))}, ValueError, "a: got shape (5,), expected (4,), or (k, 4)"),
        (
            {"net": (torch.ones(4, 120), torch.ones(4), torch.ones(3))},
            ValueError,
            "bias: got shape (3,), expected (4,)",
        ),
        ({"net": (torch.ones(4, 120), torch.ones(4).double())}, TypeError, "a: got torch.float64 on cpu, expected"),
        ({"x": torch.ones(8, 7)}, ValueError, "x: got shape (8, 7), expected (n, 120)"),
        ({"x": [1.0]}, TypeError, "x: got list, expected a tensor or a NumPy array"),
        ({"y": torch.ones(5)}, ValueError, "y: got shape (5,), expected (8,)"),
        ({"y": torch.arange(8) % 2}, ValueError, "y: got 0, expected labels ±1"),
        ({"radius": -1.0}, ValueError, "radius: got -1, expected a number ≥ 0"),
        ({"radius": torch.ones(3)}, ValueError, "radius: got shape (3,), expected a number or (8,), one per sample"),
        ({"steps": -1}, ValueError, "steps: got -1"),
        ({"step": -0.1}, ValueError, "step: got -0.1"),
        ({"step": 0.1, "attack": "one_step"}, ValueError, "step: got one with attack='one_step', expected"),
        ({"radius": math.inf}, ValueError, "step: got None, expected a number when radius is infinite"),
        ({"radius": math.inf, "attack": "one_step"}, ValueError, "radius: got inf, expected a finite number"),
        ({"iterations": 2.5}, TypeError, "iterations: got 2.5, expected an integer ≥ 0"),
        ({"step_size": -1.0}, ValueError, "step_size: got -1, expected a finite number ≥ 0"),
        ({"step_size": lambda t: math.nan}, ValueError, "step_size: got nan"),
        (
            {"step_size": torch.ones(3)},
            ValueError,
            "step_size: got shape (3,), expected a number or (), one per network",
        ),
        ({"loss": "log"}, ValueError, "loss: got 'log', expected one of 'logistic', 'exponential', 'hinge'"),
        ({"loss": "cross_entropy"}, ValueError, "loss: got 'cross_entropy' with one output"),
        ({"net": bk.TwoLayerNet(120, 4, heads=3)}, ValueError, "loss: got 'logistic' with 3 outputs, expected 'cross_"),
        (
            {"net": bk.TwoLayerNet(120, 4, heads=3), "loss": "cross_entropy"},
            TypeError,
            "y: got torch.float64, expected",
        ),
        (
            {"net": bk.TwoLayerNet(120, 4, heads=3), "loss": "cross_entropy", "y": torch.arange(8)},
            ValueError,
            "y: got 3, expected class indices below 3",
        ),
        ({"attack": "pdg"}, ValueError, "attack: got 'pdg', expected one of 'pgd', 'one_step', 'exact', 'none'"),
        ({"attack": "exact"}, ValueError, "attack: got 'exact' with ReLU() and 1 outputs, expected 'pgd'"),
        ({"norm": "l1"}, ValueError, "norm: got 'l1', expected one of 'l2', 'linf'"),
        ({"box": (0, 1), "attack": "none"}, ValueError, "box: got one with attack='none'"),
        ({"box": (1, 0)}, ValueError, "box: got (1, 0), expected lo ≤ hi"),
        ({"random_start": 1}, TypeError, "random_start: got 1, expected True or False"),
        ({"random_start": True}, ValueError, "generator: got None with random_start, expected a torch.Generator"),
        ({"batch_size": 4}, ValueError, "generator: got None with batch_size, expected a torch.Generator"),
        ({"batch_size": 0, "generator": torch.Generator()}, ValueError, "batch_size: got 0"),
        ({"generator": 3}, TypeError, "generator: got int, expected a torch.Generator or None"),
        ({"algorithm": "fast"}, ValueError, "algorithm: got 'fast'"),
        ({"mixture": 1.5}, ValueError, "mixture: got 1.5, expected a share λ between 0 and 1"),
        ({"momentum": -0.1}, ValueError, "momentum: got -0.1"),
        ({"weight_decay": math.inf}, ValueError, "weight_decay: got inf"),
        ({"distance": -1.0}, ValueError, "distance: got -1"),
        ({"train_head": 1}, TypeError, "train_head: got 1, expected True or False"),
        ({"train_bias": "no"}, TypeError, "train_bias: got 'no', expected True or False"),
        ({"stop": 0.1}, TypeError, "stop: got float, expected a mapping of names to thresholds"),
        ({"stop": {"margin": 0.1}}, ValueError, "stop: got 'margin', expected one of 'robust_loss'"),
        ({"stop": {"robust_loss": "0"}}, ValueError, "stop: got '0' for 'robust_loss', expected a number"),
        ({"span": "yes"}, ValueError, "span: got 'yes', expected True, False or 'auto'"),
        ({"history": "robust_loss"}, TypeError, "history: got the string 'robust_loss', expected names in a tuple"),
        ({"history": ("loss",)}, ValueError, "history: got 'loss', expected one of 'robust_loss'"),
        (
            {"loss": "squared", "history": ("clean_error",)},
            ValueError,
            "history: got 'clean_error' with loss='squared'",
        ),
        ({"every": 0}, ValueError, "every: got 0"),
        ({"trackers": [max]}, TypeError, "trackers: got list, expected a mapping of names to functions"),
        ({"trackers": {"iteration": max}}, ValueError, "trackers: got the name 'iteration', expected a string that no"),
        ({"trackers": {"u": 3}}, TypeError, "trackers: got int for 'u', expected a function of the network"),
        ({"callback": 3}, TypeError, "callback: got int, expected a function of the progress"),
        ({"resume": {}}, TypeError, "resume: got dict, expected the state_dict() of a training"),
    ],
)
def test_errors_name_the_argument(change, error, message):
    parameters, x, y = problem()
    given = {"net": tuple(parameters), "x": x, "y": y, "radius": 0.5, "iterations": 3, "step_size": 0.01, **change}
    with pytest.raises(error, match=f"^{re.escape(message)}"):
        bk.adversarial_train(given.pop("net"), given.pop("x"), given.pop("y"), **given)


def test_a_state_of_another_training_is_refused():
    parameters, x, y = problem()
    keywords = {"radius": 0.5, "iterations": 3, "step_size": 0.01}
    state = bk.adversarial_train(tuple(parameters), x, y, span=True, **keywords).state_dict()
    (W, a), x_more, _ = problem(m=7)
    with pytest.raises(ValueError, match=r"^resume: got W of \(\(6, 120\), torch.float64\), expected \(\(7, 120\)"):
        bk.adversarial_train((W, a), x_more, y, resume=state, **keywords)
    with pytest.raises(ValueError, match=r"^span: got False with the state of a training with span=True"):
        bk.adversarial_train(tuple(parameters), x, y, resume=state, span=False, **keywords)
    with pytest.raises(
        ValueError, match=r"^resume: got a history of iteration, robust_loss, robust_error, expected one"
    ):
        bk.adversarial_train(tuple(parameters), x, y, resume=state, history=("distance",), **keywords)
    more = {"batch_size": 3, "generator": torch.Generator()}
    with pytest.raises(ValueError, match=r"^resume: got the state of a training without a generator, expected one"):
        bk.adversarial_train(tuple(parameters), x, y, resume=state, **more, **keywords)
