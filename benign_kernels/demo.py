"""What the package is for, in half a minute: robust accuracy against radius, after plain and adversarial training.

Data: x = ỹμ + ξ with standard normal ξ, a share of the labels flipped. Both nets fit the noisy labels; how far the
accuracy of each outlives an attacker is measured, nothing is stored in advance.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import softplus

from .attack import l2_pgd
from .network import TwoLayerNet

Sample = tuple[Tensor, Tensor]  # (n, d) points, (n,) labels ±1


@dataclass(frozen=True)
class Demo:
    """Sizes of the demonstration; ``signal`` is ‖μ‖, ``budget`` the training radius in units of it."""

    samples: int = 100
    tests: int = 1000
    dim: int = 2000
    width: int = 200
    signal: float = 7.0
    noise_rate: float = 0.1
    budget: float = 0.3
    iterations: int = 300
    steps: int = 20
    seed: int = 0


@dataclass(frozen=True)
class Curve:
    """Robust accuracy of one trained net at each radius, in units of ‖μ‖."""

    name: str
    radii: list[float]
    train: list[float]
    test: list[float]


def mixture(demo: Demo, count: int, generator: torch.Generator) -> Sample:
    """(count, d) samples and their labels, of which a share is flipped."""
    clean = torch.randint(0, 2, (count,), generator=generator) * 2.0 - 1
    x = torch.randn(count, demo.dim, generator=generator)
    x[:, 0] += demo.signal * clean
    flipped = torch.rand(count, generator=generator) < demo.noise_rate
    return x, torch.where(flipped, -clean, clean)


def train(demo: Demo, x: Tensor, y: Tensor, radius: float) -> TwoLayerNet:
    """Full-batch gradient descent on the logistic loss at points attacked within ``radius``."""
    generator = torch.Generator().manual_seed(demo.seed)
    net = TwoLayerNet(demo.dim, demo.width, activation="relu", paired=True, init=1e-3, generator=generator)
    # The tangent kernel's diagonal is about d/2: this step moves each f by about |ℓ'|.
    optimiser = torch.optim.SGD(net.parameters(), lr=2 * demo.samples / demo.dim)
    for _ in range(demo.iterations):
        attacked = l2_pgd(x, y, net.weight, net.head, radius=radius, steps=demo.steps).x if radius > 0 else x
        optimiser.zero_grad()
        softplus(-y * net(attacked)).mean().backward()
        optimiser.step()
    return net


def measure(
    demo: Demo, name: str, net: TwoLayerNet, train_set: tuple[Tensor, Tensor], test_set: tuple[Tensor, Tensor]
) -> Curve:
    """Accuracy at the worst iterate of PGD, radius by radius."""
    radii = [i / 10 for i in range(13)]
    accuracy: dict[str, list[float]] = {"train": [], "test": []}
    for radius in radii:
        for split, (x, y) in (("train", train_set), ("test", test_set)):
            attack = l2_pgd(x, y, net.weight, net.head, radius=radius * demo.signal, steps=demo.steps, keep="worst")
            accuracy[split].append(1 - attack.success.double().mean().item())
    return Curve(name, radii, **accuracy)


def ceiling(demo: Demo, radius: float) -> float:
    """No classifier's robust accuracy is higher: the Bayes classifier's, label noise included."""
    missed = min(0.5, 0.5 * math.erfc((1 - radius) * demo.signal / math.sqrt(2)))
    return 1 - demo.noise_rate - (1 - 2 * demo.noise_rate) * missed


def run(demo: Demo, report: Callable[[str], None] = lambda line: None) -> list[Curve]:
    """Trains and measures both nets."""
    generator = torch.Generator().manual_seed(demo.seed)
    train_set, test_set = mixture(demo, demo.samples, generator), mixture(demo, demo.tests, generator)
    curves = []
    for name, budget in (("plain training", 0.0), ("adversarial training", demo.budget)):
        began = time.perf_counter()
        net = train(demo, *train_set, budget * demo.signal)
        curves.append(measure(demo, name, net, train_set, test_set))
        report(f"{name}: {time.perf_counter() - began:.1f} s")
    return curves


def table(demo: Demo, curves: list[Curve]) -> str:
    """The curves as text, one radius a line."""
    head = "radius/‖μ‖ " + "".join(f"| {curve.name:^21} " for curve in curves) + "| no classifier"
    under = "           " + "".join(f"| {'train':>10} {'test':>10} " for _ in curves) + "| is above"
    lines = [head, under, "-" * len(head)]
    for i, radius in enumerate(curves[0].radii):
        cells = "".join(f"| {curve.train[i]:10.3f} {curve.test[i]:10.3f} " for curve in curves)
        lines.append(f"{radius:10.1f} {cells}| {ceiling(demo, radius):13.3f}")
    return "\n".join(lines)


def draw(demo: Demo, curves: list[Curve], folder: Path) -> list[Path]:
    """The curves as a picture, PNG and SVG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(7.2, 4.4), constrained_layout=True)
    fine = [i / 100 for i in range(121)]
    axes.fill_between(
        fine, [ceiling(demo, r) for r in fine], 1.03, color="0.92", lw=0, label="above the Bayes classifier"
    )
    for curve, colour in zip(curves, ("#c1543a", "#2a6f97"), strict=True):
        axes.plot(curve.radii, curve.train, "--", color=colour, lw=1.6, label=f"{curve.name}, train")
        axes.plot(curve.radii, curve.test, "-o", color=colour, lw=1.8, ms=3.5, label=f"{curve.name}, test")
    axes.axvline(demo.budget, ymax=0.1, color="0.55", lw=0.9, ls=":")
    axes.annotate("trained at", (demo.budget, 0.02), (4, 0), textcoords="offset points", color="0.4", fontsize=8)
    axes.set(xlabel="radius / ‖μ‖", ylabel="robust accuracy", xlim=(0, 1.2), ylim=(-0.03, 1.03))
    axes.set_title(
        f"Two-layer ReLU net, PGD-{demo.steps}: n={demo.samples}, d={demo.dim}, m={demo.width}, "
        f"{demo.noise_rate:.0%} label noise",
        fontsize=10,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0.0, 0.12))
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / "robust_accuracy.png", folder / "robust_accuracy.svg"]
    for path in paths:
        figure.savefig(path, dpi=160)
    pyplot.close(figure)
    return paths


def main(folder: Path, seed: int = 0) -> int:
    """Runs the demonstration, prints the table, writes the picture into ``folder``."""
    import_module("matplotlib")  # missing, it is missed before the work and not after it; so is the folder
    folder.mkdir(parents=True, exist_ok=True)
    demo = Demo(seed=seed)
    print(f"Two-layer ReLU nets on a Gaussian mixture, attacked by PGD-{demo.steps}: {demo}", flush=True)
    curves = run(demo, report=lambda line: print(line, flush=True))
    print("\nrobust accuracy\n" + table(demo, curves) + "\n")
    for path in draw(demo, curves, folder):
        print(f"wrote {path}")
    return 0
