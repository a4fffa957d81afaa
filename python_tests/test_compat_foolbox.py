"""compat.foolbox agrees with foolbox, and is free of its side effects."""

import math
import warnings

import pytest
import torch
from peer_helpers import AGREE, classifier, difference, images, kolmogorov_bound, parameters, seeded, uniform_distance
from torch import nn

import benign_kernels as bk
import benign_kernels.compat.foolbox as ours
from benign_kernels.compat import random_starts

NAMES = [
    "L2PGD",
    "LinfPGD",
    "FGM",
    "FGSM",
    "L2BasicIterativeAttack",
    "LinfBasicIterativeAttack",
    "L2FastGradientAttack",
    "LinfFastGradientAttack",
    "L2ProjectedGradientDescentAttack",
    "LinfProjectedGradientDescentAttack",
    "PGD",
]
FEW = ["L2PGD", "LinfPGD", "L2BasicIterativeAttack"]


@pytest.fixture
def theirs():
    return pytest.importorskip("foolbox", reason="foolbox is not installed", exc_type=ImportError)


def both(theirs, name, model, x, criterion, epsilons, bounds=(0, 1), preprocessing=None, **options):
    """(raw, clipped, success) of the library and of ours, with the same draws."""
    results = []
    for library in (theirs, ours):
        fmodel = library.PyTorchModel(model, bounds=bounds, device="cpu", preprocessing=preprocessing)
        attack = getattr(library.attacks, name)(**options)
        with seeded(), warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)
            results.append(attack(fmodel, x, criterion(library), epsilons=epsilons))
    return results


def assert_agree(a, b, tolerance=AGREE):
    for points, points_ in zip(a[:2], b[:2], strict=True):
        assert type(points) is type(points_)
        for p, q in zip(points, points_, strict=True):
            assert difference(p, q) < tolerance
    assert torch.equal(a[2], b[2])


@pytest.mark.peers
@pytest.mark.parametrize("name", NAMES)
def test_signatures_are_theirs(theirs, name):
    assert parameters(getattr(ours.attacks, name)) == parameters(getattr(theirs.attacks, name))
    assert [p[:2] for p in parameters(ours.PyTorchModel)] == [p[:2] for p in parameters(theirs.PyTorchModel)]


@pytest.mark.peers
@pytest.mark.parametrize("name", NAMES[:6])
@pytest.mark.parametrize("phi", [nn.ReLU(), nn.Tanh()], ids=["relu", "tanh"])
@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
def test_agrees_with_the_same_seed(theirs, name, phi, generic):
    model, (x, y) = classifier(phi, generic=generic), images()
    a, b = both(theirs, name, model, x, lambda library: y, [0.0, 0.1, 1.0])
    assert difference(a[0][2], x) > 1e-3
    assert_agree(a, b)
    a, b = both(theirs, name, model, x, lambda library: y, 0.3)
    assert a[0].shape == b[0].shape == x.shape
    assert a[2].shape == b[2].shape == (20,)
    assert_agree(a, b)


@pytest.mark.peers
@pytest.mark.parametrize("options", [{"steps": 0}, {"abs_stepsize": 0.03}, {"rel_stepsize": 0.5, "steps": 7}])
@pytest.mark.parametrize("random_start", [False, True])
@pytest.mark.parametrize("name", ["L2PGD", "LinfPGD"])
def test_options_agree_within_wide_bounds(theirs, name, options, random_start):
    model, (x, y) = classifier(), images()
    options = {**options, "random_start": random_start}
    assert_agree(*both(theirs, name, model, 4 * x - 2, lambda library: y, [0.5], bounds=(-100, 100), **options))


@pytest.mark.peers
@pytest.mark.parametrize("name", FEW)
def test_criteria_agree(theirs, name):
    model, (x, y) = classifier(logits=4), images(logits=4)
    targets = (y + 1) % 4
    assert_agree(*both(theirs, name, model, x, lambda library: library.criteria.Misclassification(y), [0.3, 1.0]))
    a, b = both(theirs, name, model, x, lambda library: library.TargetedMisclassification(targets), [0.3, 1.0])
    assert_agree(a, b)
    assert b[2][1].any()


@pytest.mark.peers
@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
@pytest.mark.parametrize(
    "preprocessing",
    [
        {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.3, 0.25], "axis": -3},
        {"std": 0.5},
        {"mean": 0.25},
        {"flip_axis": -3},
    ],
    ids=["mean-std", "std", "mean", "flip"],
)
def test_preprocessing_agrees(theirs, preprocessing, generic):
    preprocessing = {
        key: value if key in ("axis", "flip_axis") else torch.tensor(value, dtype=torch.float64)
        for key, value in preprocessing.items()
    }
    model, (x, y) = classifier(generic=generic), images()
    assert_agree(*both(theirs, "L2PGD", model, x, lambda library: y, [0.3], preprocessing=preprocessing), 10 * AGREE)


