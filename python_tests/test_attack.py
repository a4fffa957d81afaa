"""l2_pgd and linf_pgd: the promises that hold for every network. Their path is in test_attack_path.py."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
import torch
from problems import labels, make_problem
from torch import Tensor

import benign_kernels as bk
from benign_kernels.attack import AttackResult

# float32 paths of 20 steps whose weights were rounded otherwise: an ulp of entries up to 4, 2.4e-7, at every step.
# Measured: one ulp. A kink met on one path only would show as more, and none is on these.
SAME_PATH = 20 * 2.4e-7

norms = pytest.mark.parametrize("norm", ["l2", "linf"])


def attack(norm: str, *args: Any, **keywords: Any) -> AttackResult:
    return (bk.l2_pgd if norm == "l2" else bk.linf_pgd)(*args, **keywords)


def sample(dtype: torch.dtype = torch.float32, n: int = 33, **shape: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    problem = make_problem(n=n, d=17, m=40, dtype=dtype, **shape)
    return problem.x, labels(problem), problem.W, problem.a


@norms
@pytest.mark.parametrize("still", [{"radius": 0.0}, {"step": 0.0}, {"steps": 0}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_no_budget_returns_the_sample_bit_for_bit(norm: str, still: dict[str, Any], dtype: torch.dtype) -> None:
    x, y, W, a = sample(dtype)
    x[0, :3] = torch.tensor([-0.0, 0.0, 1e-40])
    attacked = attack(norm, x, y, W, a, **{"radius": 1.0, **still}).x
    integers = torch.int32 if dtype == torch.float32 else torch.int64
    assert torch.equal(attacked.view(integers), x.view(integers))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("radius", [1e-3, 1.0, 1e3])
def test_stays_in_the_ball(dtype: torch.dtype, radius: float) -> None:
    # From the origin x' = δ exactly, so that the projection alone is seen. Norms in float64, or exactly.
    problem = make_problem(n=64, d=500, m=40, dtype=dtype)
    origin, options = torch.zeros_like(problem.x), {"radius": radius, "step": radius, "activation": "tanh"}
    attacked = bk.l2_pgd(origin, labels(problem), problem.W, problem.a, **options).x
    norm = exact_norm(attacked)
    assert (norm <= radius * (1 + 4 * torch.finfo(dtype).eps)).all()
    assert (norm >= radius * (1 - 4 * torch.finfo(dtype).eps)).all()


def exact_norm(rows: Tensor) -> Tensor:
    return torch.tensor(
        [math.sqrt(math.fsum(v * v for v in row)) for row in rows.double().tolist()], dtype=torch.float64
    )


@norms
@pytest.mark.parametrize("scale", [1e-6, 1e-3, 1e3, 1e6])
def test_scaling_the_network_changes_no_decision(norm: str, scale: float) -> None:
    """A saturated loss hides nothing: f and scale·f have the same robust accuracy, and the same attacked points."""
    x, y, W, a = sample()
    plain, scaled = (attack(norm, x, y, W, head, radius=0.5) for head in (a, a * scale))
    torch.testing.assert_close(scaled.x, plain.x, atol=SAME_PATH, rtol=0)
    assert torch.equal(plain.success, scaled.success)


@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_two_logits_are_attacked_like_one(scale: float) -> None:
    x, y, W, a = sample(torch.float64)
    one = bk.l2_pgd(x, y, W, scale * a, radius=0.5)
    two = bk.l2_pgd(x, (y > 0).long(), W, torch.stack([0 * a, scale * a]), radius=0.5)
    torch.testing.assert_close(two.x, one.x, atol=1e-12, rtol=0)
    torch.testing.assert_close(two.margin, one.margin, atol=1e-12 * scale, rtol=1e-12)


def test_a_true_zero_gradient_makes_no_step() -> None:
    x, y, W, a = sample()
    W, a = torch.cat([W, W]), torch.cat([a, -a])  # paired neurons: f = 0 everywhere
    assert torch.equal(bk.l2_pgd(x, y, W, a, radius=1.0).x, x)


@norms
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_row_that_is_not_finite_touches_no_other(norm: str, bad: float) -> None:
    x, y, W, a = sample()
    broken = x.clone()
    broken[5, 3] = bad
    clean, found = (attack(norm, points, y, W, a, radius=0.5) for points in (x, broken))
    others = torch.arange(len(x)) != 5
    for name in ("x", "logits", "margin"):
        assert getattr(found, name)[5].isnan().all()
        assert torch.equal(getattr(found, name)[others], getattr(clean, name)[others])
    assert found.success[5]  # a NaN never looks robust


@pytest.mark.parametrize("size", [1e-30, 1e-15, 1e15])
def test_the_size_of_the_weights_does_not_matter(size: float) -> None:
    x, y, W, a = sample()
    plain, scaled = bk.l2_pgd(x, y, W, a, radius=0.5), bk.l2_pgd(x, y, W * size, a, radius=0.5)
    torch.testing.assert_close(scaled.x, plain.x, atol=SAME_PATH, rtol=0)


@pytest.mark.parametrize(
    ("norm", "algorithm"), [("l2", "dense"), ("l2", "half_sparse"), ("l2", "gram"), ("linf", "dense")]
)
def test_results_do_not_depend_on_threads_or_on_the_batch(norm: str, algorithm: str) -> None:
    x, y, W, a = sample(n=100)
    options = {"radius": 0.5, "algorithm": algorithm}
    threads = torch.get_num_threads()
    whole = attack(norm, x, y, W, a, **options)
    try:
        torch.set_num_threads(1)
        single = attack(norm, x, y, W, a, **options)
    finally:
        torch.set_num_threads(threads)
    parts = [attack(norm, x[i : i + 13], y[i : i + 13], W, a, **options) for i in range(0, 100, 13)]
    for name in ("x", "logits", "margin"):
        assert torch.equal(getattr(single, name), getattr(whole, name))
        assert torch.equal(torch.cat([getattr(part, name) for part in parts]), getattr(whole, name))


def test_restarts_and_worst_iterates_only_strengthen() -> None:
    x, y, W, a = sample(n=200)
    options = {"radius": 1.5, "step": 0.5, "steps": 5}
    last = bk.l2_pgd(x, y, W, a, **options)
    worst = bk.l2_pgd(x, y, W, a, **options, keep="worst")
    many = bk.l2_pgd(x, y, W, a, **options, keep="worst", restarts=5, generator=torch.Generator().manual_seed(1))
    assert (worst.margin <= last.margin).all()
    assert (many.margin <= worst.margin).all()
    assert (many.margin < worst.margin).any()
    f = bk.two_layer(many.x, W, a)
    torch.testing.assert_close(many.margin, y * f)
    assert ((many.x - x).norm(dim=1) <= 1.5 * (1 + 1e-5)).all()


def test_restarts_follow_the_generator_and_nothing_else() -> None:
    x, y, W, a = sample()
    before = torch.get_rng_state()
    runs = [
        bk.l2_pgd(x, y, W, a, radius=1.0, restarts=3, generator=torch.Generator().manual_seed(seed)).x
        for seed in (0, 0, 1)
    ]
    bk.l2_pgd(x, y, W, a, radius=1.0)
    assert torch.equal(runs[0], runs[1])
    assert not torch.equal(runs[0], runs[2])
    assert torch.equal(torch.get_rng_state(), before)


@norms
def test_trajectory_has_every_iterate(norm: str) -> None:
    x, y, W, a = sample()
    one = attack(norm, x, y, W, a, radius=1.0, steps=4, trajectory=True)
    many = attack(norm, x, y, W, a, radius=1.0, steps=4, trajectory=True, restarts=3)
    assert one.trajectory.shape == (5, *x.shape)
    assert many.trajectory.shape == (3, 5, *x.shape)
    assert torch.equal(one.trajectory[0], x)
    assert torch.equal(one.trajectory[-1], one.x)
    assert attack(norm, x, y, W, a, radius=1.0).trajectory is None


def test_an_infinite_radius_does_not_project() -> None:
    x, y, W, a = sample(torch.float64)
    far = bk.l2_pgd(x, y, W, a, radius=math.inf, step=1.0, steps=3, activation="identity").x
    torch.testing.assert_close(far, bk.l2_pgd(x, y, W, a, radius=100.0, step=1.0, steps=3, activation="identity").x)
    torch.testing.assert_close((far - x).norm(dim=1), torch.full((len(x),), 3.0, dtype=torch.float64))


def test_leaves_no_gradient_and_needs_none() -> None:
    x, y, W, a = (t.requires_grad_() if i != 1 else t for i, t in enumerate(sample()))
    attacked = bk.l2_pgd(x, y, W, a, radius=0.5)
    assert not any(t.requires_grad for t in (attacked.x, attacked.logits, attacked.margin))
    assert x.grad is None
    assert W.grad is None
    assert a.grad is None


def test_regression_pushes_away_from_the_target() -> None:
    problem = make_problem(n=20, heads=3)
    attacked = bk.l2_pgd(problem.x, problem.cotangent, problem.W, problem.a, radius=0.5, loss="squared")
    before = -(bk.two_layer(problem.x, problem.W, problem.a) - problem.cotangent).square().sum(-1)
    assert (attacked.margin < before).all()
    with pytest.raises(ValueError, match="success: regression has none"):
        _ = attacked.success


@pytest.mark.parametrize(("loss", "heads"), [("margin", None), ("margin", 1), ("margin", 3), ("squared", None)])
@pytest.mark.parametrize("batch", [(), (2,)], ids=["one network", "two networks"])
def test_labels_may_have_one_more_dimension_of_size_one(loss: str, heads: int | None, batch: tuple[int, ...]) -> None:
    problem = make_problem(n=6, heads=heads, batch=batch)
    y = labels(problem, loss)
    plain, columns = (
        bk.l2_pgd(problem.x, targets, problem.W, problem.a, radius=0.5, loss=loss) for targets in (y, y[..., None])
    )
    assert torch.equal(columns.x, plain.x)
    with pytest.raises(ValueError, match="y: got shape"):
        bk.l2_pgd(problem.x, y[..., None].expand(*y.shape, 2), problem.W, problem.a, radius=0.5, loss=loss)


def test_numpy_arrays_are_accepted() -> None:
    x, y, W, a = sample()
    arrays = bk.l2_pgd(x.numpy(), y.numpy(), W.numpy(), a.numpy(), radius=0.5)
    assert torch.equal(arrays.x, bk.l2_pgd(x, y, W, a, radius=0.5).x)
    read_only = x.numpy().copy()
    read_only.setflags(write=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for points in (read_only, np.flip(np.flip(x.numpy()).copy()), x.numpy().astype(">f4")):
            assert torch.equal(bk.l2_pgd(points, y, W, a, radius=0.5).x, arrays.x)


def test_sizes_of_other_number_types_are_the_same_sizes() -> None:
    x, y, W, a = sample()
    plain = bk.l2_pgd(x, y, W, a, radius=0.5, step=0.25, steps=3, box=(-1, 1)).x
    options = {"radius": np.float32(0.5), "step": torch.tensor(0.25), "steps": np.int64(3), "box": np.array([-1, 1])}
    assert torch.equal(bk.l2_pgd(x, y, W, a, **options).x, plain)


def test_a_start_outside_of_the_box_is_clamped_before_it_counts() -> None:
    x, y, W, a = sample()
    x, start = x.sigmoid(), x.sigmoid() + 0.5
    for model in ((W, a), lambda points: bk.two_layer(points, W, a)):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "the model is attacked through autograd")
            found = bk.attack_model(model, x, y, radius=3.0, box=(0, 1), start=start, keep="worst", trajectory=True)
        for points in (found.x, found.trajectory):
            assert points.min() >= 0
            assert points.max() <= 1
        torch.testing.assert_close(found.trajectory[0], start.clamp(0, 1))


def test_the_plan_says_what_ran() -> None:
    x, y, W, a = sample()
    plan = bk.l2_pgd(x, y, W, a, radius=0.5).plan
    assert plan == bk.plan(n=33, d=17, m=40, steps=20)
    of_classes = bk.l2_pgd(x, y.long().clamp_min(0), W, torch.stack([a] * 5), radius=0.5).plan
    assert of_classes == bk.plan(n=33, d=17, m=40, heads=5, steps=20)


def test_networks_that_share_their_samples_share_a_start() -> None:
    problem = make_problem(batch=(3,), shared=True)
    y, start = labels(problem), problem.x + 0.1
    shared, own = (
        bk.l2_pgd(problem.x, y, problem.W, problem.a, radius=0.5, start=begun)
        for begun in (start, start.expand(3, *start.shape))
    )
    assert torch.equal(shared.x, own.x)


VMAPPED = [{}, {"n": (2, 3), "heads": 2}, {"batch": (2,)}, {"batch": (2, 2), "shared": True}]


@pytest.mark.parametrize("shape", VMAPPED, ids=str)
@pytest.mark.parametrize("mapped", ["x", "y", "W", "head_bias", "radius", "x y radius", "W a bias", "x y W a radius"])
def test_vmap_is_a_loop(shape: dict[str, Any], mapped: str, capfd: pytest.CaptureFixture[str]) -> None:
    draws = [make_problem(**shape, seed=seed) for seed in range(3)]
    radii = [torch.rand(labels(draw).shape, dtype=torch.float64) for draw in draws]
    every = [{**draw.tensors(), "y": labels(draw), "radius": radius} for draw, radius in zip(draws, radii, strict=True)]
    options = {"steps": 3, "trajectory": True, "activation": "tanh"}

    def found(given: dict[str, Tensor]) -> tuple[Tensor, ...]:
        network = {name: given[name] for name in ("bias", "head_bias", "radius")}
        attacked = bk.l2_pgd(given["x"], given["y"], given["W"], given["a"], **network, **options)
        return attacked.x, attacked.logits, attacked.margin, attacked.trajectory

    names = mapped.split()
    stacked = {**every[0], **{name: torch.stack([draw[name] for draw in every]) for name in names}}
    ours = torch.func.vmap(found, ({name: 0 if name in names else None for name in stacked},))(stacked)
    loop = [found({**every[0], **{name: draw[name] for name in names}}) for draw in every]
    for got, want in zip(ours, zip(*loop, strict=True), strict=True):
        torch.testing.assert_close(got, torch.stack(want), atol=1e-10, rtol=1e-10)  # of paths: see test_attack_path.py
    assert "batching rule" not in capfd.readouterr().err  # torch's fallback, one sample at a time


def test_compiles_without_a_graph_break() -> None:
    x, y, W, a = sample()

    def robust(x: Tensor, y: Tensor) -> Tensor:
        return bk.l2_pgd(x, y, W, a, radius=0.5).success.float().mean()

    def restarted(x: Tensor, y: Tensor) -> Tensor:
        return bk.l2_pgd(x, y, W, a, radius=0.5, restarts=2, keep="worst").x

    compiled = torch.compile(robust, fullgraph=True, dynamic=True)
    for n in (33, 20):
        assert compiled(x[:n], y[:n]) == robust(x[:n], y[:n])
    # Other draws than without the compiler, so only the ball is compared.
    found = torch.compile(restarted, fullgraph=True, dynamic=True, backend="aot_eager")(x, y)
    assert ((found - x).norm(dim=1) <= 0.5 * (1 + 1e-5)).all()
