"""Every algorithm walks the path of the float64 reference, whatever the network, the sample and the budget.

In float64 margins agree to 1e-10 of their size, but for rows that come within 1e-12 of a kink on the way, where the
gate is rounding's to choose. A pre-activation that is exactly zero, of a dead neuron or a tie, is no such case.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
from problems import Problem, labels, make_problem
from torch import Tensor

import benign_kernels as bk
from benign_kernels import reference
from benign_kernels.activation import resolve

TOLERANCE = 1e-10
KINK = 1e-12
ALGORITHMS = pytest.mark.parametrize("algorithm", ["dense", "half_sparse", "gram"])


@dataclass(frozen=True)
class Walk:
    """An attack on one network or several."""

    problem: Problem
    y: Tensor
    options: dict[str, Any] = field(default_factory=dict)

    def ours(self, algorithm: str, **changes: Any) -> bk.AttackResult:
        options = {"radius": 0.7, "steps": 10, **self.options, **changes}
        if algorithm == "half_sparse":
            heads = self.problem.a.dim() == self.problem.W.dim() and self.problem.a.shape[-2] > 1
            if heads or not resolve(options.get("activation", "relu")).piecewise_linear:
                pytest.skip("for one head and piecewise-linear activations")
        p = self.problem
        return bk.l2_pgd(p.x, self.y, p.W, p.a, **p.network, **options, algorithm=algorithm)

    def theirs(self, **changes: Any) -> reference.Attacked:
        options = {"radius": 0.7, "steps": 10, **self.options, **changes, "trajectory": True}
        p = self.problem
        return reference.l2_pgd(p.x, self.y, p.W, p.a, **p.network, **options)

    def value(self, x: Tensor) -> Tensor:
        p = self.problem
        return reference.two_layer(x, p.W, p.a, **p.network, activation=self.options.get("activation", "relu"))

    def clear_of_kinks(self, path: Tensor) -> Tensor:
        """Rows without a pre-activation between 0 and 1e-12 of ‖w‖ ‖x‖ + |b| on the path."""
        p = self.problem
        points = path.reshape(*path.shape[:-1], p.patches, p.W.shape[-1])
        H = torch.einsum("k...npd,...md->k...npm", points, p.W)
        size = points.norm(dim=-1)[..., None] * p.W.norm(dim=-1)[..., None, None, :]
        if p.bias is not None:
            H, size = H + p.bias[..., None, None, :], size + p.bias.abs()[..., None, None, :]
        near = (H.abs() < KINK * size) & (H != 0)
        return ~near.any(0).any(-1).any(-1)

    def compare(self, algorithm: str, least_clear: float = 0.8, **changes: Any) -> bk.AttackResult:
        ours, theirs = self.ours(algorithm, **changes), self.theirs(**changes)
        kinks = resolve(self.options.get("activation", "relu")).piecewise_linear
        rows = self.clear_of_kinks(theirs.trajectory) if kinks else torch.ones_like(theirs.margin, dtype=torch.bool)
        assert not rows.numel() or rows.double().mean() >= least_clear
        pairs = [(ours.margin, theirs.margin), (ours.logits, theirs.logits)]
        if self.options.get("keep") == "worst":  # which of several iterates of one margin is rounding's to say
            pairs.append((ours.logits, self.value(ours.x)))
        else:
            pairs.append((ours.x, theirs.x))
        for found, want in pairs:
            same = rows if want.dim() == rows.dim() else rows.unsqueeze(-1).expand(want.shape)
            size = want.abs().nan_to_num().max().clamp_min(1).item() if want.numel() else 1.0
            torch.testing.assert_close(found[same], want[same], rtol=0, atol=TOLERANCE * size, equal_nan=True)
        return ours


def random_walk(*, n: Any = 40, d: int = 15, m: int = 30, loss: str = "margin", seed: int = 0, **shape: Any) -> Walk:
    options = {} if loss == "margin" else {"loss": loss}
    problem = make_problem(n=n, d=d, m=m, seed=seed, **shape)
    return Walk(problem, labels(problem, loss), options)


def trained() -> Walk:
    """Full-batch gradient descent to small loss: margins of one size, activations that are correlated."""
    walk = random_walk(n=30, d=40, m=60, bias=False, head_bias=False)
    x, y, a = walk.problem.x, walk.y, walk.problem.a.sign() / 60**0.5
    W = walk.problem.W.clone()
    for _ in range(30):
        f = bk.two_layer(x, W, a)
        W -= 2.0 * bk.two_layer_parameter_grad(x, W, a, cotangent=-y * torch.sigmoid(-y * f) / len(y))[0]
    assert (y * bk.two_layer(x, W, a) > 0.1).all()
    return replace(walk, problem=replace(walk.problem, W=W, a=a))


def near_kinks(distance: float) -> Walk:
    """One neuron of each sample is ``distance`` above its kink, or below."""
    walk = random_walk()
    p = walk.problem
    assert p.bias is not None
    j = torch.arange(len(p.x)) % len(p.W)
    w, signs = p.W[j], torch.where(torch.arange(len(p.x)) % 2 == 0, 1.0, -1.0)
    h = (p.x * w).sum(1) + p.bias[j] - signs * distance
    return replace(walk, problem=replace(p, x=p.x - (h / w.square().sum(1))[:, None] * w))


def ties() -> Walk:
    """Half of the neurons see coordinates that are zero in every sample: h = 0 exactly, and φ'(0) = 0."""
    walk = random_walk(bias=False)
    p = walk.problem
    first = torch.arange(15) < 7
    W = torch.where((torch.arange(30) < 15)[:, None], p.W * first, p.W * ~first)
    return replace(walk, problem=replace(p, x=p.x * first, W=W))


