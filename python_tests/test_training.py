"""Adversarial training against a plain float64 loop in R^d: autograd, torch's formulas, and the reference's attack."""

import itertools
import math

import pytest
import torch
from torch import nn
from training_problems import F64, SAME, assert_same_path, normal, oracle, problem, rademacher, train

import benign_kernels as bk

# ---- the trajectory, in the span and in R^d --------------------------------------------------------------------------

RECIPES = {
    "plain": {},
    "momentum": {"momentum": 0.9, "step_size": 2e-3},
    "decay": {"weight_decay": 0.05},
    "distance": {"distance": 0.3},
    "all": {"momentum": 0.5, "weight_decay": 0.02, "distance": 0.8, "mixture": 0.7},
    "schedule": {"step_size": lambda t: 0.02 / (1 + t / 100)},
}


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_hundreds_of_steps_are_those_of_the_plain_loop(recipe):
    parameters, x, y = problem()
    keywords = {"radius": 0.7, "steps": 5, "iterations": 250, "step_size": 0.01, **recipe}
    theirs, losses = oracle(parameters, x, y, **keywords)
    assert losses[-1] < 0.9 * losses[0]
    for span in (True, False):
        ours, fit = train(parameters, x, y, span=span, **keywords)
        assert_same_path(ours, theirs)
        assert (fit.span is None) == (not span)
        if "mixture" not in recipe:
            torch.testing.assert_close(fit.history["robust_loss"][:-1], losses, rtol=SAME, atol=SAME)


@pytest.mark.parametrize("phi", bk.activations(), ids=lambda phi: phi.name)
def test_every_activation(phi):
    parameters, x, y = problem(n=6, d=60, m=4, bias=True)
    keywords = {"radius": 0.5, "steps": 3, "iterations": 200, "step_size": 2e-3, "momentum": 0.5, "activation": phi}
    theirs, _ = oracle(parameters, x, y, **keywords)
    for span in (True, False):
        ours, _ = train(parameters, x, y, span=span, **keywords)
        assert_same_path(ours, theirs)


KINDS = [("logistic", None), ("exponential", None), ("hinge", None), ("squared", None)]
KINDS += [("logistic", 1), ("squared", 3), ("cross_entropy", 3)]


@pytest.mark.parametrize(("loss", "k"), KINDS)
def test_every_loss_with_heads_patches_and_biases(loss, k):
    parameters, x, y = problem(n=6, d=50, m=5, patches=2, k=k, bias=True)
    keywords = {"radius": 0.5, "steps": 3, "iterations": 30, "step_size": 3e-3, "loss": loss, "patches": 2}
    if loss == "cross_entropy":
        y = torch.arange(6) % 3
    elif loss == "squared":
        y = normal(*y.shape, *(() if k is None else (k,)), seed=5)
    plain_loop = _one_head_oracle if k == 1 else oracle
    theirs, losses = plain_loop(parameters, x, y, trained=(True, True, True, True), **keywords)
    for span in (True, False):
        ours, fit = train(parameters, x, y, span=span, train_head=True, **keywords)
        assert_same_path(ours, theirs)
        torch.testing.assert_close(fit.history["robust_loss"][:-1], losses, rtol=SAME, atol=SAME)


def _one_head_oracle(parameters, x, y, **keywords):
    """With one head of its own dimension: as without, and the dimension put back."""
    W, a, bias, head_bias = parameters
    path, losses = oracle([W, a[0], bias, head_bias[0]], x, y, **keywords)
    return [[W, a[None], bias, head_bias[None]] for W, a, bias, head_bias in path], losses


def test_linf_and_boxes_are_trained_in_the_input_space():
    parameters, x, y = problem(n=6, d=40, m=5)
    keywords = {"radius": 0.1, "steps": 3, "iterations": 60, "step_size": 3e-3}
    for more in ({"norm": "linf"}, {"box": (-1.0, 1.0)}):
        theirs, _ = oracle(parameters, x, y, **keywords, **more)
        ours, fit = train(parameters, x, y, **keywords, **more)
        assert fit.span is None
        assert_same_path(ours, theirs)


def test_no_attack_and_radius_zero_are_plain_training():
    parameters, x, y = problem()
    keywords = {"iterations": 50, "step_size": 0.01, "steps": 5}
    theirs, _ = oracle(parameters, x, y, radius=0.0, **keywords)
    for more in ({"radius": 0.0}, {"radius": 3.0, "attack": "none"}, {"radius": 3.0, "mixture": 0.0}):
        ours, _ = train(parameters, x, y, **more, **keywords)
        assert_same_path(ours, theirs)


