"""TwoLayerNet, and which models are recognised as two-layer networks."""

import copy
import math
import re

import pytest
import torch
from torch import nn

import benign_kernels as bk
from benign_kernels.network import recognise


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def by_the_formula(net, x):
    """f(x) = c + Σ_p Σ_j a_j φ(<w_j, x_p> + b_j), one network, in plain torch."""
    patches = x.reshape(*x.shape[:-1], net.patches, net.d)
    h = patches @ net.weight.mT + (0 if net.bias is None else net.bias)
    f = torch.relu(h).sum(-2) @ (net.head if net.heads is None else net.head.mT)
    return f if net.head_bias is None else f + net.head_bias


@pytest.mark.parametrize("heads", [None, 1, 3])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("patches", [1, 2])
def test_forward_is_the_formula(heads, bias, patches):
    options = {"heads": heads, "bias": bias, "head_bias": bias, "patches": patches, "head": "trained"}
    net = bk.TwoLayerNet(5, 8, dtype=torch.float64, generator=generator(), **options)
    if bias:
        nn.init.normal_(net.head_bias, generator=generator(1))
    x = torch.randn(7, patches * 5, dtype=torch.float64, generator=generator(2))
    torch.testing.assert_close(net(x), by_the_formula(net, x), rtol=1e-12, atol=1e-12)
    assert net(x).shape == ((7,) if heads is None else (7, heads))


def test_batch_of_networks_is_each_network():
    nets = bk.TwoLayerNet(4, 6, networks=(2, 3), bias=True, dtype=torch.float64, generator=generator())
    x = torch.randn(5, 4, dtype=torch.float64, generator=generator(1))
    f = nets(x)
    assert f.shape == (2, 3, 5)
    for i in range(2):
        for j in range(3):
            one = bk.two_layer(x, nets.weight[i, j], nets.head[i, j], bias=nets.bias[i, j])
            torch.testing.assert_close(f[i, j], one, rtol=1e-12, atol=1e-12)


def test_signs_are_a_buffer_and_training_leaves_them_alone():
    net = bk.TwoLayerNet(6, 16, generator=generator())
    assert [name for name, _ in net.named_parameters()] == ["weight"]
    assert torch.equal(net.head.abs(), torch.full((16,), 1 / math.sqrt(16)))
    assert 0 < (net.head > 0).sum() < 16
    net(torch.randn(3, 6)).sum().backward()
    assert net.weight.grad is not None
    assert net.head.grad is None


def test_trained_head_is_a_parameter():
    net = bk.TwoLayerNet(6, 4, heads=2, head="trained", bias=True, head_bias=True)
    assert {name for name, _ in net.named_parameters()} == {"weight", "head", "bias", "head_bias"}


@pytest.mark.parametrize("head", ["signs", "trained"])
def test_paired_networks_begin_at_zero(head):
    net = bk.TwoLayerNet(6, 10, paired=True, bias=True, head=head, dtype=torch.float64)
    assert torch.equal(net.weight[:5], net.weight[5:])
    assert torch.equal(net.head[:5], -net.head[5:])
    assert net(torch.randn(4, 6, dtype=torch.float64)).abs().max() < 1e-14


def test_initial_numbers_have_the_documented_spread():
    net = bk.TwoLayerNet(100, 400, bias=True, head="trained", generator=generator())
    assert abs(net.weight.std().item() * 10 - 1) < 0.02
    assert abs(net.bias.std().item() * 10 - 1) < 0.15
    assert abs(net.head.std().item() * 20 - 1) < 0.15
    assert abs(bk.TwoLayerNet(100, 400, init=1e-3, generator=generator()).weight.std().item() * 1e3 - 1) < 0.02


def test_reset_repeats_with_the_same_generator_and_leaves_the_global_one_alone():
    net = bk.TwoLayerNet(6, 8, head="trained", bias=True, head_bias=True, generator=generator(7))
    first = copy.deepcopy(net.state_dict())
    before = torch.get_rng_state()
    nn.init.ones_(net.head_bias)
    net.reset_parameters(generator=generator(7))
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(first[name], value) for name, value in net.state_dict().items())


