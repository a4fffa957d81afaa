"""compat.torchattacks agrees with torchattacks, and is free of its side effects."""

import math
import warnings

import pytest
import torch
from peer_helpers import AGREE, classifier, difference, images, kolmogorov_bound, parameters, seeded, uniform_distance
from torch import nn

import benign_kernels as bk
import benign_kernels.compat.torchattacks as ours
from benign_kernels.compat import random_starts

NAMES = ["PGDL2", "PGD", "FGSM", "FFGSM", "RFGSM", "BIM"]


@pytest.fixture
def theirs():
    return pytest.importorskip("torchattacks", reason="torchattacks is not installed", exc_type=ImportError)


def both(theirs, name, model, x, y, prepare=lambda attack: None, **options):
    """The attacked images of the library and of ours, with the same draws."""
    results = []
    for library in (theirs, ours):
        attack = getattr(library, name)(model, **options)
        prepare(attack)
        with seeded(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            results.append(attack(x, y))
    return results


@pytest.mark.peers
@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_theirs(theirs, name):
    assert parameters(getattr(ours, name)) == parameters(getattr(theirs, name))
    assert set(ours.__all__) == {*NAMES, "Attack"}


@pytest.mark.peers
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("phi", [nn.ReLU(), nn.Tanh()], ids=["relu", "tanh"])
@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
@pytest.mark.parametrize("margin", [0.0, 0.4], ids=["box-active", "box-inactive"])
def test_agrees_with_the_same_seed(theirs, name, phi, generic, margin):
    model, (x, y) = classifier(phi, generic=generic), images(margin=margin)
    a, b = both(theirs, name, model, x, y)
    assert difference(a, x) > 1e-3
    assert difference(a, b) < AGREE


@pytest.mark.peers
@pytest.mark.parametrize("options", [{"eps": 0.0}, {"alpha": 0.0}, {"steps": 0}, {"random_start": False, "steps": 40}])
@pytest.mark.parametrize("name", ["PGDL2", "PGD"])
def test_agrees_at_the_edges(theirs, name, options):
    model, (x, y) = classifier(), images()
    assert difference(*both(theirs, name, model, x, y, **options)) < AGREE


@pytest.mark.peers
def test_agrees_from_a_start_outside_of_the_ball(theirs):
    model, (x, y) = classifier(), images()
    assert difference(*both(theirs, "RFGSM", model, x, y, eps=0.1, alpha=0.25, steps=3)) < AGREE


@pytest.mark.peers
@pytest.mark.parametrize("eps_for_division", [1e-10, 1e-3, 1.0])
def test_agrees_on_the_floor(theirs, eps_for_division):
    model, (x, y) = classifier(), images()
    assert difference(*both(theirs, "PGDL2", model, x, y, eps_for_division=eps_for_division)) < AGREE


@pytest.mark.peers
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    "prepare",
    [
        lambda attack: attack.set_mode_targeted_by_label(quiet=True),
        lambda attack: attack.set_mode_targeted_random(quiet=True),
        lambda attack: attack.set_mode_targeted_least_likely(2, quiet=True),
        lambda attack: attack.set_mode_targeted_by_function(lambda x, y: (y + 1) % 4, quiet=True),
    ],
    ids=["by-label", "random", "least-likely", "by-function"],
)
def test_targeted_modes_agree(theirs, name, prepare):
    model, (x, y) = classifier(logits=4), images(logits=4)
    assert difference(*both(theirs, name, model, x, y, prepare)) < AGREE


@pytest.mark.peers
@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
def test_normalization_agrees(theirs, generic):
    model, (x, y) = classifier(generic=generic), images()
    mean, std = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]

    def prepare(attack):
        attack.set_normalization_used(mean, std)

    shape = (1, 3, 1, 1)
    # float32 constants, as torchattacks makes them of lists
    normalized = (x - torch.tensor(mean).reshape(shape)) / torch.tensor(std).reshape(shape)
    a, b = both(theirs, "PGDL2", model, normalized, y, prepare)
    assert difference(a, b) < AGREE * 10


@pytest.mark.peers
@pytest.mark.parametrize("name", ["PGDL2", "PGD", "FGSM", "FFGSM", "RFGSM"])
def test_the_forced_box_agrees_on_data_outside_of_it(theirs, name):
    """On Gaussian data the box moves the points by far more than eps; bk.attack_model forces no box."""
    model, y = classifier(), images()[1]
    x = torch.randn(20, 3, 2, 2, dtype=torch.float64)
    a, b = both(theirs, name, model, x, y)
    assert difference(a, b) < AGREE
    assert (b - x).flatten(1).norm(dim=1).max() > 1.5
    unforced = bk.attack_model(model, x, y, radius=1.0).x
    assert (unforced - x).flatten(1).norm(dim=1).max() <= 1 + 1e-12