def test_one_step_is_the_gradient_direction_once():
    parameters, x, y = problem()
    keywords = {"radius": 0.7, "iterations": 50, "step_size": 0.01}
    theirs, _ = oracle(parameters, x, y, steps=1, step=0.7, **keywords)
    ours, _ = train(parameters, x, y, attack="one_step", **keywords)
    assert_same_path(ours, theirs)


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("loss", ["exponential", "squared"])
def test_the_exact_attack_of_linear_networks_reaches_the_dual_norm(norm, loss):
    (W, a), x, y = problem(n=7, d=30, m=3, patches=2)
    radius = torch.linspace(0.1, 0.7, 7, **F64)
    keywords = {"loss": loss, "norm": norm, "activation": "identity", "patches": 2, "step_size": 0.0}
    fit = bk.adversarial_train((W, a), x, y, attack="exact", radius=radius, iterations=0, **keywords)
    w = (a @ W).repeat(2)
    reach = radius * (w.norm() if norm == "l2" else w.abs().sum())
    f = x @ w
    worst = torch.exp(-(y * f - reach)) if loss == "exponential" else 0.5 * ((f - y).abs() + reach) ** 2
    torch.testing.assert_close(fit.history["robust_loss"][0], worst.mean(), rtol=1e-12, atol=0)


def test_the_exact_attack_trains_as_a_long_walk_does():
    parameters, x, y = problem()
    keywords = {"radius": 0.7, "iterations": 50, "step_size": 0.01, "activation": "identity"}
    ours, _ = train(parameters, x, y, attack="exact", **keywords)
    walked, _ = train(parameters, x, y, attack="pgd", steps=1, step=0.7, **keywords)
    assert_same_path(ours, walked)


def test_an_attack_may_be_a_function():
    parameters, x, y = problem()
    keywords = {"radius": 0.7, "iterations": 30, "step_size": 0.01}

    def by_hand(points, labels, net):
        return bk.l2_pgd(points, labels, net.W, net.a, radius=0.7, steps=5).x

    ours, fit = train(parameters, x, y, attack=by_hand, **keywords)
    walked, _ = train(parameters, x, y, steps=5, span=False, **keywords)
    assert fit.span is None
    assert_same_path(ours, walked)


# ---- many networks at once -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("span", [True, False])
@pytest.mark.parametrize("shared", [True, False])
def test_a_batch_of_networks_is_each_network(span, shared):
    """Each with its own labels, radius, step size, momentum, decay, distance and mixture."""
    S, n, d, m = (2, 2), 6, 80, 5
    x = normal(n, d) if shared else normal(*S, n, d)
    W, a, y = normal(*S, m, d, seed=1) / 9, rademacher(*S, m) / 2, rademacher(*S, n, seed=3)
    bias, head_bias = normal(*S, m, seed=4) / 5, normal(*S, seed=5) / 5
    each = {
        "step_size": torch.tensor([[0.01, 0.02], [0.005, 0.01]], **F64),
        "momentum": torch.tensor([[0.0, 0.5], [0.9, 0.2]], **F64),
        "weight_decay": torch.tensor([[0.0, 0.1], [0.02, 0.0]], **F64),
        "distance": torch.tensor([[math.inf, 0.2], [0.4, 9.0]], **F64),
        "mixture": torch.tensor([[1.0, 0.5], [0.0, 0.9]], **F64),
    }
    radius = torch.tensor([[0.3, 0.6], [1.0, 0.0]], **F64)
    keywords = {"iterations": 80, "steps": 4, "activation": "tanh", "span": span}
    names = ("robust_loss", "clean_error", "robust_margin", "weight_norm", "distance", "gradient_norm")
    together = bk.adversarial_train(
        *((W, a, bias, head_bias), x, y), radius=radius[..., None], **each, **keywords, history=names, every=40
    )
    for s in itertools.product(*map(range, S)):
        alone = bk.adversarial_train(
            *((W[s], a[s], bias[s], head_bias[s]), x if shared else x[s], y[s]),
            **{name: value[s].item() for name, value in each.items()},
            **{"radius": radius[s].item(), "history": names, "every": 40, **keywords},
        )
        for got, want in ((together.net.W, alone.net.W), (together.net.head_bias, alone.net.head_bias)):
            torch.testing.assert_close(got[s], want, rtol=SAME, atol=SAME)
        for name in names:
            torch.testing.assert_close(together.history[name][(slice(None), *s)], alone.history[name])