def test_state_dict_round_trip_and_deepcopy():
    options = {"heads": 3, "bias": True, "head_bias": True, "activation": bk.LeakyReLU(0.2)}
    net, other = bk.TwoLayerNet(5, 8, **options), bk.TwoLayerNet(5, 8, **options)
    x = torch.randn(4, 5)
    other.load_state_dict(net.state_dict())
    assert torch.equal(net(x), other(x))
    assert torch.equal(net(x), copy.deepcopy(net)(x))


def test_repr_names_what_is_not_default():
    net = bk.TwoLayerNet(5, 8, heads=3, paired=True, head="trained")
    assert repr(net) == "TwoLayerNet(d=5, m=8, activation=ReLU(), head='trained', heads=3, paired=True)"
    assert repr(bk.TwoLayerNet(5, 8)) == "TwoLayerNet(d=5, m=8, activation=ReLU(), head='signs')"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": "sings"}, "head: got 'sings', expected one of 'signs', 'trained'"),
        ({"m": 7, "paired": True}, "paired: needs an even number of neurons, got m=7"),
        ({"heads": 0}, "heads: got 0"),
        ({"patches": 0}, "patches: got 0"),
        ({"d": -1}, "d: got -1"),
        ({"init": -1.0}, "init: got -1.0"),
        ({"init": math.nan}, "init: got nan"),
        ({"networks": (2, -1)}, "networks: got"),
        ({"activation": "rellu"}, "activation"),
    ],
)
def test_errors_name_the_argument(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        bk.TwoLayerNet(**{"d": 5, "m": 8, **options})


@pytest.mark.parametrize("name", ["d", "m", "heads", "patches", "networks"])
@pytest.mark.parametrize("size", [2.0, "2", True])
def test_sizes_are_integers(name, size):
    with pytest.raises(TypeError, match=rf"^{name}: got {size!r}, expected an integer ≥ \d$"):
        bk.TwoLayerNet(**{"d": 5, "m": 8, name: (size,) if name == "networks" else size})


def test_a_number_of_networks_is_a_shape():
    assert bk.TwoLayerNet(5, 8, networks=3)(torch.randn(2, 5)).shape == (3, 2)


# ---- recognition -----------------------------------------------------------------------------------------------------

X = torch.randn(9, 6, generator=generator(3))


def sequential(phi=None, outputs=1, bias=True, before=(), after=()):
    torch.manual_seed(4)
    phi = nn.ReLU() if phi is None else phi
    return nn.Sequential(*before, nn.Linear(6, 10, bias=bias), phi, nn.Linear(10, outputs, bias=bias), *after)


@pytest.mark.parametrize("outputs", [1, 2, 5])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(
    "phi",
    [
        nn.ReLU(),
        nn.ReLU(inplace=True),
        nn.LeakyReLU(0.3),
        nn.Tanh(),
        nn.Sigmoid(),
        nn.SiLU(),
        nn.GELU(),
        nn.Softplus(),
        nn.Softplus(beta=2.0, threshold=30.0),
        nn.Identity(),
    ],
    ids=repr,
)
def test_sequential_is_recognised_and_computes_the_same(phi, outputs, bias):
    model = sequential(phi, outputs, bias)
    view = bk.as_two_layer(model)
    expected = model(X)
    torch.testing.assert_close(view(X), expected[..., 0] if outputs == 1 else expected, rtol=1e-5, atol=1e-6)
    assert (view.bias is None, view.head_bias is None) == (not bias, not bias)
    assert view.label_convention == (None if outputs == 1 else "classes")
    assert view.W.data_ptr() == model[0].weight.data_ptr()
    assert not view.W.requires_grad


def test_flatten_and_nested_sequentials_are_recognised():
    model = nn.Sequential(nn.Flatten(), nn.Sequential(nn.Linear(6, 10), nn.ReLU()), nn.Linear(10, 2))
    view = bk.as_two_layer(model)
    torch.testing.assert_close(view(X), model(X.reshape(9, 1, 2, 3)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("end", [-1, 1])
def test_one_logit_may_be_flattened_away(end):
    model = sequential(after=[nn.Flatten(0, end)])
    torch.testing.assert_close(bk.as_two_layer(model)(X), model(X), rtol=1e-5, atol=1e-6)
    assert bk.as_two_layer(sequential(outputs=2, after=[nn.Flatten(0, end)])) is None


@pytest.mark.parametrize("heads", [None, 1, 4])
def test_two_layer_net_and_tuples_are_recognised(heads):
    net = bk.TwoLayerNet(3, 10, heads=heads, bias=True, head_bias=True, patches=2, activation="tanh")
    view = bk.as_two_layer(net)
    assert torch.equal(view(X), net(X))
    assert (view.heads, view.input_size) == (heads, 6)
    assert view.label_convention == ("classes" if heads == 4 else "signs")
    raw = bk.as_two_layer((net.weight, net.head, net.bias, net.head_bias), activation="tanh", patches=2)
    assert torch.equal(raw(X), net(X))
    assert raw.label_convention == view.label_convention
    assert bk.as_two_layer((net.weight, net.head)).bias is None
    assert bk.as_two_layer(view) is view


def hooked(register):
    model = sequential()
    getattr(model[1], register)(lambda *args: None)
    return model


def patched():
    model = sequential()
    model[0].forward = lambda x: x
    return model


class Doubled(bk.TwoLayerNet):
    def forward(self, x):
        return 2 * super().forward(x)


class Square(nn.Linear):
    def forward(self, x):
        return super().forward(x) ** 2


@pytest.mark.parametrize(
    ("model", "reason"),
    [
        (nn.Linear(6, 2), "neither a TwoLayerNet"),
        (lambda x: x.sum(-1), "neither a TwoLayerNet"),
        (sequential(nn.ELU()), "ELU is not among"),
        (sequential(nn.GELU(approximate="tanh")), "approximation"),
        (sequential(nn.Softplus(threshold=5.0)), "becomes linear from 5.0"),
        (sequential().half(), "dtype is torch.float16"),
        (sequential(before=[nn.BatchNorm1d(6)]), "it is not nn.Sequential"),
        (sequential(after=[nn.Dropout(0.5)]), "it is not nn.Sequential"),
        (sequential(before=[nn.Flatten(0)]), "it is not nn.Sequential"),
        (nn.Sequential(Square(6, 10), nn.ReLU(), nn.Linear(10, 1)), "it is not nn.Sequential"),
        (hooked("register_forward_hook"), "hooks"),
        (hooked("register_forward_pre_hook"), "hooks"),
        (hooked("register_full_backward_hook"), "hooks"),
        (patched(), "overridden forward"),
        (Doubled(6, 10), "overridden forward"),
        (nn.utils.parametrizations.weight_norm(nn.Linear(6, 2)), "neither a TwoLayerNet"),
        ((X,), "not a tuple"),
        (bk.TwoLayerNet(6, 10, device="meta"), "tensors are on meta"),
    ],
)
def test_what_does_more_is_not_recognised_and_the_reason_is_said(model, reason):
    assert bk.as_two_layer(model) is None
    assert reason in recognise(model)


def test_parametrized_layers_are_not_recognised():
    model = sequential()
    nn.utils.parametrizations.weight_norm(model[0])
    assert bk.as_two_layer(model) is None
    net = bk.TwoLayerNet(6, 10)
    nn.utils.parametrizations.weight_norm(net, "weight")
    assert bk.as_two_layer(net) is None


def test_mixed_dtypes_and_tied_global_hooks_are_not_recognised():
    model = sequential()
    model[2].double()
    assert "differ in dtype" in recognise(model)
    handle = nn.modules.module.register_module_forward_hook(lambda *args: None)
    try:
        assert bk.as_two_layer(sequential()) is None
    finally:
        handle.remove()
    assert bk.as_two_layer(sequential()) is not None


def test_softplus_cutoff_counts_in_float64_only():
    """torch's softplus is linear above 20, where e^−20 = 2e-9 lies below float32's rounding and above float64's."""
    assert bk.as_two_layer(sequential(nn.Softplus())) is not None
    assert bk.as_two_layer(sequential(nn.Softplus()).double()) is None
    assert bk.as_two_layer(sequential(nn.Softplus(threshold=40)).double()) is not None
