"""compat.cleverhans agrees with cleverhans, and is free of its side effects."""

import gc
import warnings

import numpy as np
import pytest
import torch
from peer_helpers import AGREE, classifier, difference, images, parameters, seeded
from torch import nn

import benign_kernels as bk
import benign_kernels.compat.cleverhans as ours
from benign_kernels.compat import random_starts

NORMS = [2, np.inf]


class InFloat64:
    """torch as cleverhans' fast_gradient_method sees it, but for ``torch.float``: it casts x to that at every step."""

    float = torch.float64

    def __getattr__(self, name):
        return getattr(torch, name)


@pytest.fixture
def theirs(monkeypatch):
    """cleverhans' two functions, computing in float64."""
    name = "cleverhans.torch.attacks.fast_gradient_method"
    single = pytest.importorskip(name, reason="cleverhans is not installed", exc_type=ImportError)
    from cleverhans.torch.attacks import projected_gradient_descent as pgd

    class Both:
        fast_gradient_method = staticmethod(single.fast_gradient_method)
        projected_gradient_descent = staticmethod(pgd.projected_gradient_descent)

    monkeypatch.setattr(single, "torch", InFloat64())
    return Both


def both(theirs, name, *arguments, **options):
    results = []
    for library in (theirs, ours):
        with seeded(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            results.append(getattr(library, name)(*arguments, **options).detach())
    return results


@pytest.mark.peers
@pytest.mark.parametrize("name", ["projected_gradient_descent", "fast_gradient_method"])
def test_signatures_are_theirs(theirs, name):
    assert parameters(getattr(ours, name)) == parameters(getattr(theirs, name))


@pytest.mark.peers
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("box", [(None, None), (0.0, 1.0)], ids=["no-box", "box"])
@pytest.mark.parametrize("phi", [nn.ReLU(), nn.Tanh()], ids=["relu", "tanh"])
@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
def test_agrees_with_the_same_seed(theirs, norm, box, phi, generic):
    model, (x, y) = classifier(phi, generic=generic), images()
    a, b = both(theirs, "projected_gradient_descent", model, x, 0.5, 0.1, 20, norm, *box, y=y)
    assert difference(a, x) > 1e-3
    assert difference(a, b) < AGREE
    assert difference(*both(theirs, "fast_gradient_method", model, x, 0.3, norm, *box, y=y)) < AGREE


@pytest.mark.peers
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize(
    "options",
    [
        {"rand_init": False},
        {"rand_minmax": 0.01},
        {"rand_minmax": 3.0},
        {"targeted": True},
        {"y": None},
        {"y": None, "targeted": True, "clip_min": 0.0, "clip_max": 1.0},
        {"nb_iter": 0, "clip_min": 0.0, "clip_max": 1.0},
        {"sanity_checks": False, "clip_min": 0.2, "clip_max": 0.8},
    ],
    ids=lambda options: ",".join(options),
)
def test_options_agree(theirs, norm, options):
    """The last case begins outside of the box."""
    model, (x, y) = classifier(), images()
    options = {"eps": 0.5, "eps_iter": 0.1, "nb_iter": 10, "norm": norm, "y": y, **options}
    assert difference(*both(theirs, "projected_gradient_descent", model, x, **options)) < AGREE


@pytest.mark.peers
@pytest.mark.parametrize("norm", NORMS)
def test_agrees_in_float32_as_it_is(norm):
    single = pytest.importorskip("cleverhans.torch.attacks.projected_gradient_descent", exc_type=ImportError)
    model, (x, y) = classifier(nn.Tanh()).float(), images()
    x = x.float()
    with seeded():
        a = single.projected_gradient_descent(model, x, 0.5, 0.1, 10, norm, y=y).detach()
    with seeded():
        b = ours.projected_gradient_descent(model, x, 0.5, 0.1, 10, norm, y=y)
    assert b.dtype == torch.float32
    assert difference(a, b) < 2e-6  # ten steps at 6e-8 each, and as much in the gradient


@pytest.mark.peers
def test_both_are_blind_at_large_margins_and_attack_model_is_not(theirs):
    """The gradient's squared norm is kept above 1e-12, so that already ‖g‖ = 1e-7 moves a tenth of a step."""
    model, (x, _) = classifier(logits=2, scale=1e3), images(40)
    y = model(x).argmax(1)
    for attacked in both(theirs, "projected_gradient_descent", model, x, 2.0, 0.2, 20, 2, y=y, rand_init=False):
        assert (model(attacked).argmax(1) == y).double().mean() > 0.3
    assert bk.attack_model(model, x, y, radius=2.0, step=0.2, steps=20).success.double().mean() > 0.9


@pytest.mark.peers
def test_they_leave_gradients_and_graphs_and_we_do_not(theirs):
    x, y = images()
    for library, clean in ((theirs, False), (ours, True)):
        model = classifier()
        attacked = library.projected_gradient_descent(model, x, 0.5, 0.1, 3, 2, y=y)
        assert all(p.grad is None for p in model.parameters()) == clean
        assert attacked.requires_grad != clean


@pytest.mark.peers
def test_random_starts_of_theirs_lie_on_the_sphere(theirs):
    x = torch.zeros(50, 12, dtype=torch.float64)
    y = torch.zeros(50, dtype=torch.long)
    for start in both(theirs, "projected_gradient_descent", classifier(), x, 0.5, 0.1, 0, 2, y=y):
        torch.testing.assert_close(start.norm(dim=1), torch.full((50,), 0.5, dtype=torch.float64))


# ---- ours alone ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
@pytest.mark.filterwarnings("ignore:the model is attacked through autograd")
def test_no_side_effects(generic):
    model, (x, y) = classifier(generic=generic).train(), images()
    with random_starts(torch.Generator().manual_seed(0)):
        before = torch.get_rng_state()
        attacked = ours.projected_gradient_descent(model, x.requires_grad_(), 0.5, 0.1, 3, 2, y=y)
    assert torch.equal(torch.get_rng_state(), before)
    assert model.training
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert x.grad is None
    assert not attacked.requires_grad


@pytest.mark.filterwarnings("ignore:the model is attacked through autograd")
def test_nothing_leaks():
    model, (x, y) = classifier(generic=True), images()

    def tensors():
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    ours.projected_gradient_descent(model, x, 0.5, 0.1, 3, 2, y=y)
    before = tensors()
    for _ in range(5):
        ours.projected_gradient_descent(model, x, 0.5, 0.1, 3, 2, y=y)
    assert tensors() == before


def test_plain_functions_are_models():
    model, (x, y) = classifier(), images()
    with seeded(), pytest.warns(UserWarning, match="function is neither") as caught:
        a = ours.projected_gradient_descent(lambda x: model(x), x, 0.5, 0.1, 3, 2, y=y)
    assert [warning.filename for warning in caught] == [__file__]
    with seeded():
        b = ours.projected_gradient_descent(model, x, 0.5, 0.1, 3, 2, y=y)
    assert difference(a, b) < AGREE


def test_nothing_to_do_returns_x_itself():
    model, (x, y) = classifier(), images()
    assert ours.projected_gradient_descent(model, x, 0.0, 0.0, 3, 2, y=y) is x
    assert ours.projected_gradient_descent(model, x, 0.5, 0.0, 3, 2, y=y) is x
    assert ours.fast_gradient_method(model, x, 0.0, 2, y=y) is x


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"norm": 1}, NotImplementedError, "norm: got 1"),
        ({"norm": 3}, ValueError, "Norm order"),
        ({"eps": -1.0}, ValueError, "eps must be greater"),
        ({"eps_iter": -1.0}, ValueError, "eps_iter must be greater"),
        ({"eps_iter": 1.0}, AssertionError, "1.0, 0.5"),
        ({"eps": np.inf, "eps_iter": np.inf}, ValueError, "eps_iter: got inf, expected a finite number"),
        ({"nb_iter": -1}, ValueError, "nb_iter: got -1, expected an integer"),
        ({"y": torch.full((5,), 99)}, ValueError, "y: got "),
        ({"clip_min": 1.0, "clip_max": 0.0}, ValueError, "clip_min must be less"),
        ({"clip_min": 0.0}, ValueError, "one-sided"),
        ({"clip_min": 0.5, "clip_max": 1.0}, AssertionError, "x must lie in"),
        ({"clip_min": 0.0, "clip_max": 1.0, "eps": 1.5, "norm": np.inf}, AssertionError, "eps must not exceed"),
    ],
)
def test_errors(change, error, message):
    model, (x, y) = classifier(), images()
    with pytest.raises(error, match=message):
        ours.projected_gradient_descent(
            model, x, **{"eps": 0.5, "eps_iter": 0.1, "nb_iter": 3, "norm": 2, "y": y, **change}
        )