def test_networks_that_differ_in_their_recipe_alone_share_a_basis():
    (W, a), x, y = problem()
    radius = torch.tensor([[0.0], [0.5], [1.0]], **F64)
    batch = (W.expand(3, *W.shape), a.expand(3, *a.shape))
    fit = bk.adversarial_train(batch, x, y, radius=radius, iterations=40, step_size=0.01, span=True)
    assert fit.span.basis.shape == (120, 14)
    alone = bk.adversarial_train((W, a), x, y, radius=1.0, iterations=40, step_size=0.01, span=True)
    torch.testing.assert_close(fit.net.W[2], alone.net.W, rtol=SAME, atol=SAME)


# ---- the span --------------------------------------------------------------------------------------------------------


def test_auto_reduces_where_it_pays_and_the_result_lives_in_r_d():
    net = bk.TwoLayerNet(3000, 8, paired=True, init=1e-3, generator=torch.Generator().manual_seed(0))
    x, y, _ = bk.sample_mixture(20, 3000, 5.0, generator=torch.Generator().manual_seed(1))
    fit = bk.adversarial_train(net, x, y, radius=0.5, iterations=100, step_size=0.01, every=50)
    assert fit.span.rank == 20 + 4
    assert fit.net.weight.shape == (8, 3000)
    test_x, test_y, _ = bk.sample_mixture(50, 3000, 5.0, generator=torch.Generator().manual_seed(2))
    full = bk.attack_model(fit.net, test_x, test_y, radius=0.5)
    reduced = bk.attack_model(fit.reduced, fit.span.reduce(test_x), test_y, radius=0.5)
    torch.testing.assert_close(reduced.margin, full.margin, rtol=1e-3, atol=1e-4)
    few = bk.adversarial_train(net, x, y, radius=0.5, iterations=1, step_size=0.01)
    wide = bk.adversarial_train(bk.TwoLayerNet(10, 50), x[:, :10], y, radius=0.5, iterations=100, step_size=0.01)
    assert few.span is None
    assert wide.span is None


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"norm": "linf"}, "norm='linf' moves along signs"),
        ({"box": (0, 1)}, "a box clamps coordinates"),
        ({"random_start": True, "generator": torch.Generator()}, "random starts lie outside"),
        ({"attack": lambda x, y, net: x}, "the attack is a function"),
        ({"x": torch.full((8, 120), math.nan)}, "x or W is not finite"),
    ],
)
def test_the_span_is_refused_with_the_reason(change, reason):
    parameters, x, y = problem()
    given = {"x": x, "y": y, "radius": 0.5, "iterations": 5, "step_size": 0.01, **change}
    with pytest.raises(ValueError, match=f"^span: got True, but {reason}.*; expected False or 'auto'$"):
        bk.adversarial_train(tuple(parameters), span=True, **given)
    assert bk.adversarial_train(tuple(parameters), span="auto", **given).span is None


def test_linf_without_an_attack_may_be_reduced():
    parameters, x, y = problem()
    keywords = {"norm": "linf", "attack": "none", "iterations": 20, "step_size": 0.01, "radius": 0.1}
    assert bk.adversarial_train(tuple(parameters), x, y, span=True, **keywords).span is not None


def test_dependent_points_and_paired_neurons():
    (W, a), x, y = problem()
    x, y = torch.cat([x, x[:4]]), torch.cat([y, y[:4]])
    W, a = torch.cat([W, W]), torch.cat([a, -a])
    keywords = {"radius": 0.7, "steps": 5, "iterations": 100, "step_size": 0.01}
    theirs, _ = oracle([W, a], x, y, **keywords)
    ours, fit = train([W, a], x, y, span=True, **keywords)
    assert fit.span.rank == 8 + 6
    assert_same_path(ours, theirs)
    untouched = bk.adversarial_train((W, a), x, y, span=True, **{**keywords, "step_size": 0.0})
    assert torch.equal(untouched.net.W, W)


def test_a_sample_drawn_in_the_span_trains_in_a_trillion_dimensions():
    d = 10**12
    sample = bk.sample_reduced(
        20, d, 2e3, m=8, paired=True, tests=200, dtype=torch.float64, generator=torch.Generator().manual_seed(0)
    )
    a = torch.tensor([1.0, -1.0], **F64).repeat_interleave(4) / 8**0.5
    phi = bk.LeakyReLU(0.2)
    keywords = {"radius": 200.0, "iterations": 100, "step_size": 1e-12, "every": 100, "activation": phi}
    fit = bk.adversarial_train((sample.W, a), sample.x, sample.y, **keywords)
    assert fit.history["robust_error"][-1] == 0
    assert (sample.test_y * fit.net(sample.test_x) > 0).double().mean() > 0.95


# ---- the network that is given ---------------------------------------------------------------------------------------


