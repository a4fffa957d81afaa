"""What other attack libraries get wrong or make hard: each shown right here, some also wrong there."""

import gc

import numpy as np
import pytest
import torch
from peer_helpers import AGREE, classifier, difference, images, kolmogorov_bound, uniform_distance
from torch import nn

import benign_kernels as bk

pytestmark = pytest.mark.filterwarnings("ignore:the model is attacked through autograd")

SCALES = [1e-6, 1e-3, 1.0, 1e3, 1e6]
ATTACKS = {"l2": bk.l2_pgd, "linf": bk.linf_pgd}
RADII = {"l2": 0.4, "linf": 0.06}


def problem(n=60, d=20, m=40, dtype=torch.float64):
    """Samples with their labels, all right at first, and the tensors (W, a) of a ReLU network."""
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(n, d, dtype=dtype, generator=draws)
    W = torch.randn(m, d, dtype=dtype, generator=draws) / d**0.5
    a = torch.randn(m, dtype=dtype, generator=draws)
    return x, bk.two_layer(x, W, a).sign(), W, a


def two_logits(W, a):
    """The module with logits (0, f): its cross-entropy is f's logistic loss."""
    model = nn.Sequential(nn.Linear(W.shape[1], len(a), bias=False), nn.ReLU(), nn.Linear(len(a), 2, bias=False))
    model = model.to(W.dtype)
    with torch.no_grad():
        model[0].weight.copy_(W)
        model[2].weight.copy_(torch.stack([torch.zeros_like(a), a]))
    return model.eval()


# ---- false robustness ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_scaling_the_network_leaves_every_verdict_unchanged(norm):
    x, y, W, a = problem()
    verdicts = [ATTACKS[norm](x, y, W, scale * a, radius=RADII[norm]).success for scale in SCALES]
    assert 0.2 < verdicts[0].double().mean() < 0.95
    assert all(torch.equal(verdict, verdicts[0]) for verdict in verdicts)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_scaling_by_a_power_of_two_leaves_every_bit_unchanged(norm, dtype):
    x, y, W, a = problem(dtype=dtype)
    expected = ATTACKS[norm](x, y, W, a, radius=RADII[norm])
    for power in (-40, -20, 20, 40):
        found = ATTACKS[norm](x, y, W, a * 2.0**power, radius=RADII[norm])
        assert torch.equal(found.x, expected.x)
        assert torch.equal(found.margin, expected.margin * 2.0**power)


@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
def test_two_logit_heads_are_attacked_like_one(generic):
    """In the cross-entropy of logits (0, f) label 1's gradient vanishes above margin 17; here it does not."""
    x, y, W, a = problem()
    expected = bk.l2_pgd(x, y, W, a, radius=0.4).success
    for scale in SCALES:
        model = two_logits(W, scale * a)
        if generic:
            model.register_forward_hook(lambda *arguments: None)
        assert torch.equal(bk.attack_model(model, x, (y > 0).long(), radius=0.4).success, expected)


@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
def test_many_logits_are_attacked_at_every_margin(generic):
    """Scaling changes how the other classes are weighed, so verdicts may differ a little; they must not vanish."""
    x, _ = images(60)
    accuracies = []
    for scale in SCALES:
        model = classifier(logits=5, scale=scale, generic=generic)
        found = bk.attack_model(model, x, model(x).argmax(1), radius=0.3)
        accuracies.append(1 - found.success.double().mean().item())
    assert min(accuracies) > 0.05
    assert max(accuracies) < min(accuracies) + 0.1


def robust_accuracies(model, x, y, radius, steps, step):
    """By library: the fraction of samples that its attack, with wide bounds and no random start, leaves right."""
    lo, hi = -1e3, 1e3
    torchattacks = pytest.importorskip("torchattacks", exc_type=ImportError)
    foolbox = pytest.importorskip("foolbox", exc_type=ImportError)
    cleverhans = pytest.importorskip("cleverhans.torch.attacks.projected_gradient_descent", exc_type=ImportError)
    shift = x.reshape(len(x), 1, 1, -1) / 1e3 + 0.5  # torchattacks' box is [0, 1]: shrink the problem into it

    class Shrunk(nn.Module):
        def forward(self, images):
            return model((images.flatten(1) - 0.5) * 1e3)

    attack = torchattacks.PGDL2(Shrunk(), eps=radius / 1e3, alpha=step / 1e3, steps=steps, random_start=False)
    attack.set_device(torch.device("cpu"))
    fmodel = foolbox.PyTorchModel(model, bounds=(lo, hi), device="cpu")
    l2pgd = foolbox.attacks.L2PGD(abs_stepsize=step, steps=steps, random_start=False)
    found = {
        "torchattacks": (attack(shift, y).flatten(1) - 0.5) * 1e3,
        "foolbox": l2pgd(fmodel, x, y, epsilons=radius)[0],
        "cleverhans": cleverhans.projected_gradient_descent(model, x, radius, step, steps, 2, y=y, rand_init=False),
        "ours": bk.attack_model(model, x, y, radius=radius, step=step, steps=steps).x,
    }
    return {name: (model(points).argmax(1) == y).double().mean().item() for name, points in found.items()}


