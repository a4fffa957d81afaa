"""Every refusal: the right type, one sentence, the argument's name, what came, and what is accepted."""

import numpy as np
import pytest
import torch
from problems import make_problem

import benign_kernels as bk
from benign_kernels.activation import ReLU

P = make_problem(n=5, d=7, m=11)
HEADS = make_problem(n=5, d=7, m=11, heads=3)
BATCH = make_problem(n=5, d=7, m=11, batch=(2,))


def value(p=P, **change):
    arguments = {"x": p.x, "W": p.W, "a": p.a, **p.network, **change}
    return bk.two_layer(arguments.pop("x"), arguments.pop("W"), arguments.pop("a"), **arguments)


def value_and_grad(p=P, **change):
    arguments = {"x": p.x, "W": p.W, "a": p.a, "cotangent": p.cotangent, **p.network, **change}
    return bk.two_layer_value_and_grad(arguments.pop("x"), arguments.pop("W"), arguments.pop("a"), **arguments)


def parameter_grad(p=P, **change):
    arguments = {"x": p.x, "W": p.W, "a": p.a, "cotangent": p.cotangent, **p.hidden, **change}
    return bk.two_layer_parameter_grad(arguments.pop("x"), arguments.pop("W"), arguments.pop("a"), **arguments)


FLOATS = r"torch\.float32, torch\.float64 or torch\.bfloat16"


def ones(*shape, dtype=torch.float64):
    return torch.ones(shape, dtype=dtype)


#: change of the arguments → type and message
OF_EVERY_NETWORK_OP = [
    ({"x": ones(5, 6)}, ValueError, r"^x: got shape \(5, 6\), expected \(\.\.\., 7\)$"),
    ({"x": ones()}, ValueError, r"^x: got shape \(\), expected \(\.\.\., 7\)$"),
    ({"x": np.ones((5, 7))}, TypeError, r"^x: got ndarray, expected a tensor$"),
    ({"x": None}, TypeError, r"^x: got NoneType, expected a tensor$"),
    ({"x": [[1.0] * 7]}, TypeError, r"^x: got list, expected a tensor$"),
    ({"x": P.x.float()}, ValueError, r"^x: got dtype torch\.float32, expected torch\.float64"),
    ({"x": P.x.long()}, ValueError, r"^x: got dtype torch\.int64, expected torch\.float64"),
    ({"x": P.x.to_sparse()}, TypeError, r"^x: got layout torch\.sparse_coo, expected a dense tensor$"),
    ({"W": ones(7)}, ValueError, r"^W: got shape \(7,\), expected \(m, d\)"),
    ({"W": ones(11, 6)}, ValueError, r"^x: got shape \(5, 7\), expected \(\.\.\., 6\)$"),
    (
        {"W": P.W.half()},
        ValueError,
        r"^W: got dtype torch\.float16, expected torch\.float32, torch\.float64 or torch\.bfloat16$",
    ),
    ({"W": P.W.numpy()}, TypeError, r"^W: got ndarray, expected a tensor$"),
    ({"a": ones(10)}, ValueError, r"^a: got shape \(10,\), expected \(11,\)"),
    ({"a": ones(2, 3, 11)}, ValueError, r"^a: got shape \(2, 3, 11\), expected \(11,\)"),
    ({"a": P.a.float()}, ValueError, r"^a: got dtype torch\.float32, expected torch\.float64"),
    ({"a": 1.0}, TypeError, r"^a: got float, expected a tensor$"),
    ({"bias": ones(10)}, ValueError, r"^bias: got shape \(10,\), expected \(11,\)$"),
    ({"bias": P.bias.float()}, ValueError, r"^bias: got dtype torch\.float32, expected torch\.float64"),
    ({"bias": 0.5}, TypeError, r"^bias: got float, expected a tensor$"),
    ({"activation": "rellu"}, ValueError, r"^activation: got 'rellu', expected .* identity, relu, leaky_relu"),
    ({"activation": ReLU}, TypeError, r"^activation: got the class ReLU, expected a name or an Activation object"),
    ({"activation": torch.relu}, TypeError, r"^activation: got a builtin_function_or_method, expected a name"),
    ({"patches": 0}, ValueError, r"^patches: got 0, expected at least 1$"),
    ({"patches": 2**31}, ValueError, r"^patches: got 2147483648, expected at most 2147483647$"),
    # 2^62 · 4 is 0 in 64 bits, and would fit an empty x.
    (
        {"patches": 2**62, "x": ones(5, 0), "W": ones(11, 4)},
        ValueError,
        r"^patches: got 4611686018427387904, expected at most 2147483647$",
    ),
    ({"patches": 2}, ValueError, r"^x: got shape \(5, 7\), expected \(\.\.\., 14\)$"),
    ({"patches": 1.5}, TypeError, r"^patches: got float, expected an integer$"),
    ({"patches": "1"}, TypeError, r"^patches: got str, expected an integer$"),
]