def test_modules_come_back_as_modules_and_are_left_as_they_were():
    x, y = normal(8, 40, dtype=torch.float32), rademacher(8).float()
    net = bk.TwoLayerNet(40, 6, bias=True, head_bias=True, head="trained")
    sequential = nn.Sequential(nn.Linear(40, 6), nn.Tanh(), nn.Linear(6, 1))
    for module in (net, sequential):
        module(x).sum().backward()
        before = {name: (p.clone(), p.grad.clone(), p.requires_grad) for name, p in module.named_parameters()}
        state, training = torch.get_rng_state(), module.training
        fit = bk.adversarial_train(module, x, y, radius=0.1, iterations=5, step_size=0.1)
        assert type(fit.net) is type(module)
        assert torch.equal(torch.get_rng_state(), state)
        assert module.training == training
        for name, p in module.named_parameters():
            value, grad, needs = before[name]
            assert torch.equal(p, value)
            assert torch.equal(p.grad, grad)
            trained = fit.net.get_parameter(name)
            assert trained.requires_grad == needs
            assert trained.grad is None
            assert not torch.equal(trained, p), name


def test_heads_and_biases_are_trained_when_asked_for():
    x, y = normal(8, 40), rademacher(8)
    net = bk.TwoLayerNet(40, 6, bias=True, head_bias=True, **F64)
    keywords = {"radius": 0.1, "iterations": 5, "step_size": 0.1}

    def moved(**more):
        fit = bk.adversarial_train(net, x, y, **keywords, **more).net
        return [
            not torch.equal(getattr(fit, name), getattr(net, name)) for name in ("weight", "head", "bias", "head_bias")
        ]

    assert moved() == [True, False, True, True]
    assert moved(train_head=True, train_bias=False) == [True, True, False, False]


def test_zero_iterations_return_the_network_bit_for_bit():
    parameters, x, y = problem()
    fit = bk.adversarial_train(tuple(parameters), x, y, radius=0.5, iterations=0, step_size=0.1, span=True)
    assert torch.equal(fit.net.W, parameters[0])
    assert fit.net.W.data_ptr() != parameters[0].data_ptr()
    assert fit.history["iteration"].tolist() == [0]


def test_training_goes_on_at_large_margins():
    """In float32 a margin of 40 still pulls: the derivative is 4e-18, not zero."""
    x, y = torch.tensor([[1.0]]), torch.tensor([1.0])
    W, a = torch.tensor([[40.0]]), torch.tensor([1.0])
    fit = bk.adversarial_train((W, a), x, y, radius=0.0, iterations=1, step_size=1e17)
    assert abs(fit.net.W.item() - 40 - 1e17 * math.exp(-40)) < 1e-4


def test_a_network_that_diverges_touches_no_other():
    (W, a), x, y = problem()
    step_size = torch.tensor([0.01, 1e300], **F64)
    batch = (W.expand(2, *W.shape), a.expand(2, -1))
    fit = bk.adversarial_train(batch, x, y, radius=0.5, iterations=20, step_size=step_size, loss="squared")
    alone = bk.adversarial_train((W, a), x, y, radius=0.5, iterations=20, step_size=0.01, loss="squared")
    assert not fit.net.W[1].isfinite().all()
    torch.testing.assert_close(fit.net.W[0], alone.net.W, rtol=SAME, atol=SAME)


def test_numpy_arrays_are_taken():
    parameters, x, y = problem()
    keywords = {"radius": 0.5, "iterations": 5, "step_size": 0.01}
    fit = bk.adversarial_train(tuple(parameters), x.numpy(), y.numpy(), **keywords)
    assert torch.equal(fit.net.W, bk.adversarial_train(tuple(parameters), x, y, **keywords).net.W)


def test_no_samples_and_no_neurons():
    keywords = {"radius": 0.5, "iterations": 3, "step_size": 0.1}
    W, a = normal(4, 5), normal(4)
    assert torch.equal(bk.adversarial_train((W, a), torch.ones(0, 5, **F64), torch.ones(0), **keywords).net.W, W)
    fit = bk.adversarial_train((W[:0], a[:0]), normal(3, 5), torch.ones(3), **keywords)
    assert fit.history["robust_error"].tolist() == [1.0] * 4


def test_autocast_changes_nothing():
    parameters, x, y = ([p.float() for p in part] if isinstance(part, list) else part.float() for part in problem())
    keywords = {"radius": 0.7, "iterations": 10, "step_size": 0.01, "span": True}
    plain = bk.adversarial_train(tuple(parameters), x, y, **keywords)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        fit = bk.adversarial_train(tuple(parameters), x, y, **keywords)
    assert torch.equal(fit.net.W, plain.net.W)
