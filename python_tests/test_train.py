"""Training in native code: the op `train`, and where `adversarial_train` chooses it."""

import itertools
import signal
import threading
import time

import pytest
import torch
from training_problems import F64, SAME, normal, problem, rademacher

import benign_kernels as bk
from benign_kernels import training

RECIPES = {
    "plain": {},
    "momentum": {"momentum": 0.9, "weight_decay": 0.1},
    "decay": {"weight_decay": 0.3},
    "distance": {"distance": 0.3},
    "mixture": {"mixture": 0.4, "momentum": 0.3},
    "one step": {"attack": "one_step"},
    "exact": {"attack": "exact", "activation": "identity", "train_head": False, "momentum": 0.3},
    "no attack": {"attack": "none"},
    "per sample": {"radius": torch.linspace(0.0, 1.4, 8, **F64), "step": torch.linspace(0.3, 0.1, 8, **F64)},
    "schedule": {"step_size": lambda t: 0.01 / (1 + t)},
    "hinge": {"loss": "hinge"},
    "exponential": {"loss": "exponential"},
}
NAMES = ("robust_loss", "clean_loss", "robust_error", "clean_error", "robust_margin", "clean_margin",
         "weight_norm", "distance", "gradient_norm")  # fmt: skip


def in_python(monkeypatch):
    monkeypatch.setattr(training, "reason_against", lambda engine: "the test says so")


def both(monkeypatch, parameters, x, y, **keywords):
    """The same training by both engines."""
    natively = bk.adversarial_train(tuple(parameters), x, y, **keywords)
    with monkeypatch.context() as patch:
        in_python(patch)
        python = bk.adversarial_train(tuple(parameters), x, y, **keywords)
    assert (natively.engine, python.engine) == ("native", "python: the test says so")
    return natively, python


def assert_same_training(one, other, tolerance=SAME):
    assert (one.iterations, one.ended) == (other.iterations, other.ended)
    for name in ("W", "a", "bias", "head_bias"):
        got, want = getattr(one.net, name), getattr(other.net, name)
        if want is not None:
            torch.testing.assert_close(
                got, want, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: name + text
            )
    assert one.history.keys() == other.history.keys()
    for name, want in other.history.items():
        torch.testing.assert_close(
            one.history[name], want, rtol=tolerance, atol=tolerance, msg=lambda text, name=name: name + text
        )


# ---- the same as in Python -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_native_training_is_training_in_python(recipe, monkeypatch):
    parameters, x, y = problem(bias=True)
    keywords = {"radius": 0.7, "steps": 5, "iterations": 205, "step_size": 0.01, "train_head": True, "every": 10}
    assert_same_training(*both(monkeypatch, parameters, x, y, history=NAMES, **{**keywords, **recipe}))


@pytest.mark.parametrize("phi", [bk.ReLU(), bk.LeakyReLU(0.1), bk.Identity(), bk.Tanh(), bk.ReLUPower(2), bk.GELU()])
def test_in_the_span_and_outside_of_it_with_patches(phi, monkeypatch):
    parameters, x, y = problem(patches=3, d=50, bias=True)
    keywords = {"radius": 0.5, "steps": 4, "iterations": 150, "step_size": 2e-3, "activation": phi, "patches": 3}
    for span in (True, False):
        assert_same_training(*both(monkeypatch, parameters, x, y, span=span, **keywords))


@pytest.mark.parametrize("loss", ["squared", "cross_entropy"])
def test_several_outputs(loss, monkeypatch):
    parameters, x, y = problem(k=3, bias=True)
    y = torch.arange(8) % 3 if loss == "cross_entropy" else normal(8, 3, seed=5)
    keywords = {"radius": 0.7, "steps": 5, "iterations": 60, "step_size": 0.01, "loss": loss, "train_head": True}
    names = tuple(name for name in NAMES if loss == "cross_entropy" or not name.endswith("error"))
    for mixture in (1.0, 0.5):
        assert_same_training(*both(monkeypatch, parameters, x, y, history=names, mixture=mixture, **keywords))