@pytest.mark.peers
def test_both_are_blind_at_large_margins_and_attack_model_is_not(theirs):
    """1e-10 is added to a gradient that underflows: the attack stands still, and the model looks robust."""
    model, (x, _) = classifier(logits=2, scale=1e4), images(40, margin=0.3)
    y = model(x).argmax(1)
    for attacked in both(theirs, "PGDL2", model, x, y, eps=2.0, alpha=0.2, steps=20, random_start=False):
        assert (model(attacked).argmax(1) == y).double().mean() > 0.5
    exact = bk.attack_model(model, x, y, radius=2.0, step=0.2, steps=20, box=(0, 1))
    assert exact.success.double().mean() > 0.9


@pytest.mark.peers
def test_two_dimensional_input_is_refused_by_them_and_taken_by_us(theirs):
    model, (x, y) = classifier(), images()
    with pytest.raises(RuntimeError):
        theirs.PGDL2(model)(x.flatten(1), y)
    with seeded():
        flat = ours.PGDL2(model)(x.flatten(1), y)
    with seeded():
        assert difference(flat, ours.PGDL2(model)(x, y).flatten(1)) == 0


@pytest.mark.peers
def test_a_frozen_layer_is_thawed_by_them_and_stays_frozen_with_us(theirs):
    x, y = images()
    for library, frozen in ((theirs, False), (ours, True)):
        model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(12).double(), classifier()[1:]).train()
        model[1].eval()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            library.PGDL2(model)(x, y)
        assert model.training
        assert model[1].training != frozen


# ---- ours alone ------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:the model is attacked through autograd")
def test_images_go_to_the_model_s_device(device):
    x, y = images()
    with random_starts(torch.Generator(device).manual_seed(0)):
        results = [ours.PGDL2(classifier(generic=generic).to(device))(x, y) for generic in (False, True)]
    assert all(adversarial.device.type == device.type for adversarial in results)
    norms = [(adversarial.cpu() - x).flatten(1).norm(dim=1).max() for adversarial in results]
    assert all(0.5 < norm <= 1 + 1e-12 for norm in norms)


@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
@pytest.mark.filterwarnings("ignore:the model is attacked through autograd")
def test_no_side_effects(generic):
    model, (x, y) = classifier(generic=generic).train(), images()
    model[2].eval()
    modes = [module.training for module in model.modules()]
    x.requires_grad_()
    with random_starts(torch.Generator().manual_seed(0)):
        before = torch.get_rng_state()
        adversarial = ours.PGDL2(model)(x, y)
    assert torch.equal(torch.get_rng_state(), before)
    assert [module.training for module in model.modules()] == modes
    assert all(p.grad is None and p.requires_grad for p in model.parameters())
    assert x.grad is None
    assert not adversarial.requires_grad
    assert (adversarial.shape, adversarial.dtype) == (x.shape, x.dtype)


@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
@pytest.mark.filterwarnings("ignore:the model is attacked through autograd")
@pytest.mark.parametrize("name", ["PGDL2", "PGD"])
def test_points_that_no_gradient_moves_are_boxed_all_the_same(name, generic):
    model, (x, y) = classifier(generic=generic), images()
    nn.init.zeros_(model[3].weight)
    found = getattr(ours, name)(model, random_start=False)(3 * x - 1, y)
    assert torch.equal(found, (3 * x - 1).clamp(0, 1))


def test_the_warning_of_the_slow_path_names_the_caller():
    x, y = images()
    with pytest.warns(UserWarning, match="attacked through autograd.*hooks") as caught:
        ours.PGD(classifier(generic=True))(x, y)
    assert [warning.filename for warning in caught] == [__file__]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ours.PGD(classifier())(x, y)


def test_random_starts_follow_the_library_s_law():
    """PGDL2 without steps: a radius uniform in (0, eps), not in the volume of the ball; PGD: uniform in the cube."""
    x, y = torch.full((2000, 12), 0.5, dtype=torch.float64), torch.zeros(2000, dtype=torch.long)
    moved = ours.PGDL2(classifier(), eps=0.25, steps=0)(x, y) - x
    assert uniform_distance(moved.norm(dim=1) / 0.25) < kolmogorov_bound(2000)
    moved = ours.PGD(classifier(), eps=0.25, steps=0)(x, y) - x
    assert uniform_distance(moved / 0.5 + 0.5) < kolmogorov_bound(24000)


def test_training_mode_of_the_model_during_the_attack():
    seen = []

    class Watched(nn.Module):
        def __init__(self):
            super().__init__()
            self.dropout, self.inner = nn.Dropout(0.5), classifier()

        def forward(self, x):
            seen.append((self.training, self.dropout.training))
            return self.inner(x)

    model, (x, y) = Watched().train(), images()
    attack = ours.FGSM(model)
    with pytest.warns(UserWarning, match="Watched"):
        attack(x, y)
    attack.set_model_training_mode(model_training=True, dropout_training=False)
    with pytest.warns(UserWarning, match="Watched"):
        attack(x, y)
    assert seen == [(False, False), (True, False)]
    assert model.training
    assert model.dropout.training


