"""The oracle itself: against torch.autograd, a naive attack loop, and the sentences that define it."""

import math
from types import SimpleNamespace

import pytest
import torch
from problems import SMALL_SHAPES, every_shape, make_problem, small_shapes

from benign_kernels import reference
from benign_kernels.activation import LeakyReLU, OddPower, SmoothLeakyReLU, activations

inf, nan = math.inf, math.nan


def naive_two_layer(x, W, a, bias=None, head_bias=None, phi=torch.relu, patches=1):
    """One network and one point at a time."""
    if W.dim() > 2:
        pick = lambda t, i: None if t is None else t[i]  # noqa: E731
        parts = [
            naive_two_layer(
                x if x.dim() == 2 else x[i], W[i], a[i], pick(bias, i), pick(head_bias, i), phi=phi, patches=patches
            )
            for i in range(W.shape[0])
        ]
        return torch.stack(parts) if parts else torch.zeros(reference.row_shape(x, W) + reference.head_shape(W, a))
    if x.dim() > 1:
        parts = [naive_two_layer(row, W, a, bias, head_bias, phi, patches) for row in x]
        return torch.stack(parts) if parts else torch.zeros(x.shape[:-1] + a.shape[:-1])
    total = torch.zeros(a.shape[:-1], dtype=x.dtype) if head_bias is None else head_bias
    for patch in x.reshape(patches, W.shape[1]):
        h = W @ patch if bias is None else W @ patch + bias
        total = total + (a * phi(h)).sum(-1)
    return total


@every_shape
def test_the_value_is_the_sum_over_neurons_and_patches(shape):
    p = make_problem(**shape)
    want = naive_two_layer(p.x, p.W, p.a, **p.network).double()
    torch.testing.assert_close(reference.two_layer(p.x, p.W, p.a, **p.network), want)


@pytest.mark.parametrize("phi", activations(), ids=repr)
@small_shapes
def test_the_gradients_are_autograds(shape, phi):
    p = make_problem(**shape).requires_grad()
    rows = reference.row_shape(p.x, p.W)
    expanded = p.x.detach().expand(rows + p.x.shape[-1:]).clone().requires_grad_()
    f = reference.two_layer(expanded, p.W, p.a, **p.network, activation=phi)
    inputs = [expanded, p.W, p.a, p.bias] if p.bias is not None else [expanded, p.W, p.a]
    want = torch.autograd.grad(f, inputs, p.cotangent)
    same, gx = reference.two_layer_value_and_grad(p.x, p.W, p.a, cotangent=p.cotangent, **p.network, activation=phi)
    torch.testing.assert_close(same, f)
    torch.testing.assert_close(gx, want[0])
    grads = reference.two_layer_parameter_grad(p.x, p.W, p.a, cotangent=p.cotangent, **p.hidden, activation=phi)
    for got, expected in zip(grads, want[1:], strict=False):
        torch.testing.assert_close(got, expected)


# ---- one projected step ----------------------------------------------------------------------------------------------


def test_a_step_has_its_length_and_ends_in_the_ball():
    x, origin, g = torch.randn(3, 20, 7, generator=torch.Generator().manual_seed(0)).double()
    x = origin + 0.1 * x
    moved = reference.l2_pgd_step(x, origin, g, step=0.25, radius=inf)
    torch.testing.assert_close(moved, x + 0.25 * g / g.norm(dim=1, keepdim=True))
    short = reference.l2_pgd_step(x, origin, g, step=5.0, radius=0.5)
    torch.testing.assert_close((short - origin).norm(dim=1), torch.full((20,), 0.5).double())
    cube = reference.linf_pgd_step(x, origin, g, step=0.25, radius=0.3)
    torch.testing.assert_close(cube, origin + (x - origin + 0.25 * g.sign()).clamp(-0.3, 0.3))


