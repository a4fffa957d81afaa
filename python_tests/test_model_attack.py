"""attack_model: recognised models are `l2_pgd`, others take autograd's gradient and end in the same place."""

import math
import warnings

import numpy as np
import pytest
import torch
from models import SIGNS, X, assert_same, attack, sequential
from torch import nn

import benign_kernels as bk


def test_recognised_models_are_l2_pgd():
    net = bk.TwoLayerNet(6, 20, bias=True, head_bias=True, dtype=torch.float64)
    tensors = {"bias": net.bias, "head_bias": net.head_bias}
    expected = bk.l2_pgd(X, SIGNS, net.weight, net.head, radius=0.7, steps=7, **tensors)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for model in (net, (net.weight, net.head, net.bias, net.head_bias), bk.as_two_layer(net)):
            assert_same(bk.attack_model(model, X, SIGNS, radius=0.7, steps=7), expected, tolerance=0)
        linf = bk.attack_model(net, X, SIGNS, radius=0.7, steps=7, norm="linf")
    assert_same(linf, bk.linf_pgd(X, SIGNS, net.weight, net.head, radius=0.7, steps=7, **tensors), tolerance=0)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("heads", [None, 3])
def test_batches_of_networks_are_attacked_at_once(heads, shared):
    nets = bk.TwoLayerNet(6, 20, networks=(4,), heads=heads, dtype=torch.float64)
    y = SIGNS if heads is None else torch.arange(9) % 3
    x = X if shared else X.expand(4, 9, 6) + torch.arange(4)[:, None, None]
    found = attack(nets, x, y)
    assert found.x.shape == (4, 9, 6)
    assert_same(attack(nets, x, y.expand(4, 9)), found, 0)
    for i in range(4):
        one = attack((nets.weight[i], nets.head[i]), X if shared else x[i], y)
        torch.testing.assert_close(found.x[i], one.x, rtol=0, atol=1e-10)


@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("logits", [1, 3])
def test_every_device_ends_in_the_same_place(device, logits, norm, generic):
    y = SIGNS if logits == 1 else torch.arange(9) % logits
    expected = attack(sequential(logits), y=y, norm=norm, keep="worst", radius=0.3)
    model = sequential(logits, generic=generic).to(device)
    found = attack(model, X.to(device), y.to(device), norm=norm, keep="worst", radius=0.3)
    assert found.x.device.type == device.type
    torch.testing.assert_close(found.x.cpu(), expected.x, rtol=0, atol=1e-10)
    assert torch.equal(found.success.cpu(), expected.success)


def test_wrong_labels_that_cannot_be_read_make_nan_rows(device):
    """On the CPU they raise; elsewhere reading them would stop the device."""
    y = torch.zeros(9, dtype=torch.long, device=device)
    y[4] = 3
    for generic in (False, True):
        model, x = sequential(3, generic=generic).to(device), X.to(device)
        if device.type == "cpu":
            with pytest.raises(ValueError, match="y: got labels from 0 to 3"):
                attack(model, x, y)
        else:
            assert attack(model, x, y).margin.isnan().nonzero().flatten().tolist() == [4]


OPTIONS = [
    {},
    {"norm": "linf", "radius": 0.2},
    {"radius": torch.linspace(0, 2, 9, dtype=torch.float64), "step": torch.linspace(1, 0, 9, dtype=torch.float64)},
    {"radius": math.inf, "step": 0.1},
    {"keep": "worst", "step": 0.9},
    {"trajectory": True},
    {"box": (-0.5, 0.5)},
    {"start": X + 0.3},
    {"start": X + 5.0, "norm": "linf"},
    {"restarts": 3, "trajectory": True},
    {"restarts": 3, "keep": "worst", "norm": "linf"},
    {"direction": "torchattacks"},
    {"direction": "foolbox"},
    {"direction": "cleverhans", "norm": "linf"},
    {"steps": 0},
    {"radius": 0.0},
]


@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: ",".join(options) or "default")
@pytest.mark.parametrize("logits", [1, 2, 5])
def test_generic_and_recognised_models_agree(options, logits):
    y = SIGNS if logits == 1 else torch.arange(9) % logits
    generators = [torch.Generator().manual_seed(1) for _ in range(2)]
    a, b = (
        attack(sequential(logits, generic=generic), y=y, generator=generator, **options)
        for generic, generator in zip((False, True), generators, strict=True)
    )
    assert_same(a, b)
    assert a.problem is not None
    assert b.plan is None


@pytest.mark.parametrize("logits", [1, 3])
@pytest.mark.parametrize("direction", ["exact", "foolbox"])
def test_squared_loss_agrees(logits, direction):
    y = torch.randn(9, logits, dtype=torch.float64)
    options = {"y": y, "loss": "squared", "direction": direction}
    a, b = (attack(sequential(logits, generic=generic), **options) for generic in (False, True))
    assert_same(a, b)
    assert (a.margin <= 0).all()
    if logits == 1:
        assert_same(attack(sequential(1), y=y[:, 0], loss="squared", direction=direction), a)
        assert_same(attack(sequential(1, generic=True), y=y[:, 0], loss="squared", direction=direction), a)


