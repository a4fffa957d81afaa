"""What a training writes down, when it stops, and how it goes on after an interruption."""

import itertools

import pytest
import torch
from torch.nn import functional
from training_problems import F64, LOSSES, SAME, network, oracle, problem

import benign_kernels as bk
from benign_kernels import reference

# ---- history, stop, callback -----------------------------------------------------------------------------------------


def test_history_is_what_it_says():
    parameters, x, y = problem(bias=True)
    names = ("robust_loss", "clean_loss", "robust_error", "clean_error", "robust_margin", "clean_margin",
             "weight_norm", "distance", "gradient_norm")  # fmt: skip
    keywords = {"radius": 0.7, "steps": 5, "iterations": 23, "step_size": 0.01}
    trackers = {"first": lambda net: net.W[0, :2], "norm": lambda net: net.W.norm().item()}
    fit = bk.adversarial_train(
        tuple(parameters), x, y, span=True, history=names, every=5, trackers=trackers, **keywords
    )
    h = fit.history
    assert h["iteration"].tolist() == [0, 5, 10, 15, 20, 23]
    path, _ = oracle(parameters, x, y, **keywords)
    nets = [parameters, *path]
    for i, t in enumerate(h["iteration"].tolist()):
        W, a, bias, head_bias = nets[t]
        attacked = reference.l2_pgd(x, y, W, a, bias=bias, head_bias=head_bias, radius=0.7, steps=5)
        clean = y * bk.two_layer(x, W, a, bias=bias, head_bias=head_bias)
        free = [p.clone().requires_grad_() for p in (W, bias, head_bias)]
        f = network([free[0], a, *free[1:]], attacked.x, bk.ReLU(), 1)
        grads = torch.autograd.grad(LOSSES["logistic"](f, y), free)
        want = {
            "robust_loss": functional.softplus(-attacked.margin).mean(),
            "clean_loss": functional.softplus(-clean).mean(),
            "robust_error": (attacked.margin <= 0).double().mean(),
            "clean_error": (clean <= 0).double().mean(),
            "robust_margin": attacked.margin,
            "clean_margin": clean,
            "weight_norm": W.norm(),
            "distance": (W - parameters[0]).norm(),
            "gradient_norm": torch.cat([g.flatten() for g in grads]).norm(),
            "first": W[0, :2],
        }
        for name, value in want.items():
            torch.testing.assert_close(h[name][i], value, rtol=SAME, atol=SAME, msg=lambda text, name=name: name + text)
    assert h["norm"].shape == (6,)


def test_what_is_written_down_does_not_change_the_training():
    parameters, x, y = problem()
    keywords = {"radius": 0.7, "iterations": 40, "step_size": 0.01}
    plain = bk.adversarial_train(tuple(parameters), x, y, history=(), every=40, **keywords)
    full = bk.adversarial_train(
        tuple(parameters), x, y, history=("clean_loss", "gradient_norm", "robust_margin"), every=3, **keywords
    )
    assert torch.equal(plain.net.W, full.net.W)
    assert list(plain.history) == ["iteration"]


@pytest.mark.parametrize("name", ["robust_loss", "robust_error", "clean_loss", "clean_error"])
def test_stop_ends_at_the_first_iteration_that_is_good_enough(name):
    parameters, x, y = problem()
    keywords = {"radius": 0.7, "iterations": 400, "step_size": 0.02, "activation": bk.LeakyReLU(0.3)}
    full = bk.adversarial_train(tuple(parameters), x, y, history=(name,), **keywords).history[name]
    least = 0.0 if name.endswith("error") else (full[0] + full[-1]).item() / 2
    first = int((full <= least).nonzero()[0])
    fit = bk.adversarial_train(tuple(parameters), x, y, stop={name: least}, every=1000, history=(name,), **keywords)
    assert (fit.ended, fit.iterations) == ("stop", first)
    assert fit.history["iteration"].tolist() == sorted({0, first})
    assert fit.history[name][-1] <= least


def test_stop_waits_for_every_network():
    (W, a), x, y = problem()
    radius = torch.tensor([[0.0], [0.7]], **F64)
    keywords = {"iterations": 400, "step_size": 0.02, "activation": bk.LeakyReLU(0.3), "stop": {"robust_error": 0.0}}
    both = bk.adversarial_train((W.expand(2, *W.shape), a.expand(2, -1)), x, y, radius=radius, **keywords)
    each = [bk.adversarial_train((W, a), x, y, radius=r, **keywords).iterations for r in (0.0, 0.7)]
    assert both.iterations == max(each)
    assert min(each) < max(each)


def test_a_callback_ends_the_training_and_sees_it():
    parameters, x, y = problem()
    seen = []

    def callback(progress):
        seen.append((progress.iteration, progress.iterations, progress.record["robust_loss"].item()))
        assert progress.net.W.shape == (6, 120)
        return progress.iteration >= 20

    keywords = {"radius": 0.7, "iterations": 100, "step_size": 0.01}
    fit = bk.adversarial_train(tuple(parameters), x, y, every=10, callback=callback, **keywords)
    assert [s[:2] for s in seen] == [(0, 100), (10, 100), (20, 100)]
    assert (fit.ended, fit.iterations) == ("callback", 20)
    assert fit.history["robust_loss"].tolist() == [s[2] for s in seen]


