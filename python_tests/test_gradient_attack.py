"""Models that no op knows: attacked through autograd, with a warning, and left as they were."""

import pytest
import torch
from models import SIGNS, X, assert_same, attack, sequential
from torch import nn

import benign_kernels as bk


def test_the_slow_path_warns_once_and_says_why():
    with pytest.warns(UserWarning, match=r"through autograd, one call per step, because a layer has hooks") as caught:
        bk.attack_model(sequential(generic=True), X, SIGNS, radius=0.7, restarts=2)
    assert [warning.filename for warning in caught] == [__file__]


class Noisy(nn.Module):
    """Dropout and batch norm: in training mode it would be random, and change its buffers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm1d(6), nn.Linear(6, 20), nn.Dropout(0.5), nn.ReLU(), nn.Linear(20, 1))
        self.double()

    def forward(self, x):
        return self.layers(x)


def test_no_side_effects_on_the_slow_path():
    model = Noisy().train()
    model.layers[0].eval()
    model.layers[1].weight.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    buffers = [b.clone() for b in model.buffers()]
    x, before = X.clone().requires_grad_(), torch.get_rng_state()
    found = attack(model, x)
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(torch.equal(b, old) for b, old in zip(model.buffers(), buffers, strict=True))
    assert all(p.grad is None for p in model.parameters())
    assert x.grad is None
    assert not found.x.requires_grad
    assert_same(found, attack(model), 0)


def test_modes_return_after_an_error():
    model = Noisy().train()
    with pytest.raises(RuntimeError):
        attack(model, X[:, :5])
    assert all(module.training for module in model.modules())


@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode, torch.enable_grad])
def test_any_autograd_context_will_do(context):
    expected, model = attack(sequential()), sequential(generic=True)
    with context():
        found = attack(model, X.clone())
    assert_same(found, expected)


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 1e6, 1e30])
def test_gradients_of_any_size_take_the_same_steps(scale):
    one, two, y = sequential(1), sequential(2), (SIGNS + 1) // 2
    torch.testing.assert_close(attack(lambda x: scale * one(x)).x, attack(one).x, rtol=0, atol=1e-10)
    torch.testing.assert_close(attack(lambda x: scale * two(x), y=y).x, attack(two, y=y).x, rtol=0, atol=1e-10)


def test_half_precision_models_walk_in_float32():
    model = sequential(generic=True).to(torch.bfloat16)
    found = attack(model, X.to(torch.bfloat16))
    assert found.x.dtype == torch.float32
    assert ((found.x - X.to(torch.bfloat16).float()).norm(dim=1) <= 0.7 * (1 + 1e-6)).all()
    assert (found.margin < attack(model, X.to(torch.bfloat16), steps=0).margin).all()


def test_a_model_that_ignores_its_input_stays_where_it_is():
    found = attack(lambda x: torch.ones(9, dtype=torch.float64, requires_grad=True) + 0 * x.sum(1))
    assert torch.equal(found.x, X)
