"""Activations against 50-digit arithmetic, against torch's own functions, and against each other's derivatives."""

import dataclasses
import math

import pytest
import torch

import benign_kernels as bk
from benign_kernels.activation import (
    GELU,
    Activation,
    Erf,
    LeakyReLU,
    OddPower,
    ReLU,
    ReLUPower,
    Sigmoid,
    SiLU,
    SmoothedReLU,
    SmoothLeakyReLU,
    Softplus,
    Tanh,
    activations,
    resolve,
)

mpmath = pytest.importorskip("mpmath")

VARIANTS = [
    *activations(),
    LeakyReLU(0.3),
    SmoothLeakyReLU(0.25, 4.0),
    ReLUPower(1),
    ReLUPower(2.5),
    OddPower(1),
    OddPower(1.5),
    OddPower(2),
    SmoothedReLU(2.0, 0.5),
    SmoothedReLU(2.5, 3.0),
    Softplus(5.0),
]
every_activation = pytest.mark.parametrize("phi", VARIANTS, ids=repr)

# Both signs, kinks, tails and the bend of SmoothedReLU; each exact in float32.
POINTS = [s * h for h in (0.0, 2.0**-30, 0.125, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 6.0, 12.0, 25.0) for s in (1, -1)]


def exact(phi: Activation, h: float, order: int) -> "mpmath.mpf":
    """The definition in 50 digits; derivatives one-sided from the left at kinks, as torch has them."""
    mp = mpmath
    h = mp.mpf(h)
    alpha, beta = (mp.mpf(parameter) for parameter in phi.native[1:])
    definitions = {
        "identity": lambda t: t,
        "relu": lambda t: max(t, mp.mpf(0)),
        "leaky_relu": lambda t: t if t > 0 else alpha * t,
        "smooth_leaky_relu": lambda t: alpha * t + (1 - alpha) * mp.log((1 + mp.exp(beta * t)) / 2) / beta,
        "relu_power": lambda t: t**alpha if t > 0 else mp.mpf(0),
        "odd_power": lambda t: mp.sign(t) * abs(t) ** alpha,
        "smoothed_relu": lambda t: (
            mp.mpf(0) if t <= 0 else beta / alpha * (t / beta) ** alpha if t < beta else t - (1 - 1 / alpha) * beta
        ),
        "softplus": lambda t: mp.log(1 + mp.exp(alpha * t)) / alpha,
        "tanh": mp.tanh,
        "erf": mp.erf,
        "gelu": lambda t: t * mp.erfc(-t / mp.sqrt(2)) / 2,
        "silu": lambda t: t / (1 + mp.exp(-t)),
        "sigmoid": lambda t: 1 / (1 + mp.exp(-t)),
    }
    return mp.diff(definitions[phi.name], h, order) if order else definitions[phi.name](h)


def is_kink(phi: Activation, h: float, order: int) -> bool:
    """Where the derivative of that order has no two-sided value."""
    _, alpha, beta = phi.native
    at_zero = {
        "relu": 1,
        "leaky_relu": 1,
        "relu_power": math.ceil(alpha),
        "smoothed_relu": math.ceil(alpha),
    }
    if phi.name == "odd_power" and alpha % 2 != 1:
        at_zero["odd_power"] = math.ceil(alpha)
    return (h == 0 and order >= at_zero.get(phi.name, 99)) or (phi.name == "smoothed_relu" and order == 2 and h == beta)


@every_activation
@pytest.mark.parametrize("order", [0, 1, 2])
def test_value_and_derivatives_are_accurate(phi, order):
    points = [h for h in POINTS if not is_kink(phi, h, order)]
    got = [phi.value, phi.first, phi.second][order](torch.tensor(points, dtype=torch.float64)).tolist()
    with mpmath.workdps(50):
        for h, value in zip(points, got, strict=True):
            want = exact(phi, h, order)
            # 16 roundoffs of a few operations each; the absolute part is the cancellation of the sums of order 1
            # (log 2 in SmoothLeakyReLU, 1 + erf) and of the numerical derivative in 50 digits.
            assert abs(value - want) <= 16 * 2.0**-53 * max(abs(want), 1.0), (h, value, want)


@pytest.mark.parametrize(
    "phi", [Tanh(), Sigmoid(), Erf(), GELU(), SiLU(), Softplus(2.0), SmoothLeakyReLU(0.0, 1.0)], ids=repr
)
def test_the_left_tail_of_the_derivative_keeps_its_relative_accuracy(phi):
    points = [-4.0, -5.0, -12.0, -17.5]
    got = phi.first(torch.tensor(points, dtype=torch.float64)).tolist()
    with mpmath.workdps(250):
        for h, value in zip(points, got, strict=True):
            # exp(-h²) loses h² roundoffs: 17.5² of them.
            assert value == pytest.approx(float(exact(phi, h, 1)), rel=512 * 2.0**-53, abs=0), h


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_kernels_keep_the_left_tail_of_gelu(dtype, device, each_simd_level):
    """1 + erf is all rounding there: torch's own float32 gelu is 0 from h = -5.6 on."""
    h = torch.linspace(-12, 12, 481, dtype=dtype)
    one = torch.ones(1, dtype=dtype, device=device)
    value, first = bk.two_layer_value_and_grad(h.to(device)[:, None], one[None], one, activation="gelu")
    roundoff = torch.finfo(dtype).eps / 2
    with mpmath.workdps(50):
        for t, got, slope in zip(h.tolist(), value.tolist(), first[:, 0].tolist(), strict=True):
            cdf, bell = mpmath.erfc(-t / mpmath.sqrt(2)) / 2, t * mpmath.npdf(t)
            # h·sqrt(1/2) is rounded twice and squared, and its square is rounded: 2·h² and h²/2. The rest are few.
            limit = (8 + 2.5 * t * t) * roundoff
            assert abs(got - t * cdf) <= limit * abs(t * cdf), t
            assert abs(slope - cdf - bell) <= limit * (cdf + abs(bell)), t