def test_trackers_keep_their_shape():
    parameters, x, y = problem()
    sizes = itertools.count(1)
    keywords = {"radius": 0.7, "iterations": 5, "step_size": 0.01}
    with pytest.raises(
        ValueError, match=r"^trackers: got shape \(2,\) from 'u' at iteration 1, expected \(1,\), as at"
    ):
        bk.adversarial_train(tuple(parameters), x, y, trackers={"u": lambda net: [0.0] * next(sizes)}, **keywords)


# ---- interruption ----------------------------------------------------------------------------------------------------

INTERRUPTED = {
    "span": {"span": True, "momentum": 0.9, "distance": 0.5},
    "input space": {"span": False, "weight_decay": 0.1},
    "batches": {"span": True, "batch_size": 3, "momentum": 0.5},
    "random starts": {"random_start": True},
    "random batches": {"random_start": True, "batch_size": 3},
}


@pytest.mark.parametrize("recipe", INTERRUPTED.values(), ids=INTERRUPTED)
@pytest.mark.parametrize("cut", [0, 7, 10])
def test_resuming_is_bit_for_bit_no_interruption(recipe, cut, tmp_path):
    parameters, x, y = problem()
    keywords = {"radius": 0.7, "step_size": 0.005, "every": 5, **recipe, "history": ("robust_loss", "gradient_norm")}

    def generator():
        return torch.Generator().manual_seed(4) if "random_start" in recipe or "batch_size" in recipe else None

    whole = bk.adversarial_train(tuple(parameters), x, y, iterations=23, generator=generator(), **keywords)
    part = bk.adversarial_train(tuple(parameters), x, y, iterations=cut, generator=generator(), **keywords)
    torch.save(part.state_dict(), tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    other = None if generator() is None else torch.Generator().manual_seed(99)
    rest = bk.adversarial_train(tuple(parameters), x, y, iterations=23, generator=other, resume=state, **keywords)
    assert torch.equal(rest.net.W, whole.net.W)
    assert rest.history.keys() == whole.history.keys()
    for name in whole.history:
        assert torch.equal(rest.history[name], whole.history[name]), name


@pytest.mark.parametrize("where", ["tracker", "attack", "schedule"])
def test_ctrl_c_returns_the_state_so_far(where):
    parameters, x, y = problem()
    calls = itertools.count()

    def interrupt():
        if next(calls) == 12:
            raise KeyboardInterrupt

    def tracker(net):
        if where == "tracker":
            interrupt()
        return 0

    def attack(points, labels, net):
        if where == "attack":
            interrupt()
        return bk.l2_pgd(points, labels, net.W, net.a, radius=0.7).x

    def schedule(t):
        if where == "schedule":
            interrupt()
        return 0.01

    keywords = {"radius": 0.7, "iterations": 30, "trackers": {"t": tracker}, "attack": attack, "step_size": schedule}
    fit = bk.adversarial_train(tuple(parameters), x, y, **keywords)
    assert (fit.interrupted, fit.ended, fit.iterations) == (True, "interrupted", 12)
    assert len(fit.history["robust_loss"]) == (13 if where == "schedule" else 12)
    rest = bk.adversarial_train(tuple(parameters), x, y, resume=fit.state_dict(), **keywords)
    whole = bk.adversarial_train(tuple(parameters), x, y, **keywords)
    assert not rest.interrupted
    assert torch.equal(rest.net.W, whole.net.W)
    assert torch.equal(rest.history["robust_loss"], whole.history["robust_loss"])


def test_a_progress_can_be_resumed_too():
    parameters, x, y = problem()
    kept = {}

    def keep(progress):
        kept[progress.iteration] = progress.state_dict()

    keywords = {"radius": 0.7, "iterations": 20, "step_size": 0.01, "every": 5}
    whole = bk.adversarial_train(tuple(parameters), x, y, callback=keep, **keywords)
    rest = bk.adversarial_train(tuple(parameters), x, y, resume=kept[10], **keywords)
    assert torch.equal(rest.net.W, whole.net.W)
    assert torch.equal(rest.history["robust_loss"], whole.history["robust_loss"])


# ---- mini-batches and random starts ----------------------------------------------------------------------------------


def test_an_epoch_sees_every_sample_once():
    """With plain training and a step so small that the gradients do not change, an epoch's updates are the full one."""
    parameters, x, y = problem(n=10)
    keywords = {"radius": 0.0, "activation": "tanh"}
    generator = torch.Generator().manual_seed(0)
    mini = {"batch_size": 4, "generator": generator, "step_size": lambda t: (4e-6, 4e-6, 2e-6)[t]}
    batches = bk.adversarial_train(tuple(parameters), x, y, iterations=3, **mini, **keywords)
    full = bk.adversarial_train(tuple(parameters), x, y, iterations=1, step_size=1e-5, **keywords)
    moved = full.net.W - parameters[0]
    torch.testing.assert_close(batches.net.W - parameters[0], moved, rtol=0, atol=1e-3 * moved.abs().max().item())


def test_random_starts_repeat_with_the_generator_and_differ_without():
    parameters, x, y = problem()

    def result(seed, **more):
        keywords = {"radius": 2.0, "steps": 2, "iterations": 10, "step_size": 0.01, "random_start": True, **more}
        return bk.adversarial_train(
            tuple(parameters), x, y, generator=torch.Generator().manual_seed(seed), **keywords
        ).net.W

    for norm in ("l2", "linf"):
        assert torch.equal(result(0, norm=norm), result(0, norm=norm))
        assert not torch.equal(result(0, norm=norm), result(1, norm=norm))
    per_sample = torch.full((8,), 2.0, **F64)
    assert torch.equal(result(0), result(0, radius=per_sample))