def wide(networks=(), n=5, d=400, m=60, dtype=torch.float64):
    """Few samples beside many neurons and dimensions: G follows its updates."""
    W, a = normal(*networks, m, d, seed=1) / 20, rademacher(*networks, m) / 8
    return (W.to(dtype), a.to(dtype)), normal(n, d).to(dtype), rademacher(*networks, n, seed=3).to(dtype)


@pytest.mark.parametrize("more", [{}, {"weight_decay": 0.2}, {"mixture": 0.5}])
def test_a_gram_matrix_that_follows_its_updates(more, monkeypatch):
    parameters, x, y = wide()
    keywords = {"radius": 1.0, "iterations": 100, "step_size": 0.01, "span": False, **more}
    natively, python = both(monkeypatch, parameters, x, y, **keywords)
    assert natively.state["gram"].shape == (60, 60)
    assert_same_training(natively, python)


def test_the_gram_matrix_drifts_no_further_than_rounding():
    """1000 iterations in float32: what is carried is W Wᵀ of the weights to a few roundings of their norms."""
    parameters, x, y = wide(dtype=torch.float32)
    fit = bk.adversarial_train(parameters, x, y, radius=1.0, iterations=1000, step_size=0.01, span=False, every=1000)
    W, gram = fit.net.W.double(), fit.state["gram"].double()
    norms = W.norm(dim=1)
    error = ((gram - W @ W.mT).abs() / (norms[:, None] * norms)).max().item()
    assert fit.iterations % 32 == 8  # so many updates since it was last taken in full, each with a rounding of its own
    assert error <= 2**-24 * 16


# ---- its bits --------------------------------------------------------------------------------------------------------


def test_bits_depend_neither_on_threads_nor_on_calls(monkeypatch):
    results = []
    for threads, seconds in itertools.product((1, 2), (1e-9, 10.0)):
        monkeypatch.setattr("benign_kernels._history._CALL_SECONDS", seconds)
        before = torch.get_num_threads()
        torch.set_num_threads(threads)
        try:
            for networks in ((), (3,)):
                parameters, x, y = wide(networks, dtype=torch.float32)
                fit = bk.adversarial_train(parameters, x, y, radius=1.0, iterations=77, step_size=0.01, span=False)
                results.append((fit.net.W, fit.history["robust_loss"]))
        finally:
            torch.set_num_threads(before)
    for one, other in zip(results[2:], results, strict=False):
        assert all(map(torch.equal, one, other))


@pytest.mark.parametrize("cut", [1, 40])
def test_resumed_with_a_carried_gram_matrix(cut):
    parameters, x, y = wide(dtype=torch.float32)
    keywords = {"radius": 1.0, "step_size": 0.01, "span": False, "every": 7}
    whole = bk.adversarial_train(parameters, x, y, iterations=90, **keywords)
    part = bk.adversarial_train(parameters, x, y, iterations=cut, **keywords)
    rest = bk.adversarial_train(parameters, x, y, iterations=90, resume=part.state_dict(), **keywords)
    assert torch.equal(rest.net.W, whole.net.W)
    assert torch.equal(rest.history["robust_loss"], whole.history["robust_loss"])