def ids(cases):
    """The argument that is wrong, and a number."""
    return [f"{next(iter(case[-3]))}-{i}" for i, case in enumerate(cases)]


@pytest.mark.parametrize("needs_grad", [False, True], ids=["plain", "recorded"])
@pytest.mark.parametrize("call", [value, value_and_grad, parameter_grad])
@pytest.mark.parametrize(("change", "error", "message"), OF_EVERY_NETWORK_OP, ids=ids(OF_EVERY_NETWORK_OP))
def test_network_arguments(call, change, error, message, needs_grad):
    p = P.requires_grad() if needs_grad else P
    with pytest.raises(error, match=message):
        call(p, **change)


OF_ONE_NETWORK_OP = [
    (value, P, {"head_bias": ones(1)}, ValueError, r"^head_bias: got shape \(1,\), expected \(\)$"),
    (value, HEADS, {"head_bias": ones(2)}, ValueError, r"^head_bias: got shape \(2,\), expected \(3,\)$"),
    (value, P, {"head_bias": 0.5}, TypeError, r"^head_bias: got float, expected a tensor$"),
    (value, HEADS, {"a": ones(3, 10)}, ValueError, r"^a: got shape \(3, 10\), expected \(11,\), or .*\(k, 11\)"),
    (
        value,
        BATCH,
        {"x": ones(3, 5, 7)},
        ValueError,
        r"^x: got shape \(3, 5, 7\), expected \(2,\) \+ \(n, 7\)",
    ),
    (value, BATCH, {"a": ones(11)}, ValueError, r"^a: got shape \(11,\), expected \(2, 11\)"),
    (value_and_grad, P, {"cotangent": ones(4)}, ValueError, r"^cotangent: got shape \(4,\), expected \(5,\)$"),
    (
        value_and_grad,
        P,
        {"cotangent": ones(5).float()},
        ValueError,
        r"^cotangent: got dtype torch\.float32, expected",
    ),
    (value_and_grad, P, {"cotangent": 1.0}, TypeError, r"^cotangent: got float, expected a tensor$"),
    (value_and_grad, HEADS, {"cotangent": ones(5)}, ValueError, r"^cotangent: got shape \(5,\), expected \(5, 3\)$"),
    (parameter_grad, P, {"cotangent": None}, TypeError, r"^cotangent: got NoneType, expected a tensor$"),
    (parameter_grad, P, {"cotangent": ones(5, 1)}, ValueError, r"^cotangent: got shape \(5, 1\), expected \(5,\)$"),
]


@pytest.mark.parametrize(("call", "p", "change", "error", "message"), OF_ONE_NETWORK_OP, ids=ids(OF_ONE_NETWORK_OP))
def test_arguments_of_one_op(call, p, change, error, message):
    with pytest.raises(error, match=message):
        call(p, **change)


X = ones(4, 3)