@pytest.mark.peers
def test_their_models_and_eagerpy_tensors_are_accepted(theirs):
    ep = pytest.importorskip("eagerpy")
    model, (x, y) = classifier(), images()
    fmodel = theirs.PyTorchModel(model, bounds=(0, 1), device="cpu")
    with seeded():
        a = theirs.attacks.L2PGD()(fmodel, *ep.astensors(x, y), epsilons=[0.1, 0.3])
    with seeded(), warnings.catch_warnings():
        warnings.simplefilter("error")  # the slow path would warn
        b = ours.attacks.L2PGD()(fmodel, *ep.astensors(x, y), epsilons=[0.1, 0.3])
    assert type(b[0][0]) is type(a[0][0])
    assert type(b[2]) is type(a[2])
    assert difference(a[0][1].raw, b[0][1].raw) < AGREE
    assert torch.equal(a[2].raw, b[2].raw)
    assert ours.accuracy(fmodel, x, y) == theirs.accuracy(fmodel, x, y)
    criterion = theirs.TargetedMisclassification((y + 1) % 3)
    with seeded():
        a = theirs.attacks.LinfPGD()(fmodel, x, criterion, epsilons=0.3)
    with seeded():
        b = ours.attacks.LinfPGD()(fmodel, x, criterion, epsilons=0.3)
    assert_agree(a, b)


@pytest.mark.peers
def test_transformed_bounds_agree(theirs):
    model, (x, y) = classifier(), images()
    results = []
    for library in (theirs, ours):
        fmodel = library.PyTorchModel(model, bounds=(0, 1), device="cpu").transform_bounds((-1, 3))
        assert tuple(fmodel.bounds) == (-1, 3)
        with seeded():
            results.append(library.attacks.L2PGD()(fmodel, 4 * x - 1, y, epsilons=[1.0]))
    assert_agree(*results, 10 * AGREE)


@pytest.mark.peers
def test_repeat_agrees(theirs):
    model, (x, y) = classifier(logits=4), images(logits=4)
    results = []
    for library in (theirs, ours):
        fmodel = library.PyTorchModel(model, bounds=(0, 1), device="cpu")
        with seeded():
            results.append(library.attacks.L2PGD(steps=3).repeat(3)(fmodel, x, y, epsilons=[0.2, 0.4]))
    assert_agree(*results)


@pytest.mark.peers
def test_both_are_blind_at_large_margins_and_attack_model_is_not(theirs):
    """The gradient's norm is kept above 1e-12: where it underflows, the attack stands still."""
    model, (x, _) = classifier(logits=2, scale=1e4), images(40, margin=0.3)
    y = model(x).argmax(1)
    a, b = both(theirs, "L2PGD", model, x, lambda library: y, 2.0, random_start=False)
    assert a[2].double().mean() < 0.5
    assert torch.equal(a[2], b[2])
    assert bk.attack_model(model, x, y, radius=2.0, step=0.05, steps=50, box=(0, 1)).success.double().mean() > 0.9


@pytest.mark.peers
def test_they_leave_gradients_on_parameters_and_we_do_not(theirs):
    x, y = images()
    for library, clean in ((theirs, False), (ours, True)):
        model = classifier()
        library.attacks.L2PGD(steps=2)(library.PyTorchModel(model, bounds=(0, 1), device="cpu"), x, y, epsilons=0.3)
        assert all(p.grad is None for p in model.parameters()) == clean


# ---- ours alone ------------------------------------------------------------------------------------------------------


def wrapped(**options):
    return ours.PyTorchModel(classifier(**options), bounds=(0, 1), device="cpu")


@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
@pytest.mark.filterwarnings("ignore:the model is attacked through autograd")
def test_no_side_effects(generic):
    fmodel, (x, y) = wrapped(generic=generic), images()
    with random_starts(torch.Generator().manual_seed(0)):
        before = torch.get_rng_state()
        raw, clipped, success = ours.attacks.L2PGD(steps=3)(fmodel, x.requires_grad_(), y, epsilons=0.3)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.grad is None and p.requires_grad for p in fmodel.module.parameters())
    assert not any(t.requires_grad for t in (raw, clipped, success))
    assert x.grad is None


def test_random_starts_are_uniform_in_the_ball():
    x = torch.full((2000, 12), 0.5, dtype=torch.float64)
    l2, linf = ours.attacks.L2PGD(), ours.attacks.LinfPGD()
    radius = (l2.get_random_start(x, 0.25) - x).norm(dim=1) / 0.25
    assert uniform_distance(radius**12) < kolmogorov_bound(2000)
    assert uniform_distance((linf.get_random_start(x, 0.25) - x) / 0.5 + 0.5) < kolmogorov_bound(24000)