@every_activation
def test_kinks_follow_torch(phi):
    zero = torch.zeros(1, dtype=torch.float64)
    if phi.name in ("relu", "relu_power", "smoothed_relu"):
        assert phi.first(zero) == 0
        assert phi.second(zero) == 0
    if phi.name == "leaky_relu":
        assert phi.first(zero) == phi.slope
    assert phi.value(zero) == {
        "softplus": pytest.approx(math.log(2) / phi.native[1] if phi.native[1] else 0),
        "sigmoid": 0.5,
    }.get(phi.name, 0.0)


@every_activation
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_autograd_of_each_derivative_is_the_next(phi, dtype):
    h = torch.tensor(POINTS, dtype=dtype, requires_grad=True)
    slope = torch.autograd.grad(phi.value(h).sum(), h, create_graph=True)[0]
    close = {"rtol": 32 * torch.finfo(dtype).eps, "atol": 32 * torch.finfo(dtype).eps}
    torch.testing.assert_close(slope, phi.first(h), **close)
    first = phi.first(h)
    if first.requires_grad:
        smooth = torch.tensor([not is_kink(phi, t, 2) for t in POINTS])
        curvature = torch.autograd.grad(first.sum(), h)[0]
        torch.testing.assert_close(curvature[smooth], phi.second(h).detach()[smooth], **close)
    else:
        assert not phi.second(h).any()


@every_activation
def test_higher_derivatives_are_finite_far_out_and_at_zero(phi):
    h = torch.tensor([0.0, -0.0, 1e-30, -1e-30, 1e3, -1e3, 1e12, -1e12], dtype=torch.float64, requires_grad=True)
    for derivative in (phi.value, phi.first, phi.second):
        values = derivative(h)
        for _ in range(3):
            assert values.isfinite().all()
            if not values.requires_grad:
                break
            values = torch.autograd.grad(values.sum(), h, create_graph=True)[0]


@every_activation
def test_nan_stays_nan(phi):
    assert phi.value(torch.tensor([math.nan])).isnan().all()


TWINS = [
    (ReLU(), torch.relu),
    (LeakyReLU(0.2), lambda h: torch.nn.functional.leaky_relu(h, 0.2)),
    (Softplus(2.0), lambda h: torch.nn.functional.softplus(h, 2.0)),
    (Tanh(), torch.tanh),
    (Erf(), torch.erf),
    (GELU(), torch.nn.functional.gelu),
    (SiLU(), torch.nn.functional.silu),
    (Sigmoid(), torch.sigmoid),
]


@pytest.mark.parametrize(("phi", "twin"), TWINS, ids=[repr(phi) for phi, _ in TWINS])
def test_agrees_with_the_torch_twin(phi, twin):
    h = torch.linspace(-9, 9, 1001, dtype=torch.float64, requires_grad=True)
    # torch's softplus is linear from βh = 20 on: exp(-20)/β = 1e-9.
    atol = 2e-9 if isinstance(phi, Softplus) else 1e-15
    torch.testing.assert_close(phi(h), twin(h), rtol=1e-14, atol=atol)
    want = torch.autograd.grad(twin(h).sum(), h)[0]
    torch.testing.assert_close(phi.first(h).detach(), want, rtol=1e-14, atol=atol)


@every_activation
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_keeps_dtype_and_shape(phi, dtype):
    h = torch.randn(2, 0, 3).to(dtype)
    for derivative in (phi.value, phi.first, phi.second):
        assert derivative(h).dtype == dtype
        assert derivative(h).shape == h.shape


def test_the_list_holds_every_class_once():
    names = [phi.name for phi in activations()]
    classes = {cls.name for cls in Activation.__subclasses__()}
    assert len(names) == len(set(names)) == 13
    assert set(names) == classes


def test_resolve():
    assert resolve("smooth_leaky_relu") == SmoothLeakyReLU(0.1, 1.0)
    mine = LeakyReLU(0.3)
    assert resolve(mine) is mine
    assert mine.native == ("leaky_relu", 0.3, 0.0)
    with pytest.raises(dataclasses.FrozenInstanceError):
        mine.slope = 0.5


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        (lambda: resolve("rellu"), ValueError, r"activation: got 'rellu', expected .*relu, leaky_relu"),
        (lambda: resolve(ReLU), TypeError, r"activation: got the class ReLU, expected .* such as ReLU\(\)"),
        (lambda: resolve(3), TypeError, r"activation: got a int, expected a name"),
        (lambda: OddPower(0.5), ValueError, r"power: got 0.5, expected a finite number >= 1"),
        (lambda: Softplus(0.0), ValueError, r"sharpness: got 0.0, expected a finite number > 0"),
        (lambda: SmoothedReLU(2.0, -1.0), ValueError, r"width: got -1.0, expected a finite number > 0"),
        (lambda: LeakyReLU(math.nan), ValueError, r"slope: got nan, expected a finite number"),
        (lambda: LeakyReLU("steep"), TypeError, r"slope: got a str, expected a number"),
    ],
)
def test_wrong_parameters_are_named(wrong, error, message):
    with pytest.raises(error, match=message):
        wrong()
