"""Nine samples, and modules to attack on them."""

import warnings

import torch
from torch import nn

import benign_kernels as bk

X = torch.randn(9, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
SIGNS = torch.tensor([1, -1, 1, 1, -1, -1, 1, -1, 1])


def sequential(logits=1, phi=None, generic=False):
    torch.manual_seed(4)
    layers = nn.Linear(6, 20), nn.Tanh() if phi is None else phi, nn.Linear(20, logits)
    model = nn.Sequential(*layers).double()
    if generic:
        model.register_forward_hook(lambda *arguments: None)
    return model


def attack(model, x=X, y=SIGNS, **options):
    """attack_model without its warning."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the model is attacked through autograd")
        return bk.attack_model(model, x, y, **{"radius": 0.7, "steps": 7, **options})


def assert_same(a, b, tolerance=1e-10):
    torch.testing.assert_close(a.x, b.x, rtol=0, atol=tolerance)
    torch.testing.assert_close(a.logits, b.logits, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(a.margin, b.margin, rtol=tolerance, atol=tolerance)
    assert (a.trajectory is None) == (b.trajectory is None)
    if a.trajectory is not None:
        torch.testing.assert_close(a.trajectory, b.trajectory, rtol=0, atol=tolerance)