def test_the_warning_of_the_slow_path_names_the_caller():
    fmodel, (x, y) = wrapped(generic=True), images()
    with pytest.warns(UserWarning, match=r"attacked through autograd.*hooks") as caught:
        ours.attacks.FGSM()(fmodel, x, y, epsilons=0.1)
    assert [warning.filename for warning in caught] == [__file__]


def test_any_callable_with_bounds_is_a_model():
    class Bounded:
        bounds = (0.0, 1.0)
        model = classifier()

        def __call__(self, x):
            return 2 * self.model(x)

    x, y = images()
    with pytest.warns(UserWarning, match="Bounded"):
        _, clipped, success = ours.attacks.L2PGD()(Bounded(), x, y, epsilons=0.5)
    assert torch.equal(success, Bounded()(clipped).argmax(1) != y)


def test_one_logit_models_report_success_by_sign():
    fmodel, (x, _) = wrapped(logits=1), images()
    y = (fmodel(x)[:, 0] > 0).long()
    for labels in (y, 2 * y - 1):
        _, clipped, success = ours.attacks.L2PGD()(fmodel, x, labels, epsilons=3.0)
        assert torch.equal(success, (fmodel(clipped)[:, 0] > 0).long() != y)
        assert success.any()


@pytest.mark.parametrize(
    ("change", "epsilon", "error", "message"),
    [
        ({}, -1.0, ValueError, r"^epsilons: got -1, expected a finite number ≥ 0$"),
        ({"abs_stepsize": 0.1}, -1.0, ValueError, r"^epsilons: got -1, expected a number ≥ 0$"),
        ({"rel_stepsize": -0.1}, 0.5, ValueError, r"^rel_stepsize: got -0\.1, expected a finite number ≥ 0$"),
        ({"abs_stepsize": math.inf}, 0.5, ValueError, r"^abs_stepsize: got inf, expected a finite number ≥ 0$"),
        ({"steps": -1}, 0.5, ValueError, r"^steps: got -1, expected an integer ≥ 0$"),
    ],
)
@pytest.mark.parametrize("name", ["L2PGD", "LinfPGD"])
def test_errors_have_the_names_of_the_constructor(name, change, epsilon, error, message):
    fmodel, (x, y) = wrapped(), images()
    with pytest.raises(error, match=message):
        getattr(ours.attacks, name)(**change)(fmodel, x, y, epsilons=epsilon)


def test_errors_say_what_was_wrong():
    fmodel, (x, y) = wrapped(), images()
    attack = ours.attacks.L2PGD()
    with pytest.raises(ValueError, match=r"inputs: got values from .* expected them in the bounds 0 to 1"):
        attack(fmodel, x + 0.5, y, epsilons=0.1)
    with pytest.raises(NotImplementedError, match="epsilons"):
        attack(fmodel, x, y, epsilons=[0.1, None])
    with pytest.raises(ValueError, match="criterion: got str, expected labels, Misclassification or Targeted"):
        attack(fmodel, x, "cat", epsilons=0.1)
    with pytest.raises(ValueError, match="criterion: got TargetedMisclassification, expected labels or Mis"):
        ours.attacks.FGM()(fmodel, x, ours.TargetedMisclassification(y), epsilons=0.1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'mc'"):
        attack(fmodel, x, y, epsilons=0.1, mc=3)
    with pytest.raises(TypeError, match="inputs: got list"):
        attack(fmodel, [0.0], y, epsilons=0.1)
    with pytest.raises(ValueError, match="model: got function"):
        ours.PyTorchModel(images, bounds=(0, 1))
    with pytest.raises(ValueError, match="preprocessing: got the key 'scale'"):
        ours.PyTorchModel(nn.Identity().eval(), bounds=(0, 1), preprocessing={"scale": 2})
    with pytest.raises(ValueError, match="times: got 0"):
        attack.repeat(0)
    with pytest.raises(AttributeError, match="CW is not in"):
        ours.attacks.CW  # noqa: B018
    with pytest.raises(AttributeError, match=r"samples is not in .*, which has .*; take it from foolbox"):
        ours.samples  # noqa: B018
    with pytest.warns(UserWarning, match="training mode"):
        ours.PyTorchModel(nn.Identity(), bounds=(0, 1), device="cpu")
    with pytest.raises(TypeError, match="overrides get_loss_fn"):
        type("Mine", (ours.attacks.L2PGD,), {"get_loss_fn": None})
