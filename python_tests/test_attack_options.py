"""What an attack may be asked to leave out: the points, the steps of samples that are wrong already, a known W Wᵀ."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from models import SIGNS, X, assert_same, sequential
from models import attack as attack_model
from problems import Problem, labels, make_problem, small_shapes

import benign_kernels as bk
from benign_kernels import reference

DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16], ids=str)
ALGORITHMS = pytest.mark.parametrize("algorithm", ["dense", "half_sparse", "gram"])
#: Shapes that every algorithm applies to, and others that most do.
SHAPES = {
    "plain": {"n": 33, "d": 17, "m": 40},
    "networks": {"batch": (3,), "n": 9, "d": 7, "m": 20},
    "patches": {"n": 9, "d": 6, "m": 20, "patches": 3},
    "heads": {"n": 20, "d": 7, "m": 20, "heads": 3},
}
shapes = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
OPTIONS = {"radius": 0.8, "steps": 8}


def attack(problem: Problem, **options: Any) -> bk.AttackResult:
    """By the algorithm that ``options`` name, where it applies."""
    if options.get("algorithm") == "half_sparse" and problem.a.dim() == problem.W.dim():
        pytest.skip("for one head")
    return bk.l2_pgd(problem.x, labels(problem), problem.W, problem.a, **problem.network, **{**OPTIONS, **options})


# ---- need="margin" ---------------------------------------------------------------------------------------------------


@shapes
@DTYPES
@ALGORITHMS
@pytest.mark.parametrize("options", [{}, {"keep": "worst"}, {"restarts": 3}, {"early_stop": True}], ids=str)
def test_margins_do_not_depend_on_whether_points_are_asked_for(
    shape: dict[str, Any], dtype: torch.dtype, algorithm: str, options: dict[str, Any]
) -> None:
    problem = make_problem(**shape, dtype=dtype)
    with_points, without = (
        attack(problem, algorithm=algorithm, need=need, generator=torch.Generator().manual_seed(0), **options)
        for need in ("x", "margin")
    )
    assert torch.equal(with_points.margin, without.margin)
    assert torch.equal(with_points.logits, without.logits)
    assert torch.equal(with_points.success, without.success)
    assert without.trajectory is None
    with pytest.raises(ValueError, match=r"^x: was not computed, as need='margin' was asked for; expected need='x'$"):
        _ = without.x


@pytest.mark.parametrize("mapped", ["x", "W"])
def test_margins_alone_under_vmap_and_the_compiler(mapped: str) -> None:
    problem = make_problem()
    y = labels(problem)

    def margins(x: torch.Tensor, W: torch.Tensor) -> torch.Tensor:
        return bk.l2_pgd(x, y, W, problem.a, **OPTIONS, need="margin").margin

    scales = torch.tensor([1.0, 1.1, 1.2], dtype=torch.float64)[:, None, None]
    x, W = (scales * problem.x, problem.W) if mapped == "x" else (problem.x, scales * problem.W)
    found = torch.func.vmap(margins, (0, None) if mapped == "x" else (None, 0))(x, W)
    for i in range(3):
        pair = (x[i], W) if mapped == "x" else (x, W[i])
        torch.testing.assert_close(found[i], margins(*pair), rtol=1e-10, atol=1e-10)
    compiled = torch.compile(margins, fullgraph=True, dynamic=True, backend="aot_eager")
    assert torch.equal(compiled(problem.x, problem.W), margins(problem.x, problem.W))


def test_models_are_asked_for_margins_alone() -> None:
    for generic in (False, True):
        found = attack_model(sequential(generic=generic), need="margin")
        assert torch.equal(found.margin, attack_model(sequential(generic=generic)).margin)
        with pytest.raises(ValueError, match="x: was not computed"):
            _ = found.x


# ---- early_stop ------------------------------------------------------------------------------------------------------


@small_shapes
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("keep", ["last", "worst"])
@pytest.mark.parametrize("trajectory", [False, True])
def test_early_stop_follows_the_reference(
    shape: dict[str, Any], norm: str, keep: str, trajectory: bool, device: torch.device
) -> None:
    problem = make_problem(**shape, device=device)
    y = labels(problem)
    name = f"{norm}_pgd"
    options = {"radius": 0.7, "steps": 9, "early_stop": True, "keep": keep, "trajectory": trajectory}
    ours = getattr(bk, name)(problem.x, y, problem.W, problem.a, **problem.network, **options)
    theirs = getattr(reference, name)(problem.x, y, problem.W, problem.a, **problem.network, **options)
    for part in ("x", "logits", "margin", "trajectory"):
        found, want = getattr(ours, part), getattr(theirs, part)
        assert (found is None) == (want is None)
        if want is not None:
            torch.testing.assert_close(found, want, rtol=1e-10, atol=1e-10)


@shapes
@DTYPES
@ALGORITHMS
@pytest.mark.parametrize("need", ["x", "margin"])
def test_a_sample_rests_at_its_first_success(
    shape: dict[str, Any], dtype: torch.dtype, algorithm: str, need: str
) -> None:
    """Until then it walks as it would without; so it succeeds exactly where the worst iterate does."""
    problem = make_problem(**shape, dtype=dtype)
    stopped = attack(problem, algorithm=algorithm, early_stop=True, need=need)
    worst = attack(problem, algorithm=algorithm, keep="worst")
    free = attack(problem, algorithm="dense", trajectory=True)
    assert 0.1 < stopped.success.double().mean() < 0.9
    assert torch.equal(stopped.success, worst.success)
    before = make_problem(**shape, dtype=dtype)
    at_once = attack(before, steps=0).success
    torch.testing.assert_close(stopped.margin[at_once], attack(before, steps=0).margin[at_once])
    torch.testing.assert_close(stopped.margin[~stopped.success], free.margin[~stopped.success])
    if need == "x":
        torch.testing.assert_close(stopped.x[at_once], problem.x.expand(stopped.x.shape)[at_once].to(stopped.x))
        near = (stopped.x.unsqueeze(0) - free.trajectory).norm(dim=-1).amin(0)
        assert near.max() < 1e-4  # it is an iterate of the free walk


def test_what_rests_depends_on_no_other_sample() -> None:
    """Panels end when all of their samples rest: the bits must not tell."""
    problem = make_problem(n=100, d=17, m=40, dtype=torch.float32)
    y = labels(problem)
    for algorithm in ("dense", "half_sparse", "gram"):
        options = {**OPTIONS, "early_stop": True, "algorithm": algorithm}
        whole = bk.l2_pgd(problem.x, y, problem.W, problem.a, **options)
        parts = [
            bk.l2_pgd(x, part, problem.W, problem.a, **options)
            for x, part in zip(problem.x.split(7), y.split(7), strict=True)
        ]
        assert torch.equal(torch.cat([part.margin for part in parts]), whole.margin)
        assert torch.equal(torch.cat([part.x for part in parts]), whole.x)


@ALGORITHMS
def test_restarts_stop_each_for_itself(algorithm: str) -> None:
    problem = make_problem(n=100, d=17, m=40, dtype=torch.float32)
    options = {"radius": 0.5, "algorithm": algorithm, "restarts": 4}
    stopped, free = (
        attack(problem, **options, early_stop=early_stop, keep=keep, generator=torch.Generator().manual_seed(3))
        for early_stop, keep in ((True, "last"), (False, "worst"))
    )
    assert torch.equal(stopped.success, free.success)
    assert (stopped.margin >= free.margin - 1e-5).all()


@pytest.mark.parametrize("trajectory", [False, True])
@pytest.mark.parametrize("algorithm", ["dense", "half_sparse", "gram"])
def test_the_gradient_of_a_sample_at_rest_is_not_looked_at(algorithm: str, trajectory: bool) -> None:
    if trajectory and algorithm == "gram":
        pytest.skip("has no trajectory")
    W, a, x = torch.tensor([[1e30]]), torch.tensor([1e30]), torch.tensor([[1e-30], [1e-30]])  # f = 1e30, g overflows
    options = {"radius": 1.0, "steps": 2, "early_stop": True, "algorithm": algorithm, "trajectory": trajectory}
    alone = bk.l2_pgd(x[:1], torch.tensor([-1.0]), W, a, **options)
    beside = bk.l2_pgd(x, torch.tensor([-1.0, 1.0]), W, a, **options)
    assert torch.equal(alone.x, x[:1])
    assert torch.equal(beside.x[:1], x[:1])
    model = torch.nn.Sequential(torch.nn.Linear(1, 1, bias=False), torch.nn.ReLU(), torch.nn.Linear(1, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(W)
        model[2].weight.copy_(a[:, None])
    model.register_forward_hook(lambda *arguments: None)
    generic = attack_model(model, x, torch.tensor([-1, 1]), radius=1.0, steps=2, early_stop=True)
    assert torch.equal(generic.x[:1], x[:1])


@pytest.mark.parametrize("logits", [1, 3])
@pytest.mark.parametrize(
    "options", [{}, {"keep": "worst", "norm": "linf", "radius": 0.3}, {"trajectory": True}], ids=str
)
def test_models_stop_early_on_either_path(logits: int, options: dict[str, Any]) -> None:
    y = SIGNS if logits == 1 else torch.arange(9) % logits
    a, b = (
        attack_model(sequential(logits, generic=generic), X, y, **{"early_stop": True, "radius": 1.5, **options})
        for generic in (False, True)
    )
    assert_same(a, b)
    assert a.success.any()


# ---- gram= -----------------------------------------------------------------------------------------------------------


@shapes
@DTYPES
@pytest.mark.parametrize("restarts", [1, 3])
def test_a_known_gram_matrix_changes_nothing(shape: dict[str, Any], dtype: torch.dtype, restarts: int) -> None:
    problem = make_problem(**shape, dtype=dtype)
    W = problem.W.float() if dtype == torch.bfloat16 else problem.W
    options = {"algorithm": "gram", "restarts": restarts}
    without, given = (
        attack(problem, **options, gram=gram, generator=torch.Generator().manual_seed(0)) for gram in (None, W @ W.mT)
    )
    tolerance = 1e-10 if dtype == torch.float64 else 1e-4
    torch.testing.assert_close(given.x, without.x, rtol=0, atol=tolerance)
    torch.testing.assert_close(given.margin, without.margin, rtol=0, atol=tolerance)
    assert given.plan.flops < without.plan.flops
    assert given.plan.algorithm == "gram"


def test_a_known_gram_matrix_is_left_alone_where_another_algorithm_runs() -> None:
    problem = make_problem()
    gram = problem.W @ problem.W.mT
    assert torch.equal(attack(problem, algorithm="dense", gram=gram).x, attack(problem, algorithm="dense").x)


def test_gram_matrices_are_mapped_with_their_networks() -> None:
    draws = [make_problem(seed=seed) for seed in range(3)]
    x, y, a = draws[0].x, labels(draws[0]), draws[0].a
    W = torch.stack([draw.W for draw in draws])

    def margin(W: torch.Tensor, gram: torch.Tensor) -> torch.Tensor:
        return bk.l2_pgd(x, y, W, a, **OPTIONS, gram=gram, algorithm="gram").margin

    found = torch.func.vmap(margin)(W, W @ W.mT)
    for i in range(3):
        torch.testing.assert_close(found[i], margin(W[i], W[i] @ W[i].T), rtol=1e-10, atol=1e-10)


# ---- algorithm= ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("algorithm", "options", "why"),
    [
        ("gram", {"box": (0, 1)}, "knows no box, expected one of 'auto', 'dense', 'half_sparse'"),
        ("gram", {"trajectory": True}, "has no trajectory to return, expected one of 'auto', 'dense', 'half_sparse'"),
        (
            "half_sparse",
            {"activation": "gelu"},
            "needs a piecewise-linear activation, expected one of 'auto', 'dense', 'gram'",
        ),
    ],
    ids=str,
)
def test_an_algorithm_that_does_not_apply_says_why(algorithm: str, options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=f"^algorithm: got '{algorithm}', which {why}$"):
        attack(make_problem(), algorithm=algorithm, **options)


def test_linf_attacks_are_dense() -> None:
    problem = make_problem()
    arguments = (problem.x, labels(problem), problem.W, problem.a)
    assert bk.linf_pgd(*arguments, radius=0.1).plan.algorithm == "dense"
    with pytest.raises(
        ValueError, match=r"^algorithm: got 'gram', which is for l2 attacks, expected one of 'auto', 'dense'$"
    ):
        bk.linf_pgd(*arguments, radius=0.1, algorithm="gram")


def test_autograd_knows_no_algorithms() -> None:
    with pytest.raises(ValueError, match=r"^algorithm: got 'gram' for a model .*, expected 'auto' or 'dense'$"):
        attack_model(sequential(generic=True), algorithm="gram")