OF_EVERY_STEP = [
    ({"x": X.numpy()}, TypeError, r"^x: got ndarray, expected a tensor$"),
    ({"x": ones()}, ValueError, r"^x: got a number, expected shape \(\.\.\., d\)$"),
    (
        {"x": X.long()},
        ValueError,
        rf"^x: got dtype torch\.int64, expected {FLOATS}$",
    ),
    ({"origin": ones(4, 2)}, ValueError, r"^origin: got shape \(4, 2\), expected \(4, 3\)$"),
    ({"origin": X.float()}, ValueError, r"^origin: got dtype torch\.float32, expected torch\.float64"),
    ({"origin": None}, TypeError, r"^origin: got NoneType, expected a tensor$"),
    ({"grad": ones(3)}, ValueError, r"^grad: got shape \(3,\), expected \(4, 3\)$"),
    ({"grad": None}, TypeError, r"^grad: got NoneType, expected a tensor$"),
    ({"step": -0.1}, ValueError, r"^step: got -0\.1, expected a finite number ≥ 0$"),
    ({"step": float("nan")}, ValueError, r"^step: got nan, expected a finite number ≥ 0$"),
    ({"step": float("inf")}, ValueError, r"^step: got inf, expected a finite number ≥ 0$"),
    ({"step": "big"}, TypeError, r"^step: got str, expected a number or a tensor of one per row$"),
    ({"step": ones(3)}, ValueError, r"^step: got shape \(3,\), expected a number or \(4,\), one per row of x$"),
    ({"step": torch.tensor([0.1, 0.1, -2, 0.1])}, ValueError, r"^step: got -2, expected a finite number ≥ 0$"),
    (
        {"step": torch.tensor([0.1, float("inf"), 0.1, 0.1])},
        ValueError,
        r"^step: got inf, expected a finite number ≥ 0$",
    ),
    ({"radius": -1.0}, ValueError, r"^radius: got -1, expected a number ≥ 0$"),
    ({"radius": float("nan")}, ValueError, r"^radius: got nan, expected a number ≥ 0$"),
    ({"radius": None}, TypeError, r"^radius: got NoneType, expected a number or a tensor of one per row$"),
    (
        {"radius": torch.tensor([1.0, float("nan"), 1.0, 1.0])},
        ValueError,
        r"^radius: got nan, expected a number ≥ 0$",
    ),
]


@pytest.mark.parametrize("name", ["l2_pgd_step", "l2_pgd_step_", "linf_pgd_step", "linf_pgd_step_"])
@pytest.mark.parametrize(("change", "error", "message"), OF_EVERY_STEP, ids=ids(OF_EVERY_STEP))
def test_step_arguments(name, change, error, message):
    arguments = {"x": X.clone(), "origin": X, "grad": X, "step": 0.1, "radius": 1.0, **change}
    with pytest.raises(error, match=message):
        getattr(bk, name)(arguments.pop("x"), arguments.pop("origin"), arguments.pop("grad"), **arguments)


@pytest.mark.parametrize("name", ["l2_pgd_step_", "linf_pgd_step_"])
def test_an_expanded_tensor_is_not_overwritten(name):
    with pytest.raises(ValueError, match=r"^x: got an expanded tensor, expected one with memory for each element$"):
        getattr(bk, name)(X[0].expand(4, 3), X, X, step=0.1, radius=1.0)


@pytest.mark.parametrize("norm", ["l2", "linf"])
def test_a_step_that_overflows_the_dtype_is_refused(norm):
    x = X.float()
    with pytest.raises(ValueError, match=r"^step: got 1e\+39, expected a finite number ≥ 0$"):
        getattr(bk, f"{norm}_pgd_step")(x, x, x, step=1e39, radius=1.0)
    assert getattr(bk, f"{norm}_pgd_step")(x, x, x, step=0.5, radius=1e39).isfinite().all()


def test_a_refused_call_in_place_changes_nothing():
    x = X.clone()
    with pytest.raises(ValueError, match="radius"):
        bk.l2_pgd_step_(x, X, X, step=1.0, radius=-1.0)
    assert torch.equal(x, X)


SAMPLES = {"x0": P.x, "y": P.cotangent.sign(), "W": P.W, "a": P.a}
TWO_HEADS = torch.stack([P.a, P.a])
INF, NAN = float("inf"), float("nan")
A_SIZE = "expected a number or a tensor of one per sample"