@pytest.mark.parametrize("labels", [torch.tensor([1, -1] * 10), torch.tensor([1, 0] * 10)], ids=["signs", "binary"])
def test_one_logit_models_are_attacked_on_the_logistic_loss(labels):
    one, (x, _) = classifier(logits=1), images()
    two = classifier(logits=2)
    with torch.no_grad():  # logits (0, f): the cross-entropy is the logistic loss of f
        two[1].load_state_dict(one[1].state_dict())
        two[3].weight.copy_(torch.cat([torch.zeros_like(one[3].weight), one[3].weight]))
        two[3].bias.copy_(torch.cat([torch.zeros_like(one[3].bias), one[3].bias]))
    with seeded():
        a = ours.PGDL2(one)(x, labels)
    with seeded():
        b = ours.PGDL2(two)(x, (labels > 0).long())
    assert difference(a, b) < AGREE


def test_one_logit_nets_of_ours_take_both_kinds_of_labels():
    net, (x, _) = bk.TwoLayerNet(12, 30, dtype=torch.float64), images()
    y = torch.tensor([1, 0] * 10)
    results = []
    for labels in (y, 2 * y - 1):
        with seeded():
            results.append(ours.PGD(net)(x, labels))
    assert difference(*results) == 0
    assert difference(results[0], x) > 1e-3


@pytest.mark.parametrize("net", [bk.TwoLayerNet(6, 30, patches=2), bk.TwoLayerNet(12, 30, dtype=torch.bfloat16)])
def test_normalization_that_cannot_be_folded_takes_the_slow_path(net):
    x, y = images()
    attack = ours.PGDL2(net)
    attack.set_normalization_used([0.5], [0.25])
    with pytest.warns(UserWarning, match="normalization cannot be folded"):
        attack(x.to(net.weight.dtype).reshape(20, 1, 1, 12), y.clamp(max=1))


def test_repr_modes_and_what_is_missing(capsys):
    attack = ours.PGDL2(classifier(), eps=0.5)
    assert repr(attack).startswith(
        "PGDL2(model_name=Sequential, device=cpu, attack_mode=default, targeted=False, eps=0.5"
    )
    attack.set_mode_targeted_by_label()
    assert attack.get_mode() == "targeted(label)"
    attack.set_mode_default()
    assert not attack.targeted
    assert capsys.readouterr().out.splitlines() == [
        "Attack mode is changed to 'targeted(label)'.",
        "Attack mode is changed to 'default.'",
    ]
    with pytest.raises(AttributeError, match=r"CW is not in benign_kernels\.compat\.torchattacks"):
        ours.CW  # noqa: B018
    with pytest.raises(AttributeError, match="use torchattacks"):
        attack.save(None)
    with pytest.raises(TypeError, match="labels"):
        attack(images()[0])


@pytest.mark.parametrize(
    ("name", "change", "error", "message"),
    [
        ("PGDL2", {"eps": -1}, ValueError, r"^eps: got -1, expected a number ≥ 0$"),
        ("PGDL2", {"alpha": math.inf}, ValueError, r"^alpha: got inf, expected a finite number ≥ 0$"),
        ("PGDL2", {"steps": -1}, ValueError, r"^steps: got -1, expected an integer ≥ 0$"),
        ("PGDL2", {"eps": "big"}, TypeError, r"^eps: got 'big', expected a number ≥ 0$"),
        ("PGD", {"eps": math.nan}, ValueError, r"^eps: got nan, expected a number ≥ 0$"),
        ("PGD", {"steps": 1.5}, TypeError, r"^steps: got 1\.5, expected an integer ≥ 0$"),
        ("FGSM", {"eps": math.inf}, ValueError, r"^eps: got inf, expected a finite number ≥ 0$"),
        ("FFGSM", {"alpha": -0.5}, ValueError, r"^alpha: got -0\.5, expected a finite number ≥ 0$"),
        ("RFGSM", {"alpha": -0.5}, ValueError, r"^alpha: got -0\.5, expected a finite number ≥ 0$"),
        ("BIM", {"eps": -1}, ValueError, r"^eps: got -1, expected a number ≥ 0$"),
    ],
)
def test_errors_have_the_names_of_the_constructor(name, change, error, message):
    x, y = images()
    attack = getattr(ours, name)(classifier())
    for key, value in change.items():
        setattr(attack, key, value)
    with pytest.raises(error, match=message):
        attack(x, y)


def test_errors_name_the_images_and_the_labels():
    attack, (x, y) = ours.PGDL2(classifier()), images()
    with pytest.raises(ValueError, match=r"^images: got shape .*, expected samples of \d+ numbers each$"):
        attack(x[..., 1:], y)
    with pytest.raises(ValueError, match=r"^images: got dtype torch\.float32, expected torch\.float64"):
        attack(x.float(), y)
    with pytest.raises(ValueError, match=r"^labels: got labels from .* to 99, expected classes 0 … "):
        attack(x, torch.full_like(y, 99))
    with pytest.raises(ValueError, match=r"^labels: got shape \(2,\), expected "):
        attack(x, y[:2])
