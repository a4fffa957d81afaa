"""What the tests against other libraries share: models in float64, data inside the box, and comparisons."""

import inspect
from contextlib import contextmanager

import torch
from torch import nn

AGREE = 1e-10  # float64: the libraries' own rounding is about 1e-15 per step, and no gate flips on that


def classifier(phi=None, logits=3, generic=False, scale=1.0, inputs=12, neurons=30):
    """nn.Sequential(Flatten, Linear, φ, Linear) in float64; ``generic`` hides it from recognition behind a hook."""
    torch.manual_seed(1)
    layers = nn.Linear(inputs, neurons), nn.ReLU() if phi is None else phi, nn.Linear(neurons, logits)
    model = nn.Sequential(nn.Flatten(), *layers).double().eval()
    with torch.no_grad():
        model[3].weight.mul_(scale)
        model[3].bias.mul_(scale)
    if generic:
        model.register_forward_hook(lambda *arguments: None)
    return model


def images(n=20, logits=3, margin=0.0):
    """Images (n, 3, 2, 2) in [margin, 1 − margin], and labels."""
    torch.manual_seed(2)
    x = margin + (1 - 2 * margin) * torch.rand(n, 3, 2, 2, dtype=torch.float64)
    return x, torch.randint(0, logits, (n,))


def difference(a, b):
    return (a - b).abs().max().item()


def parameters(function):
    """(name, kind, default) of each parameter."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@contextmanager
def seeded(seed=3):
    """The same draws from the global generator, whichever library makes them."""
    torch.manual_seed(seed)
    yield


def uniform_distance(values):
    """Kolmogorov's distance between the values' distribution and U(0, 1)."""
    ordered = values.flatten().sort().values.double()
    n = len(ordered)
    above = torch.arange(1, n + 1, dtype=torch.float64) / n - ordered
    below = ordered - torch.arange(0, n, dtype=torch.float64) / n
    return max(above.max().item(), below.max().item())


def kolmogorov_bound(n):
    """What the distance of n uniform numbers exceeds with probability 2·exp(−2·2²) = 7e-4."""
    return 2 / n**0.5