OF_EVERY_ATTACK = [
    ({"x0": P.x.float()}, ValueError, r"^x0: got dtype torch\.float32, expected torch\.float64"),
    ({"x0": [1.0]}, TypeError, r"^x0: got list, expected a tensor or a NumPy array$"),
    ({"x0": np.array(["1"])}, TypeError, r"^x0: got an array of <U1, expected one of numbers$"),
    ({"x0": ones()}, ValueError, r"^x0: got shape \(\), expected \(\.\.\., 7\)$"),
    ({"x0": P.x.to_sparse()}, TypeError, r"^x0: got layout torch\.sparse_coo, expected a dense tensor$"),
    ({"y": ones(5) * 0}, ValueError, r"^y: got 0, expected labels -1 or 1$"),
    ({"y": ones(3)}, ValueError, r"^y: got shape \(3,\), expected \(5,\)$"),
    ({"y": 1}, TypeError, r"^y: got int, expected a tensor or a NumPy array$"),
    (
        {"y": torch.full((5,), 2), "a": TWO_HEADS},
        ValueError,
        r"^y: got 2, expected class indices in \[0, 2\)$",
    ),
    ({"y": ones(5), "a": TWO_HEADS}, TypeError, r"^y: got torch\.float64, expected class indices \(int64\)"),
    ({"W": [1.0]}, TypeError, r"^W: got list, expected a tensor or a NumPy array$"),
    ({"W": ones(7)}, ValueError, r"^W: got shape \(7,\), expected \(m, d\)"),
    ({"a": ones(3)}, ValueError, r"^a: got shape \(3,\), expected \(11,\), or \(k, 11\) for k heads$"),
    ({"a": ones(11, 1)}, ValueError, r"^a: got shape \(11, 1\), expected \(11,\), or \(k, 11\) for k heads$"),
    ({"a": None}, TypeError, r"^a: got NoneType, expected a tensor or a NumPy array$"),
    ({"bias": ones(3)}, ValueError, r"^bias: got shape \(3,\), expected \(11,\)$"),
    ({"activation": "relu6"}, ValueError, r"^activation: got 'relu6', expected .*relu"),
    ({"patches": 2}, ValueError, r"^x0: got shape \(5, 7\), expected \(\.\.\., 14\)$"),
    ({"patches": 1.0}, TypeError, r"^patches: got 1\.0, expected an integer ≥ 1$"),
    ({"radius": -1.0}, ValueError, r"^radius: got -1, expected a number ≥ 0$"),
    ({"radius": NAN}, ValueError, r"^radius: got nan, expected a number ≥ 0$"),
    ({"radius": torch.full((5,), NAN)}, ValueError, r"^radius: got nan, expected a number ≥ 0$"),
    ({"radius": ones(4)}, ValueError, r"^radius: got shape \(4,\), expected a number or \(5,\), one per sample$"),
    ({"radius": "1"}, TypeError, rf"^radius: got str, {A_SIZE}$"),
    ({"radius": [0.5] * 5}, TypeError, rf"^radius: got list, {A_SIZE}$"),
    ({"radius": INF}, ValueError, r"^step: got None, expected a number when radius is infinite$"),
    ({"radius": torch.full((5,), INF)}, ValueError, r"^step: got None, expected a number when radius is infinite$"),
    ({"step": -0.1}, ValueError, r"^step: got -0\.1, expected a finite number ≥ 0$"),
    ({"step": INF}, ValueError, r"^step: got inf, expected a finite number ≥ 0$"),
    ({"step": torch.full((5,), INF)}, ValueError, r"^step: got inf, expected a finite number ≥ 0$"),
    ({"step": "1"}, TypeError, rf"^step: got str, {A_SIZE}$"),
    ({"steps": -1}, ValueError, r"^steps: got -1, expected an integer ≥ 0$"),
    ({"steps": 2.0}, TypeError, r"^steps: got 2\.0, expected an integer ≥ 0$"),
    ({"steps": 2**63}, ValueError, r"^steps: got 9223372036854775808, expected an integer below 2\*\*63$"),
    ({"restarts": 0}, ValueError, r"^restarts: got 0, expected an integer ≥ 1$"),
    ({"restarts": 2, "radius": INF, "step": 1.0}, ValueError, r"^restarts: got more than one .* a finite radius"),
    ({"start": ones(3, 7)}, ValueError, r"^start: got shape \(3, 7\), expected \(5, 7\)$"),
    ({"loss": "hinge"}, ValueError, r"^loss: got 'hinge', expected one of 'margin', 'squared'$"),
    ({"direction": "up"}, ValueError, r"^direction: got 'up', expected one of 'exact', "),
    ({"keep": "best"}, ValueError, r"^keep: got 'best', expected one of 'last', 'worst'$"),
    ({"box": (1, 0)}, ValueError, r"^box: got \(1, 0\), expected lo ≤ hi$"),
    ({"box": (0, NAN)}, ValueError, r"^box: got \(0, nan\), expected lo ≤ hi$"),
    ({"box": 0.5}, TypeError, r"^box: got 0\.5, expected \(lo, hi\), two numbers$"),
    ({"box": (None, 1)}, TypeError, r"^box: got \(None, 1\), expected \(lo, hi\), two numbers$"),
    ({"generator": 3}, TypeError, r"^generator: got int, expected a torch\.Generator or None$"),
    ({"trajectory": "yes"}, TypeError, r"^trajectory: got 'yes', expected True or False$"),
    ({"need": "logits"}, ValueError, r"^need: got 'logits', expected one of 'x', 'margin'$"),
    ({"need": "margin", "trajectory": True}, ValueError, r"^need: got 'margin' with trajectory=True, expected 'x'$"),
    ({"early_stop": 1}, TypeError, r"^early_stop: got 1, expected True or False$"),
    ({"early_stop": True, "loss": "squared"}, ValueError, r"^early_stop: got True with loss='squared', which has no"),
    (
        {"algorithm": "fast"},
        ValueError,
        r"^algorithm: got 'fast', expected one of 'auto', 'dense', 'half_sparse', 'gram'$",
    ),
]
#: Of those, what is no matter of the network: refused alike where a model is attacked through autograd.
BUDGETS = [
    case for case in OF_EVERY_ATTACK if not case[0].keys() & {"x0", "y", "W", "a", "bias", "activation", "patches"}
]


