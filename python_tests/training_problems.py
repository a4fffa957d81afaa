"""What the tests of training share: problems, and the oracle, a plain float64 loop in R^d with autograd."""

import torch
from torch.nn import functional

import benign_kernels as bk
from benign_kernels import reference

F64 = {"dtype": torch.float64}
#: Of trajectories in float64, relative to their size: hundreds of steps, each with rounding of a few 1e-16.
SAME = 1e-9


def normal(*shape, seed=0, **keywords):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), **{**F64, **keywords})


def rademacher(*shape, seed=9):
    return normal(*shape, seed=seed).sign()


# ---- the oracle ------------------------------------------------------------------------------------------------------

#: ℓ(f, y) as everyone writes it; f (n,) or (n, k).
LOSSES = {
    "logistic": lambda f, y: functional.softplus(-y * f, threshold=40).mean(),
    "exponential": lambda f, y: torch.exp(-y * f).mean(),
    "hinge": lambda f, y: torch.relu(1 - y * f).mean(),
    "squared": lambda f, y: (0.5 * (f - y) ** 2).sum() / len(f),
    "cross_entropy": functional.cross_entropy,
}


def network(parameters, x, phi, patches):
    W, a, bias, head_bias = parameters
    h = x.reshape(len(x), patches, -1) @ W.mT + (0 if bias is None else bias)
    return phi.value(h).sum(1) @ (a.mT if a.dim() > 1 else a) + (0 if head_bias is None else head_bias)


def oracle(
    parameters,
    x,
    y,
    *,
    radius,
    iterations,
    step_size,
    steps=5,
    loss="logistic",
    norm="l2",
    activation="relu",
    patches=1,
    mixture=1.0,
    momentum=0.0,
    weight_decay=0.0,
    distance=None,
    trained=(True, False, True, True),
    **attack,
):
    """θ after each iteration, and the loss before it: torch.optim.SGD on what reference.l2_pgd finds, in R^d."""
    phi = bk.activation.resolve(activation)
    parameters = [None if p is None else p.clone() for p in (*parameters, None, None)[:4]]
    free = [p.requires_grad_() for p, learns in zip(parameters, trained, strict=True) if p is not None and learns]
    optimiser = torch.optim.SGD(free, lr=1.0, momentum=momentum, weight_decay=weight_decay)
    first, losses, path = parameters[0].detach().clone(), [], []
    for t in range(iterations):
        W, a, bias, head_bias = (None if p is None else p.detach() for p in parameters)
        keywords = {"bias": bias, "head_bias": head_bias, "activation": phi, "patches": patches, "norm": norm}
        kind = "squared" if loss == "squared" else "margin"
        points = reference.l2_pgd(x, y, W, a, radius=radius, steps=steps, loss=kind, **keywords, **attack).x
        optimiser.zero_grad()
        value = mixture * LOSSES[loss](network(parameters, points, phi, patches), y)
        if mixture < 1:
            value = value + (1 - mixture) * LOSSES[loss](network(parameters, x, phi, patches), y)
        value.backward()
        optimiser.param_groups[0]["lr"] = step_size(t) if callable(step_size) else step_size
        optimiser.step()
        if distance is not None:
            with torch.no_grad():
                moved = parameters[0] - first
                parameters[0].copy_(first + moved * min(1.0, distance / moved.norm().item()))
        losses.append(value.detach())
        path.append([None if p is None else p.detach().clone() for p in parameters])
    return path, torch.stack(losses)


def train(parameters, x, y, **keywords):
    """adversarial_train on the tuple, its parameters after each iteration, and its result."""
    path = []

    def remember(progress):
        path.append(progress.net)

    fit = bk.adversarial_train(tuple(parameters), x, y, callback=remember, **keywords)
    path = [*path[1:], fit.net]
    return [[net.W, net.a, net.bias, net.head_bias] for net in path], fit


def assert_same_path(ours, theirs):
    assert len(ours) == len(theirs)
    for t, (got, want) in enumerate(zip(ours, theirs, strict=True)):
        for p, q in zip(got, want, strict=False):
            if q is not None:
                assert (p - q).abs().max() <= SAME * max(1.0, q.abs().max().item()), f"after {t + 1} iterations"


def problem(n=8, d=120, m=6, *, patches=1, k=None, bias=False, seed=0):
    """Points of norm about √d with a signal, small weights: the margins become positive within some hundred steps."""
    x, _, clean = bk.sample_mixture(
        n, patches * d, 3.0, generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    heads = () if k is None else (k,)
    parameters = [normal(m, d, seed=seed + 1) / d**0.5, rademacher(*heads, m, seed=seed + 2) / m**0.5]
    if bias:
        parameters += [normal(m, seed=seed + 3) / 10, normal(*heads, seed=seed + 4) / 10]
    y = torch.where(torch.arange(n) % 4 == 0, -clean, clean)
    return parameters, x, y