@pytest.mark.parametrize("step", [reference.l2_pgd_step, reference.linf_pgd_step])
def test_edge_rules_of_a_step(step):
    x = torch.tensor([[-0.0, 0.3], [0.5, 3.0]]).double()
    origin, zero = x + 0.25, torch.zeros(2, 2).double()
    torch.testing.assert_close(step(x, origin, zero, step=1.0, radius=9.0), x, rtol=0, atol=0)
    torch.testing.assert_close(step(x, origin, x, step=0.0, radius=9.0), x, rtol=0, atol=0)
    torch.testing.assert_close(step(x, origin, x + 1, step=1.0, radius=0.0), origin, rtol=0, atol=0)
    assert step(x, x, zero, step=1.0, radius=1.0).signbit()[0, 0]
    tiny, huge = (step(x, origin, scale * (x + 1), step=0.5, radius=9.0) for scale in (1e-300, 1e300))
    torch.testing.assert_close(tiny, huge)
    for bad in (nan, inf):
        spoiled = x.clone()
        spoiled[0, 1] = bad
        for arguments in ((spoiled, origin, x), (x, spoiled, x), (x, origin, spoiled)):
            rows = step(*arguments, step=1.0, radius=1.0)
            assert rows[0].isnan().all()
            assert rows[1].isfinite().all()
    for keywords in ({"step": -1.0, "radius": 1.0}, {"step": 1.0, "radius": -1.0}, {"step": nan, "radius": 1.0}):
        assert step(x, origin, x, **keywords).isnan().all()
    per_row = step(x, origin, x + 1, step=torch.tensor([1.0, nan]), radius=torch.tensor([1.0, 1.0]))
    assert per_row[0].isfinite().all()
    assert per_row[1].isnan().all()


# ---- the attack ------------------------------------------------------------------------------------------------------


def naive_attack(p, y, phi, *, radius, step, steps, loss_of, norm="l2", box=None, start=None):
    """The loop as everybody writes it, with autograd and one row at a time."""
    x0 = p.x.expand(reference.row_shape(p.x, p.W) + p.x.shape[-1:])
    x = x0 if start is None else start
    for _ in range(steps):
        x = x.detach().requires_grad_()
        loss = loss_of(reference.two_layer(x, p.W, p.a, **p.network, activation=phi), y).sum()
        (g,) = torch.autograd.grad(loss, x)
        if norm == "l2":
            delta = x.detach() - x0 + step * g / g.norm(dim=-1, keepdim=True)
            delta = delta * (radius / delta.norm(dim=-1, keepdim=True)).clamp(max=1)
        else:
            delta = (x.detach() - x0 + step * g.sign()).clamp(-radius, radius)
        x = x0 + delta
        if box is not None:
            x = x.clamp(*box)
    return x.detach()


def logistic(f, y):
    return torch.nn.functional.softplus(-y * f)


def multi_margin(f, y):
    """logsumexp of the others minus the label's: what the scale-free cross-entropy ascends."""
    chosen = torch.nn.functional.one_hot(y, f.shape[-1]).bool()
    return f.masked_fill(chosen, -inf).logsumexp(-1) - f[chosen].reshape(y.shape)


def squared(f, y):
    return (f - y).square() if f.shape == y.shape and f.dim() == 1 else (f - y).square().sum(-1)