@pytest.mark.parametrize("name", ["l2_pgd", "linf_pgd"])
@pytest.mark.parametrize(("change", "error", "message"), OF_EVERY_ATTACK, ids=ids(OF_EVERY_ATTACK))
def test_attack_arguments(name, change, error, message):
    arguments = {**SAMPLES, "radius": 0.5, **change}
    with pytest.raises(error, match=message):
        getattr(bk, name)(*[arguments.pop(key) for key in SAMPLES], **arguments)


@pytest.mark.filterwarnings("ignore:the model is attacked through autograd")
@pytest.mark.parametrize(("change", "error", "message"), BUDGETS, ids=ids(BUDGETS))
def test_arguments_of_attacks_through_autograd(change, error, message):
    arguments = {"radius": 0.5, **change}
    with pytest.raises(error, match=message):
        bk.attack_model(lambda x: x.sum(-1), P.x, P.cotangent.sign(), **arguments)


@pytest.mark.gpu
@pytest.mark.parametrize("name", ["x", "W", "a", "bias", "head_bias"])
def test_devices_must_agree(name):
    arguments = {**P.tensors(), name: getattr(P, name).cuda()}
    arguments.pop("cotangent")
    with pytest.raises(ValueError, match=r"^\w+: .*(cpu|cuda).*expected"):
        bk.two_layer(arguments.pop("x"), arguments.pop("W"), arguments.pop("a"), **arguments)


@pytest.mark.parametrize("name", ["x", "W", "a", "bias", "head_bias", "cotangent"])
def test_the_meta_device_mixes_with_no_other(name):
    """There the ops only allocate: what they returned for a real x would be memory that nobody has written."""
    with pytest.raises(ValueError, match=r"^\w+: is on (cpu|meta), expected (cpu|meta), where x is$"):
        value_and_grad(**{name: getattr(P, name).to("meta")})


def test_a_device_without_kernels_is_named():
    with torch.utils._python_dispatch._disable_current_modes(), pytest.raises(ValueError, match=r"^x: is on "):
        bk.ops._explain(NotImplementedError("Could not run"), {"x": X, "W": X, "a": X}, 1)


def test_what_is_not_about_the_arguments_is_passed_on():
    error = RuntimeError("out of memory")
    with pytest.raises(RuntimeError) as caught:
        bk.ops._explain(error, {"x": X, "W": X, "a": X}, 1)
    assert caught.value is error