def dead() -> Walk:
    walk = random_walk()
    p = walk.problem
    assert p.bias is not None
    W, bias = p.W.clone(), p.bias.clone()
    W[:5], bias[:5] = 0, 0
    bias[5:10] = -1e3
    return replace(walk, problem=replace(p, W=W, bias=bias))


def duplicated() -> Walk:
    """W Wᵀ is singular."""
    walk = random_walk()
    p = walk.problem
    assert p.bias is not None
    return replace(walk, problem=replace(p, W=p.W[:3].repeat(10, 1), bias=p.bias[:3].repeat(10)))


def sized(weight: float, x: float = 1.0) -> Walk:
    walk = random_walk(bias=False)
    p = walk.problem
    return replace(walk, problem=replace(p, W=p.W * weight, x=p.x * x, a=p.a / weight))


def per_sample() -> Walk:
    walk = random_walk()
    sizes = torch.linspace(0, 2, 40, dtype=torch.float64)
    return replace(walk, options={"radius": sizes, "step": sizes.flip(0) / 4})


def started(**options: Any) -> Walk:
    walk = random_walk()
    offset = torch.randn(walk.problem.x.shape, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return replace(walk, options={"start": walk.problem.x + 0.2 * offset, **options})


def with_nan() -> Walk:
    walk = random_walk()
    walk.problem.x[3, 2], walk.problem.x[17, 0], walk.problem.x[39, 14] = torch.nan, torch.inf, -torch.inf
    return walk


WALKS = {
    "random": random_walk,
    "wide": lambda: random_walk(n=9, d=5, m=130),
    "deep": lambda: random_walk(n=9, d=130, m=5),
    "primes": lambda: random_walk(n=67, d=31, m=37),
    "one": lambda: random_walk(n=1, d=1, m=1),
    "leaky": lambda: replace(random_walk(), options={"activation": bk.LeakyReLU(0.1)}),
    "identity": lambda: replace(random_walk(), options={"activation": "identity"}),
    "smooth": lambda: replace(random_walk(), options={"activation": "gelu"}),
    "smooth, wide": lambda: replace(random_walk(n=9, d=5, m=130), options={"activation": "tanh"}),
    "trained": trained,
    "near kinks": lambda: near_kinks(1e-9),
    "ties": ties,
    "dead neurons": dead,
    "duplicated neurons": duplicated,
    "small weights": lambda: sized(1e-25),
    "large weights": lambda: sized(1e20),
    "K=0": lambda: replace(random_walk(), options={"steps": 0}),
    "K=1": lambda: replace(random_walk(), options={"steps": 1}),
    "K=200": lambda: replace(random_walk(n=12), options={"steps": 200}),
    "large steps": lambda: replace(random_walk(), options={"step": 3.0}),
    "no projection": lambda: replace(random_walk(), options={"radius": torch.inf, "step": 0.3}),
    "per sample": per_sample,
    "start": started,
    "start, worst": lambda: started(keep="worst", step=0.9),
    "start outside": lambda: started(radius=0.3),
    "worst": lambda: replace(random_walk(), options={"keep": "worst", "step": 1.5}),
    "early stop": lambda: replace(random_walk(), options={"early_stop": True}),
    "patches": lambda: random_walk(n=20, patches=3),
    "patches, start": lambda: random_walk(n=20, patches=2),
    "one head": lambda: random_walk(heads=1),
    "classes": lambda: random_walk(heads=4),
    "classes, patches, worst": lambda: replace(random_walk(heads=3, patches=2), options={"keep": "worst"}),
    "classes, smooth": lambda: replace(random_walk(heads=4), options={"activation": "softplus"}),
    "squared": lambda: random_walk(loss="squared"),
    "squared, heads": lambda: random_walk(heads=3, loss="squared"),
    "networks": lambda: random_walk(n=10, batch=(2, 3)),
    "networks, shared": lambda: random_walk(n=10, batch=(3,), shared=True, heads=2),
    "rows": lambda: random_walk(n=(4, 5)),
    "not finite": with_nan,
    "no samples": lambda: random_walk(n=0),
    "no neurons": lambda: random_walk(m=0),
    "no dimension": lambda: random_walk(d=0),
    "no networks": lambda: random_walk(batch=(0,)),
}


@ALGORITHMS
@pytest.mark.parametrize("name", WALKS)
def test_margins_are_the_reference_s(name: str, algorithm: str) -> None:
    WALKS[name]().compare(algorithm)


@ALGORITHMS
@pytest.mark.parametrize("radius", [1e-30, 1e-12, 1e12, 1e30])
@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_balls_of_any_size(algorithm: str, radius: float, activation: str) -> None:
    """Around the origin the way itself is seen: to 1e-10 of the radius."""
    walk = random_walk()
    walk = Walk(replace(walk.problem, x=torch.zeros_like(walk.problem.x)), walk.y, {"activation": activation})
    ours, theirs = walk.ours(algorithm, radius=radius), walk.theirs(radius=radius)
    torch.testing.assert_close(ours.x / radius, theirs.x / radius, rtol=0, atol=TOLERANCE)
    torch.testing.assert_close(ours.margin, theirs.margin, rtol=TOLERANCE, atol=TOLERANCE)


@ALGORITHMS
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_paired_initialisation_is_not_moved(algorithm: str, dtype: torch.dtype) -> None:
    """Its gradient is zero: what is computed for it is rounding noise, which nobody follows."""
    walk = random_walk(bias=False, head_bias=False)
    p = walk.problem.to(dtype)
    paired = replace(p, W=torch.cat([p.W, p.W]), a=torch.cat([p.a, -p.a]))
    assert torch.equal(Walk(paired, walk.y).ours(algorithm).x, p.x)


@ALGORITHMS
def test_a_known_gram_matrix_is_the_same_walk(algorithm: str) -> None:
    for walk in (random_walk(), random_walk(n=10, batch=(2, 3)), sized(1e20), sized(1e-25)):
        W = walk.problem.W
        found = walk.ours(algorithm, gram=W @ W.mT)
        torch.testing.assert_close(found.margin, walk.theirs().margin, rtol=0, atol=1e-9)


@ALGORITHMS
@pytest.mark.parametrize("size", [1e20, 1e-25])
def test_weights_of_any_size_in_float32(algorithm: str, size: float) -> None:
    plain, scaled = (replace(walk, problem=walk.problem.to(torch.float32)) for walk in (sized(1.0), sized(size)))
    plain.problem.head_bias.zero_()
    scaled = replace(scaled, problem=replace(scaled.problem, a=plain.problem.a, head_bias=plain.problem.head_bias))
    ours, theirs = scaled.ours(algorithm), plain.theirs()
    rows = (ours.x.double() - theirs.x).norm(dim=1) < 1e-4
    assert rows.double().mean() > 0.9  # the others met a kink
    torch.testing.assert_close(ours.margin[rows].double() / size, theirs.margin[rows], rtol=0, atol=1e-4)


@ALGORITHMS
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "softplus"])
@pytest.mark.parametrize("shape", [{"d": 100, "m": 60}, {"d": 20, "m": 120}], ids=str)
def test_a_thousand_float32_steps_stay_true(algorithm: str, activation: str, shape: dict[str, int]) -> None:
    """What is returned is the margin of the point that is returned, and that point lies in the ball."""
    walk = random_walk(n=20, **shape)
    walk = replace(walk, problem=walk.problem.to(torch.float32), y=walk.y.float(), options={"activation": activation})
    found = walk.ours(algorithm, steps=1000)
    p = walk.problem.to(torch.float64)
    margin = walk.y * replace(walk, problem=p).value(found.x)
    # Sums of m terms of order 1/√m from sums of d terms: each rounding is 6e-8 of its term.
    torch.testing.assert_close(found.margin.double(), margin, rtol=0, atol=2e-5)
    assert ((found.x.double() - p.x).norm(dim=1) <= 0.7 * (1 + 4 * 1.2e-7) + 1e-6).all()
    wide = replace(walk, problem=p, y=walk.y.double())
    before, exact = (wide.ours("dense", steps=steps).margin for steps in (0, 1000))
    assert (
        (found.margin - exact).abs() <= 0.02 * (before - exact)
    ).double().mean() > 0.9  # the others took another gate