@pytest.mark.peers
@pytest.mark.filterwarnings("ignore")
def test_the_libraries_report_robustness_that_is_not_there():
    x, y, W, a = problem(dtype=torch.float32)
    reports = []
    for margin in (1.0, 110.0):
        scale = margin / bk.two_layer(x, W, a).abs().mean()
        reports.append(robust_accuracies(two_logits(W, scale * a), x, (y > 0).long(), radius=3.0, steps=20, step=0.4))
    assert all(accuracy < 0.05 for accuracy in reports[0].values())
    assert reports[1]["ours"] == reports[0]["ours"]
    assert all(reports[1][name] > 0.3 for name in ("torchattacks", "foolbox", "cleverhans"))


# ---- boxes, shapes, what users ask for -------------------------------------------------------------------------------


def test_no_box_is_forced():
    x, y, W, a = problem()
    found = bk.l2_pgd(10 * x, y, W, a, radius=0.4)
    assert (found.x - 10 * x).norm(dim=1).max() <= 0.4 * (1 + 1e-12)
    boxed = bk.l2_pgd(x, y, W, a, radius=0.4, box=(-1.0, 1.0))
    assert boxed.x.abs().max() <= 1


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("radius", [1e-3, 0.3, 1.0, 1e3])
def test_the_ball_is_not_left(dtype, radius):
    """‖δ‖ ≤ ε (1 + 4 ulp) before the last addition, seen by attacking around the origin, where x is δ itself."""
    _, y, W, a = problem(dtype=dtype)
    x = torch.zeros(60, 20, dtype=dtype)
    bias = torch.randn(40, dtype=dtype, generator=torch.Generator().manual_seed(1))
    found = bk.l2_pgd(x, y, W, a, bias=bias, radius=radius, step=radius / 3, steps=30)
    norm = found.x.double().norm(dim=1)
    assert (norm / radius - 1).max() <= 4 * torch.finfo(dtype).eps
    assert (norm / radius - 1).median() >= -4 * torch.finfo(dtype).eps


def test_two_dimensional_inputs_signs_and_binary_labels_classes_and_regression():
    x, y, W, a = problem()
    model = two_logits(W, a)
    expected = bk.l2_pgd(x, y, W, a, radius=0.4).margin
    for labels in (y, (y > 0).long()):
        found = bk.attack_model((W, a), x, labels, radius=0.4, labels=None if labels is y else "binary")
        assert difference(found.margin, expected) < 1e-12
    assert difference(bk.attack_model(model, x, (y > 0).long(), radius=0.4).margin, expected) < 1e-9
    targets = bk.two_layer(x, W, a) + 0.1
    regression = bk.attack_model((W, a), x, targets, radius=0.4, loss="squared")
    assert (regression.margin < -0.01).all()


def test_a_radius_for_each_sample():
    x, y, W, a = problem()
    radius = torch.linspace(0, 1, 60, dtype=torch.float64)
    found = bk.l2_pgd(x, y, W, a, radius=radius)
    moved = (found.x - x).norm(dim=1)
    assert (moved <= radius * (1 + 1e-12)).all()
    assert torch.equal(found.x[0], x[0])
    for i in (7, 42):
        alone = bk.l2_pgd(x[i : i + 1], y[i : i + 1], W, a, radius=radius[i].item())
        assert difference(alone.x, found.x[i : i + 1]) < AGREE


def test_trajectories_show_every_iterate():
    x, y, W, a = problem()
    found = bk.l2_pgd(x, y, W, a, radius=0.4, steps=8, trajectory=True)
    assert found.trajectory.shape == (9, 60, 20)
    assert torch.equal(found.trajectory[0], x)
    assert torch.equal(found.trajectory[-1], found.x)
    steps = found.trajectory.diff(dim=0).norm(dim=-1)
    assert (steps <= 0.4 * 2.5 / 8 * (1 + 1e-9)).all()
    for k in (3, 8):
        shorter = bk.l2_pgd(x, y, W, a, radius=0.4, step=0.4 * 2.5 / 8, steps=k)
        assert difference(shorter.x, found.trajectory[k]) < 1e-12


def test_many_networks_at_once():
    x, y, W, a = problem()
    Ws, heads = torch.stack([W, W.flip(0) * 1.5, -W]), torch.stack([a, a, a])
    together = bk.l2_pgd(x, y.expand(3, 60), Ws, heads, radius=0.4)
    for i in range(3):
        alone = bk.l2_pgd(x, y, Ws[i], heads[i], radius=0.4)
        assert difference(together.x[i], alone.x) < AGREE