def labels(p, loss="margin"):
    generator = torch.Generator().manual_seed(1)
    rows, heads = reference.row_shape(p.x, p.W), reference.head_shape(p.W, p.a)
    if loss == "squared":
        return torch.randn(rows + heads, generator=generator).double()
    if heads.numel() > 1:
        return torch.randint(heads.numel(), rows, generator=generator)
    return torch.randint(2, rows, generator=generator).double() * 2 - 1


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("box", [None, (-0.5, 1.0)], ids=["free", "box"])
@pytest.mark.parametrize("phi", [SmoothLeakyReLU(0.2), LeakyReLU(0.1)], ids=repr)
@pytest.mark.parametrize("shape", SMALL_SHAPES.values(), ids=SMALL_SHAPES.keys())
def test_the_attack_is_the_loop_everybody_writes(shape, phi, box, norm):
    p = make_problem(**shape)
    y = labels(p)
    attack = reference.l2_pgd if norm == "l2" else reference.linf_pgd
    got = attack(p.x, y, p.W, p.a, **p.network, activation=phi, radius=0.8, step=0.2, steps=7, box=box)
    loss_of = logistic if p.cotangent.shape == y.shape else multi_margin
    want = naive_attack(p, y, phi, radius=0.8, step=0.2, steps=7, loss_of=loss_of, norm=norm, box=box)
    torch.testing.assert_close(got.x, want, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(
        got.logits, naive_two_layer(got.x, p.W, p.a, **p.network, phi=phi).reshape(got.logits.shape)
    ) if p.W.dim() < 4 else None


@pytest.mark.parametrize("heads", [None, 3])
def test_the_squared_loss_and_the_loss_direction(heads):
    p = make_problem(n=6, heads=heads)
    phi = SmoothLeakyReLU(0.2)
    y = labels(p, "squared")
    common = {"activation": phi, "radius": 0.8, "step": 0.2, "steps": 5, **p.network}
    want = naive_attack(
        p, y, phi, radius=0.8, step=0.2, steps=5, loss_of=lambda f, y: ((f - y) ** 2).reshape(6, -1).sum(1)
    )
    exact = reference.l2_pgd(p.x, y, p.W, p.a, loss="squared", **common)
    torch.testing.assert_close(exact.x, want)
    torch.testing.assert_close(exact.margin, -((exact.logits - y) ** 2).reshape(6, -1).sum(1))
    for rule in ("added", "clipped", "squared"):
        direction = SimpleNamespace(floor_rule=rule, floor=1e-30, loss_scale=1 / 6)
        got = reference.l2_pgd(p.x, y, p.W, p.a, loss="squared", direction=direction, **common)
        torch.testing.assert_close(got.x, want)
        # A floor far above the gradient makes the step proportional to it.
        direction = SimpleNamespace(floor_rule=rule, floor=1e9, loss_scale=1.0)
        still = reference.l2_pgd(p.x, labels(p), p.W, p.a, direction=direction, **common)
        assert 0 < (still.x - p.x).abs().max() < 1e-3


def test_cross_entropy_and_logistic_directions_are_their_gradients():
    direction = SimpleNamespace(floor_rule="clipped", floor=1e-30, loss_scale=1.0)
    for heads, loss_of in (
        (None, logistic),
        (4, lambda f, y: torch.nn.functional.cross_entropy(f, y, reduction="none")),
    ):
        p = make_problem(n=6, heads=heads)
        y = labels(p)
        phi = SmoothLeakyReLU(0.2)
        got = reference.l2_pgd(
            p.x, y, p.W, p.a, **p.network, activation=phi, radius=0.8, step=0.3, steps=4, direction=direction
        )
        want = naive_attack(p, y, phi, radius=0.8, step=0.3, steps=4, loss_of=loss_of)
        torch.testing.assert_close(got.x, want)


def test_two_heads_walk_like_the_one_head_of_their_difference():
    p = make_problem(n=9, heads=2, head_bias=False)
    y = labels(p)
    two = reference.l2_pgd(p.x, y, p.W, p.a, bias=p.bias, radius=1.0, steps=6)
    one = reference.l2_pgd(p.x, 2.0 * y - 1, p.W, p.a[1] - p.a[0], bias=p.bias, radius=1.0, steps=6)
    torch.testing.assert_close(two.x, one.x)
    torch.testing.assert_close(two.margin, one.margin)


def attack_problem():
    p = make_problem(n=6, d=4, m=9)
    return p, labels(p), lambda **kw: reference.l2_pgd(p.x, labels(p), p.W, p.a, **p.network, **{"radius": 1.0, **kw})


def test_nothing_to_do_returns_x_bit_for_bit():
    p, _y, attack = attack_problem()
    p.x[0, 0] = -0.0
    for keywords in ({"radius": 0.0}, {"step": 0.0}, {"steps": 0}):
        got = attack(**keywords).x
        assert torch.equal(got, p.x)
        assert torch.equal(got.signbit(), p.x.signbit())


def test_default_step_trajectory_and_worst_iterate():
    p, y, attack = attack_problem()
    got = attack(steps=5, trajectory=True)
    assert torch.equal(got.x, attack(steps=5, step=0.5).x)
    assert got.trajectory.shape == (6, 6, 4)
    assert torch.equal(got.trajectory[0], p.x)
    assert torch.equal(got.trajectory[-1], got.x)
    for k in range(6):
        assert torch.equal(got.trajectory[k], attack(steps=k, step=0.5).x)
    margins = torch.stack([attack(steps=k, step=0.5).margin for k in range(6)])
    worst = attack(steps=5, keep="worst")
    assert torch.equal(worst.margin, margins.amin(0))
    assert torch.equal(worst.x, got.trajectory[margins.argmin(0), torch.arange(6)])
    torch.testing.assert_close(worst.margin, y * worst.logits)


def test_start_is_projected_and_an_infinite_radius_projects_nothing():
    p, _y, attack = attack_problem()
    far = p.x + 10 * torch.ones_like(p.x)
    got = attack(start=far, steps=0, radius=0.5).x
    torch.testing.assert_close(got, p.x + 0.25)
    free = attack(start=far, steps=3, step=1.0, radius=inf, trajectory=True).trajectory
    assert torch.equal(free[0], far)
    torch.testing.assert_close((free[1:] - free[:-1]).norm(dim=-1), torch.ones(3, 6).double())


def test_the_gradient_of_paired_neurons_is_zero():
    p = make_problem(n=6, m=8, bias=False)
    W, a = torch.cat([p.W, p.W]), torch.cat([p.a, -p.a])
    for attack in (reference.l2_pgd, reference.linf_pgd):
        assert torch.equal(attack(p.x, labels(p), W, a, radius=1.0, steps=3).x, p.x)


def test_the_attack_is_blind_to_the_scale_of_f():
    p, y, attack = attack_problem()
    for scale in (1e-200, 1e200):
        got = reference.l2_pgd(p.x, y, p.W, scale * p.a, bias=p.bias, radius=1.0, steps=5).x
        torch.testing.assert_close(got, attack(steps=5).x)


@pytest.mark.parametrize("place", ["x0", "start", "label", "radius", "step"])
def test_a_bad_row_is_nan_and_touches_no_other(place):
    p, y, _attack = attack_problem()
    arguments = {"x0": p.x, "label": y, "start": p.x + 0.1, "radius": torch.ones(6), "step": torch.full((6,), 0.2)}

    def run(arguments):
        arguments = dict(arguments)
        x0, label = arguments.pop("x0"), arguments.pop("label")
        return reference.l2_pgd(x0, label, p.W, p.a, **p.network, **arguments, steps=4, trajectory=True)

    good = run(arguments)
    spoiled = dict(arguments)
    spoiled[place] = arguments[place].clone()
    spoiled[place][2] = nan
    got = run(spoiled)
    others = [0, 1, 3, 4, 5]
    for part in ("x", "logits", "margin"):
        assert getattr(got, part)[2].isnan().all()
        assert torch.equal(getattr(got, part)[others], getattr(good, part)[others])
    assert got.trajectory[:, 2].isnan().all()


def test_an_overflow_on_the_way_is_nan_from_then_on():
    p = make_problem(n=3, d=4, m=5, bias=False, head_bias=False)
    got = reference.l2_pgd(
        p.x, labels(p), p.W, p.a, activation=OddPower(3), radius=inf, step=1e110, steps=3, trajectory=True
    )
    finite = got.trajectory.isfinite().all(-1)
    assert finite[0].all()
    assert not finite[1:].any()
    assert got.margin.isnan().all()


def test_labels_outside_their_set_are_nan():
    p = make_problem(n=4)
    got = reference.l2_pgd(p.x, torch.tensor([1.0, -1.0, 0.0, 2.0]), p.W, p.a, **p.network, radius=1.0)
    assert got.margin.isnan().tolist() == [False, False, True, True]
    p = make_problem(n=4, heads=3)
    got = reference.l2_pgd(p.x, torch.tensor([0, 2, 3, -1]), p.W, p.a, **p.network, radius=1.0)
    assert got.margin.isnan().tolist() == [False, False, True, True]