@ALGORITHMS
def test_networks_are_walked_as_if_each_were_alone(algorithm: str) -> None:
    walk = random_walk(n=10, batch=(4,))
    together = walk.ours(algorithm)
    for i in range(4):
        alone = Walk(walk.problem.map(lambda t, i=i: t[i]), walk.y[i]).ours(algorithm)
        torch.testing.assert_close(together.margin[i], alone.margin, rtol=0, atol=1e-12)


@ALGORITHMS
def test_rows_are_walked_as_if_each_were_alone(algorithm: str) -> None:
    """Bit for bit, for any number of threads and however a batch is split."""
    walk = random_walk(n=100)
    p, threads = walk.problem, torch.get_num_threads()
    together = walk.ours(algorithm)
    try:
        torch.set_num_threads(1)
        assert torch.equal(walk.ours(algorithm).x, together.x)
    finally:
        torch.set_num_threads(threads)
    parts = [Walk(replace(p, x=x), y).ours(algorithm) for x, y in zip(p.x.split(13), walk.y.split(13), strict=True)]
    assert torch.equal(torch.cat([part.x for part in parts]), together.x)
    assert torch.equal(torch.cat([part.margin for part in parts]), together.margin)


@ALGORITHMS
def test_a_row_that_is_not_finite_touches_no_other(algorithm: str) -> None:
    clean, broken = random_walk().ours(algorithm), with_nan().ours(algorithm)
    bad = broken.margin.isnan()
    assert bad.nonzero().flatten().tolist() == [3, 17, 39]
    assert broken.x[bad].isnan().all()
    assert torch.equal(broken.x[~bad], clean.x[~bad])
    assert torch.equal(broken.margin[~bad], clean.margin[~bad])