def test_splitting_the_batch_changes_nothing():
    x, y, W, a = problem()
    whole = bk.l2_pgd(x, y, W, a, radius=0.4, restarts=1).x
    parts = [bk.l2_pgd(x[i : i + 7], y[i : i + 7], W, a, radius=0.4).x for i in range(0, 60, 7)]
    assert difference(torch.cat(parts), whole) < AGREE


@pytest.mark.parametrize("norm", ["l2", "linf"])
@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
def test_random_starts_are_uniform_in_the_ball(norm, generic):
    """The second restart begins at random; without steps, that is its whole trajectory."""
    n, d = 2000, 6
    model = classifier(logits=1, inputs=d, generic=generic)
    found = bk.attack_model(
        *(model, torch.zeros(n, d, dtype=torch.float64), torch.ones(n)),
        **{"norm": norm, "radius": 0.5, "steps": 0, "restarts": 2, "trajectory": True},
        generator=torch.Generator().manual_seed(0),
    )
    start = found.trajectory[1, 0]
    assert start.mean(0).abs().max() < 4 * 0.5 / n**0.5
    if norm == "linf":
        assert uniform_distance(start + 0.5) < kolmogorov_bound(n * d)
    else:
        assert uniform_distance((start.norm(dim=1) / 0.5) ** d) < kolmogorov_bound(n)


# ---- side effects ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_no_gradient_mode_flag_or_random_state_is_changed(norm, generic):
    model, (x, y) = classifier(generic=generic).train(), images()
    model[2].eval()
    model[1].bias.requires_grad_(False)
    modes = [module.training for module in model.modules()]
    flags = [p.requires_grad for p in model.parameters()]
    cpu, numpy = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    bk.attack_model(
        model, x, y, radius=0.3, norm=norm, restarts=2, keep="worst", generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(torch.get_rng_state(), cpu)
    assert (np.random.get_state()[1] == numpy).all()  # noqa: NPY002
    assert [module.training for module in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == flags
    assert all(p.grad is None for p in model.parameters())


def test_raw_tensors_get_no_gradient_and_results_hold_no_graph():
    tensors = problem()
    for tensor in tensors:
        tensor.requires_grad_()
    found = bk.l2_pgd(*tensors, radius=0.4, restarts=2, trajectory=True)
    assert all(tensor.grad is None for tensor in tensors)
    assert not any(t.requires_grad for t in (found.x, found.logits, found.margin, found.trajectory))


def resident_bytes():
    gc.collect()
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * 4096


@pytest.mark.parametrize("generic", [False, True], ids=["recognised", "generic"])
def test_memory_is_flat_over_a_hundred_calls(generic):
    """One call makes over 1 MB of iterates: a leak of its graph or its results would show as 100 MB."""
    model = nn.Sequential(nn.Linear(256, 32), nn.ReLU(), nn.Linear(32, 2))
    if generic:
        model.register_forward_hook(lambda *arguments: None)
    x, y = torch.randn(256, 256), torch.arange(256) % 2

    def attack():
        return bk.attack_model(model, x, y, radius=0.5, steps=3, trajectory=True).x

    for _ in range(20):
        attack()
    before = resident_bytes()
    for _ in range(100):
        attack()
    assert resident_bytes() - before < 16e6


# ---- agreement -------------------------------------------------------------------------------------------------------


@pytest.mark.peers
def test_directions_are_the_libraries():
    """bk.l2_pgd with their directions ends where they do, in float64, from the same point, where no box is active."""
    torchattacks = pytest.importorskip("torchattacks", exc_type=ImportError)
    foolbox = pytest.importorskip("foolbox", exc_type=ImportError)
    model, (x, y) = classifier(), images(margin=0.45)
    attack = torchattacks.PGDL2(model, eps=0.3, alpha=0.05, steps=20, random_start=False)
    ours = {
        name: bk.attack_model(model, x, y, radius=0.3, step=0.05, steps=20, direction=name).x
        for name in ("exact", "torchattacks", "foolbox", "cleverhans")
    }
    assert difference(attack(x, y), ours["torchattacks"]) < AGREE
    fmodel = foolbox.PyTorchModel(model, bounds=(-9, 9), device="cpu")
    pgd = foolbox.attacks.L2PGD(abs_stepsize=0.05, steps=20, random_start=False)
    assert difference(pgd(fmodel, x, y, epsilons=0.3)[0], ours["foolbox"]) < AGREE
    for name in ("exact", "cleverhans"):  # where no floor is active they are one direction
        assert difference(ours[name], ours["foolbox"]) < 1e-6