@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
def test_images_keep_their_shape(generic):
    model = nn.Sequential(nn.Flatten(), *sequential(3))
    if generic:
        model.register_forward_hook(lambda *arguments: None)
    images, y = X.reshape(9, 1, 2, 3), torch.arange(9) % 3
    found = attack(model, images, y, trajectory=True, start=images + 0.1)
    flat = attack(sequential(3), y=y, trajectory=True, start=X + 0.1)
    assert found.x.shape == images.shape
    assert found.trajectory.shape == (8, *images.shape)
    torch.testing.assert_close(found.x.flatten(1), flat.x, rtol=0, atol=1e-10)
    torch.testing.assert_close(found.trajectory.flatten(2), flat.trajectory, rtol=0, atol=1e-10)


def test_restarts_with_a_generator_leave_the_global_one_alone():
    models = [sequential(generic=generic) for generic in (False, True)]
    before = torch.get_rng_state()
    for model in models:
        attack(model, restarts=3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("options", [{"steps": 0}, {"radius": 0.0}, {"step": 0.0}], ids=str)
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_nothing_to_do_returns_x_bit_for_bit(options, norm):
    x = X.clone()
    x[0, 0] = -0.0
    for generic in (False, True):
        found = attack(sequential(generic=generic), x, norm=norm, **options).x
        assert torch.equal(found.view(torch.int64), x.view(torch.int64))


@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
@pytest.mark.parametrize("direction", ["exact", "torchattacks", "foolbox", "cleverhans"])
def test_a_row_that_is_not_finite_is_nan_and_touches_no_other(generic, direction):
    model = sequential(3, generic=generic)
    x, y = X.clone(), torch.arange(9) % 3
    x[2, 1] = math.nan
    x[5, 0] = math.inf
    options = {"y": y, "trajectory": True, "direction": direction}
    found, clean = attack(model, x, **options), attack(model, **options)
    broken = torch.tensor([2, 5])
    rest = torch.tensor([0, 1, 3, 4, 6, 7, 8])
    for name in ("x", "logits", "margin"):
        assert getattr(found, name)[broken].isnan().all()
        torch.testing.assert_close(getattr(found, name)[rest], getattr(clean, name)[rest], rtol=1e-12, atol=1e-12)
    assert found.success[broken].all()
    assert found.trajectory[:, broken].isnan().all()


@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
@pytest.mark.parametrize("name", ["radius", "step"])
@pytest.mark.parametrize("wrong", [math.nan, -1.0])
def test_bad_radii_and_steps_are_refused(generic, name, wrong):
    rows = torch.full((9,), 0.7, dtype=torch.float64)
    rows[3] = wrong
    for value in (wrong, rows):
        with pytest.raises(ValueError, match=f"{name}: got"):
            attack(sequential(generic=generic), **{"step": 0.1, name: value})


@pytest.mark.parametrize("generic", [False, True])
def test_a_row_that_does_not_move_is_not_boxed(generic):
    flat = sequential(generic=generic)
    torch.nn.init.zeros_(flat[2].weight)
    found = attack(flat, 3 * X, box=(0, 1))
    assert torch.equal(found.x, 3 * X)


@pytest.mark.parametrize("generic", [False, True])
def test_a_restart_that_overflows_makes_its_row_nan(generic):
    steep = sequential(phi=nn.ReLU(), generic=generic)
    steep[0].weight.data *= 1e307
    steep[0].bias.data *= 0
    found = attack(steep, 0 * X, radius=1e10, steps=0, restarts=2)
    assert found.margin.isnan().all()
    assert found.x.isnan().all()
    assert found.success.all()


def test_numpy_arrays_are_accepted():
    for generic in (False, True):
        found = attack(sequential(generic=generic), X.numpy(), SIGNS.numpy().astype(np.int64))
        assert_same(found, attack(sequential()), 1e-10)
    net = bk.TwoLayerNet(6, 20, dtype=torch.float64)
    arrays = net.weight.detach().numpy(), net.head.numpy()
    assert_same(attack(arrays, X.numpy(), SIGNS.numpy()), attack(net), 0)


def test_compiles_on_recognised_models():
    net = bk.TwoLayerNet(6, 20, dtype=torch.float64)

    def margin(x, y):
        return bk.attack_model(net, x, y, radius=0.7, steps=7).margin

    compiled = torch.compile(margin, fullgraph=True, dynamic=True, backend="aot_eager")
    assert torch.equal(compiled(X, SIGNS), margin(X, SIGNS))


def test_empty_batches():
    for generic in (False, True):
        found = attack(sequential(2, generic=generic), X[:0], torch.zeros(0, dtype=torch.long), trajectory=True)
        assert found.x.shape == (0, 6)
        assert found.logits.shape == (0, 2)
        assert found.trajectory.shape == (8, 0, 6)


# ---- labels ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
@pytest.mark.parametrize(
    ("y", "labels"),
    [
        (SIGNS, None),
        (SIGNS.double(), "signs"),
        (SIGNS[:, None], None),
        ((SIGNS + 1) // 2, None),
        ((SIGNS + 1) // 2, "binary"),
        (((SIGNS + 1) // 2).float(), None),
        (SIGNS > 0, None),
        (SIGNS > 0, "binary"),
    ],
)
def test_one_logit_takes_signs_and_binary_labels(y, labels, generic):
    assert_same(attack(sequential(generic=generic), y=y, labels=labels), attack(sequential()), 1e-10)


@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
@pytest.mark.parametrize("labels", ["signs", "binary", "classes"])
def test_two_logits_take_all_conventions(labels, generic):
    y = SIGNS if labels == "signs" else (SIGNS + 1) // 2
    expected = attack(sequential(2), y=(SIGNS + 1) // 2)
    assert_same(attack(sequential(2, generic=generic), y=y, labels=labels), expected, 1e-10)


def test_the_model_class_says_how_labels_read():
    class Binary(nn.Module):
        label_convention = "binary"

        def __init__(self):
            super().__init__()
            self.inner = sequential()

        def forward(self, x):
            return self.inner(x)[:, 0]

    assert_same(attack(Binary(), y=(SIGNS + 1) // 2), attack(sequential()), 1e-10)
    with pytest.raises(ValueError, match="y: got the label -1, expected 0 or 1"):
        attack(Binary())
    net = bk.TwoLayerNet(6, 20, dtype=torch.float64)
    with pytest.raises(ValueError, match="y: got the label 0, expected -1 or 1"):
        attack(net, y=(SIGNS + 1) // 2)
    assert_same(attack(net, y=(SIGNS + 1) // 2, labels="binary"), attack(net), 0)


@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
@pytest.mark.parametrize(
    ("logits", "y", "options", "error", "message"),
    [
        (1, torch.tensor([0, 1, -1] * 3), {}, ValueError, "y: got the label 0"),
        (1, torch.tensor([0, 1, 2] * 3), {}, ValueError, "y: got the label 2"),
        (1, SIGNS, {"labels": "classes"}, ValueError, "labels: got 'classes'"),
        (1, SIGNS[:4], {}, ValueError, r"y: got shape \(4,\)"),
        (3, torch.tensor([0, 1, 3] * 3), {}, ValueError, "y: got labels from 0 to 3"),
        (3, torch.zeros(9), {}, TypeError, "y: got torch.float32"),
        (3, SIGNS, {"labels": "signs"}, ValueError, "labels: got 'signs' for 3 logits"),
        (1, SIGNS, {"labels": "sign"}, ValueError, "labels: got 'sign'"),
        (1, SIGNS, {"norm": "l1"}, ValueError, "norm: got 'l1'"),
        (1, SIGNS, {"loss": "hinge"}, ValueError, "loss: got 'hinge'"),
        (1, SIGNS, {"keep": "best"}, ValueError, "keep: got 'best'"),
        (1, SIGNS, {"direction": "up"}, ValueError, "direction: got 'up'"),
        (1, SIGNS, {"steps": -1}, ValueError, "steps: got -1"),
        (1, SIGNS, {"radius": torch.ones(4)}, ValueError, "radius: got shape"),
        (3, SIGNS, {"loss": "squared"}, ValueError, "y: got shape"),
    ],
)
def test_errors_name_the_argument(logits, y, options, error, message, generic):
    with pytest.raises(error, match=message):
        attack(sequential(logits, generic=generic), y=y, **options)


@pytest.mark.parametrize("given", [{"activation": "tanh"}, {"patches": 2}])
def test_what_belongs_to_tuples_is_refused_with_a_model(given):
    (name,) = given
    with pytest.raises(ValueError, match=rf"^{name}: got .* with a model, Sequential, expected it with a tuple"):
        bk.attack_model(sequential(), X, SIGNS, radius=0.7, **given)


def test_models_that_cannot_be_attacked_are_refused():
    with pytest.raises(TypeError, match="model: got str"):
        attack("net")
    with pytest.raises(TypeError, match="no gradient"):
        attack(torch.no_grad()(sequential().forward))
    with pytest.raises(ValueError, match=r"model: returned \(9, 2, 3\)"):
        attack(lambda x: x.reshape(9, 2, 3))
    with pytest.raises(TypeError, match=r"x: got torch\.int64"):
        attack(lambda x: x.sum(1), x=torch.zeros(9, 6, dtype=torch.long))
    with pytest.raises(ValueError, match=r"x: got shape \(9, 2, 2\), expected samples of 6"):
        attack(sequential(), x=torch.zeros(9, 2, 2, dtype=torch.float64))