# ---- whatever comes --------------------------------------------------------------------------------------------------


@ALGORITHMS
def test_whatever_comes_is_the_reference_s(algorithm: str) -> None:
    hypothesis = pytest.importorskip("hypothesis")
    given, settings, st = hypothesis.given, hypothesis.settings, hypothesis.strategies
    activations = ["relu", "leaky_relu", "identity"] + ([] if algorithm == "half_sparse" else ["tanh", "softplus"])
    shapes = {
        "n": st.integers(0, 9),
        "d": st.integers(0, 40),
        "m": st.integers(0, 40),
        "patches": st.integers(1, 3),
        "heads": st.just(None) if algorithm == "half_sparse" else st.sampled_from([None, 1, 2, 5]),
        "bias": st.booleans(),
        "head_bias": st.booleans(),
        "seed": st.integers(0, 2**31),
    }
    options = {
        "radius": st.floats(0, 10),
        "step": st.floats(0, 3),
        "steps": st.integers(0, 12),
        "keep": st.sampled_from(["last", "worst"]),
        "early_stop": st.booleans(),
        "activation": st.sampled_from(activations),
    }

    @settings(max_examples=60, deadline=None, derandomize=True, database=None)
    @given(shape=st.fixed_dictionaries(shapes), chosen=st.fixed_dictionaries(options), start=st.booleans())
    def holds(shape: dict[str, Any], chosen: dict[str, Any], start: bool) -> None:
        problem = make_problem(**shape)
        begun = {"start": problem.x + 0.3 * problem.x.flip(-1)} if start else {}
        walk = Walk(problem, labels(problem), {**chosen, **begun})
        # In a few samples one that meets a kink is more than a fifth of them: all that is clear of it agrees.
        walk.compare(algorithm, least_clear=0.0)

    holds()