# ---- sizes, faults, interruption -------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1e-17, 1e18])
def test_weights_whose_squares_are_at_the_ends_of_float32(size, monkeypatch):
    (W, a), x, y = problem()
    parameters = ((W * size).float(), (a / size).float())
    keywords = {"radius": 0.7, "iterations": 20, "step_size": 0.01 * size * size, "span": False}
    natively, python = both(monkeypatch, parameters, x.float(), y.float(), **keywords)
    torch.testing.assert_close(natively.net.W / size, python.net.W / size, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("fault", ["x", "W", "step_size"])
def test_what_is_not_finite_becomes_nan_and_touches_no_other_network(fault, monkeypatch):
    (W, a), x, y = problem()
    W, a, x = W.repeat(2, 1, 1), a.repeat(2, 1), x.repeat(2, 1, 1)
    step_size = torch.tensor([0.01, 0.01], **F64)
    {"x": x, "W": W, "step_size": step_size}[fault].view(2, -1)[1, 0] = 1e300 if fault == "step_size" else float("nan")
    keywords = {"radius": 0.5, "iterations": 20, "step_size": step_size, "span": False, "loss": "squared"}
    natively, python = both(monkeypatch, (W, a), x, y, **keywords)
    assert not natively.net.W[1].isfinite().all()
    torch.testing.assert_close(natively.net.W[0], python.net.W[0], rtol=SAME, atol=SAME)


def test_ctrl_c_is_heard_between_calls():
    parameters, x, y = problem()
    keywords = {"radius": 0.7, "step_size": 1e-3, "every": 1000}
    timer = threading.Timer(0.5, signal.raise_signal, (signal.SIGINT,))
    timer.start()
    began = time.perf_counter()
    fit = bk.adversarial_train(tuple(parameters), x, y, iterations=10**8, **keywords)
    assert time.perf_counter() - began < 5
    assert fit.interrupted
    assert fit.engine == "native"
    rest = bk.adversarial_train(
        tuple(parameters), x, y, iterations=fit.iterations + 5, resume=fit.state_dict(), **keywords
    )
    whole = bk.adversarial_train(tuple(parameters), x, y, iterations=fit.iterations + 5, **keywords)
    assert torch.equal(rest.net.W, whole.net.W)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"batch_size": 2, "generator": torch.Generator()}, "mini-batches are drawn"),
        ({"norm": "linf"}, "norm='linf'"),
        ({"box": (0, 1)}, "the attack has a box"),
        ({"random_start": True, "generator": torch.Generator()}, "the attack starts at random"),
        ({"attack": lambda x, y, net: x}, "the attack is a function"),
        ({"algorithm": "dense"}, "algorithm='dense'"),
        ({"steps": 1, "span": False, "x": normal(8, 2), "W": normal(600, 2)}, "W Wᵀ of 600 neurons in 2 dimensions"),
    ],
)
def test_what_runs_in_python_says_why(change, reason):
    (W, a), x, y = problem()
    change = {"radius": 0.5, "iterations": 2, "step_size": 0.01, **change}
    W, x = change.pop("W", W), change.pop("x", x)
    fit = bk.adversarial_train((W, a[:1].expand(len(W))), x, y, **change)
    assert fit.engine.startswith(f"python: {reason}")


# ---- the raw op ------------------------------------------------------------------------------------------------------


def raw_arguments(momentum=None, gram=False, updates=3):
    (W, a, bias, head_bias), x, y = problem(bias=True)
    velocity = (W, None, bias, head_bias) if momentum is not None else (None,) * 4
    each = None if momentum is None else torch.tensor([momentum], **F64)
    return [
        *(x, y, W, a, bias, head_bias, *velocity, W @ W.mT if gram else None, W),
        *(torch.full((updates, 1), 0.01, **F64), None, each, None, None, None, None, 0.7, 0.2, 5, "logistic"),
        *(False, True, True, gram, 4, 2, True, True, "relu", 0.0, 0.0, 1),
    ]


@pytest.mark.parametrize("keywords", [{}, {"momentum": 0.5}, {"gram": True}, {"updates": 0}])
def test_opcheck(keywords):
    torch.library.opcheck(torch.ops.benign_kernels.train.default, tuple(raw_arguments(**keywords)))


@pytest.mark.parametrize(
    ("position", "value", "message"),
    [
        (1, torch.ones(3, **F64), r"y: got shape \(3,\), expected \(8,\)"),
        (6, torch.ones(2, **F64), r"v_W: got shape \(2,\)"),
        (12, torch.ones(3, **F64), r"step_size: got shape \(3,\), expected \(updates, 1\)"),
        (14, torch.ones(1, **F64), "momentum: expected it together with the velocities"),
        (22, "cross_entropy", "loss: got 'cross_entropy' with 1 heads"),
        (22, "log", "loss: got 'log', expected 'logistic'"),
        (21, -1, "steps: got -1"),
        (28, 0, "every: got 0"),
    ],
)
def test_the_op_refuses(position, value, message):
    arguments = raw_arguments()
    arguments[position] = value
    with pytest.raises(ValueError, match=message):
        torch.ops.benign_kernels.train(*arguments)
