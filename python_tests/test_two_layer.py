"""The value: accurate at every shape, dtype, layout and extreme; the same bits whenever it should; cheap to call."""

import math
import time

import pytest
import torch
from problems import LAYOUTS, SHAPES, every_shape, make_problem, small_shapes
from tolerance import DTYPES, assert_accurate

import benign_kernels as bk
from benign_kernels import reference
from benign_kernels.activation import GELU, LeakyReLU, OddPower, ReLU, activations

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def value(p, phi="relu"):
    return bk.two_layer(p.x, p.W, p.a, **p.network, activation=phi)


@every_dtype
@pytest.mark.parametrize("phi", [LeakyReLU(0.1), GELU()], ids=repr)
@every_shape
def test_every_shape_is_accurate(shape, phi, dtype, device):
    assert_accurate(lambda p: [value(p, phi)], shape, phi, [0], dtype, device)


@every_dtype
@pytest.mark.parametrize("phi", activations(), ids=repr)
def test_every_activation_is_accurate(phi, dtype, device):
    shape = {"n": 31, "d": 17, "m": 67, "patches": 2, "heads": 2}
    assert_accurate(lambda p: [value(p, phi)], shape, phi, [0], dtype, device)


def test_a_single_point_is_a_number(device):
    p = make_problem(n=()).to(device)
    assert value(p).shape == ()


def test_nothing_sums_to_the_head_bias(device):
    for name in ("no_neurons", "no_dimension"):
        p = make_problem(**SHAPES[name], bias=False).to(device)
        torch.testing.assert_close(value(p), p.head_bias.expand(5), rtol=0, atol=0)
    assert value(make_problem(**SHAPES["no_samples"]).to(device)).shape == (0,)


# ---- layouts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@small_shapes
def test_the_layout_of_the_inputs_changes_no_bit(shape, layout, device):
    p = make_problem(**shape, device=device)
    assert torch.equal(value(p.map(layout)), value(p))


def test_expanded_inputs(device):
    p = make_problem(n=1, d=6, m=9, device=device)
    q = make_problem(n=5, d=6, m=1, device=device)
    wide = value(q.map(lambda t: t)).new_tensor(0)  # a 0-d tensor of the right kind
    x, W, a = p.x.expand(7, 6), q.W.expand(4, 6), q.a.expand(4)
    torch.testing.assert_close(bk.two_layer(x, p.W, p.a), bk.two_layer(x.contiguous(), p.W, p.a), rtol=0, atol=0)
    torch.testing.assert_close(bk.two_layer(q.x, W, a), 4 * bk.two_layer(q.x, q.W, q.a) + wide)


def test_rows_of_x_may_have_any_shape(device):
    p = make_problem(n=24, device=device)
    f = value(p)
    for rows in ((24,), (2, 12), (2, 3, 4), (24, 1)):
        g = bk.two_layer(p.x.reshape(*rows, -1), p.W, p.a, **p.network)
        assert torch.equal(g, f.reshape(rows))


def test_a_batch_of_networks_is_each_of_them(device):
    p = make_problem(n=13, d=5, m=17, batch=(2, 3), heads=2, patches=2, device=device)
    f = value(p)
    for i in range(2):
        for j in range(3):
            one = bk.two_layer(
                p.x[i, j], p.W[i, j], p.a[i, j], bias=p.bias[i, j], head_bias=p.head_bias[i, j], patches=2
            )
            torch.testing.assert_close(f[i, j], one, rtol=1e-13, atol=1e-13)


# ---- extremes --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_row_touches_no_other(dtype, device):
    p = make_problem(n=37, d=19, m=23).to(device, dtype)
    plain = value(p)
    for bad in (math.nan, math.inf, -math.inf, 1e30, 1e-30):
        x = p.x.clone()
        x[5] = bad
        f = bk.two_layer(x, p.W, p.a, **p.network)
        others = torch.arange(37, device=device) != 5
        assert torch.equal(f[others], plain[others])
        assert bool(f[5].isfinite()) == math.isfinite(bad)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
@pytest.mark.parametrize("part", ["x", "W", "a"])
def test_extreme_scales_keep_their_relative_accuracy(part, scale, device):
    p = make_problem(n=9, d=11, m=13, bias=False, head_bias=False).to(device, torch.float32)
    parts = {"x": p.x, "W": p.W, "a": p.a}
    parts[part] = parts[part] * scale
    want = reference.two_layer(**parts, activation=ReLU())
    got = bk.two_layer(**parts).double()
    size = scale * reference.two_layer(p.x, p.W, p.a.abs(), activation=ReLU())
    assert ((got - want).abs() <= 64 * 2.0**-24 * size).all()  # d + m = 24 roundings of terms of that size, and some


def test_a_nan_in_a_network_spoils_only_that_network(device):
    p = make_problem(n=5, batch=(3,), device=device)
    plain = value(p)
    p.W[1, 4, 2] = math.nan
    f = value(p)
    assert f[1].isnan().all()
    assert torch.equal(f[[0, 2]], plain[[0, 2]])


def test_an_infinite_preactivation_of_a_closed_gate_is_zero(device):
    x = torch.tensor([[-1e30, 1.0]], device=device)
    W = torch.tensor([[1e30, 0.0], [0.0, 1.0]], device=device)
    assert bk.two_layer(x, W, torch.ones(2, device=device)).item() == 1.0


# ---- the same bits ---------------------------------------------------------------------------------------------------


@every_dtype
def test_runs_and_thread_counts_agree_bit_for_bit(dtype, device):
    p = make_problem(n=129, d=70, m=301).to(device, dtype)
    f = value(p, OddPower(3.0))
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3, threads):
            torch.set_num_threads(count)
            assert torch.equal(value(p, OddPower(3.0)), f)
    finally:
        torch.set_num_threads(threads)


def test_a_split_batch_agrees(device):
    p = make_problem(n=129, d=70, m=301, device=device)
    for size in (1, 7, 64):
        parts = [bk.two_layer(x, p.W, p.a, **p.network) for x in p.x.split(size)]
        torch.testing.assert_close(torch.cat(parts), value(p), rtol=1e-13, atol=1e-13)


# ---- memory and time -------------------------------------------------------------------------------------------------


def peak_growth(function):
    """Bytes by which the resident memory peaked above where it was, or None where the system does not say."""

    def status(key):
        with open("/proc/self/status") as lines:
            return next(1024 * int(line.split()[1]) for line in lines if line.startswith(key))

    try:
        with open("/proc/self/clear_refs", "w") as reset:
            reset.write("5")
        before = status("VmRSS")
    except OSError:
        return None
    function()
    return status("VmHWM") - before


def test_the_hidden_layer_is_never_stored(device):
    if device.type == "cuda":
        pytest.skip("measured on the host")
    p = make_problem(n=3000, d=3, m=10_000).to(torch.float32)
    value(p)
    for function in (
        lambda: value(p),
        lambda: bk.two_layer_value_and_grad(p.x, p.W, p.a, **p.network),
        lambda: bk.two_layer_parameter_grad(p.x, p.W, p.a, cotangent=p.cotangent, **p.hidden),
    ):
        grown = peak_growth(function)
        if grown is None:
            pytest.skip("the system does not tell its peak memory")
        assert grown < 3000 * 10_000 * 4 / 4  # a quarter of the matrix


@pytest.mark.slow
def test_more_than_two_to_the_31_products(device):
    side = 46_400
    x, W = torch.ones(side, 1, device=device), torch.ones(side, 1, device=device)
    assert side**2 > 2**31
    f, gx = bk.two_layer_value_and_grad(x, W, torch.full((side,), 2.0**-10, device=device))
    assert f.unique().tolist() == gx.unique().tolist() == [side * 2.0**-10]


def microseconds(function):
    best = math.inf
    for _ in range(20):
        begin = time.perf_counter()
        for _ in range(200):
            function()
        best = min(best, time.perf_counter() - begin)
    return best / 200 * 1e6


def test_a_call_costs_little(device):
    """Aimed at 8 µs without and 25 µs with a gradient to record; held here to three times that, on any machine.

    On CUDA a call is several launches and allocations of up to 5 µs each: four times as much again.
    """
    times = 3 if device.type == "cpu" else 12
    x, W, a, b = torch.randn(1, 2, device=device), torch.randn(2, 2, device=device), torch.randn(2, device=device), None
    plain = microseconds(lambda: bk.two_layer(x, W, a, bias=b, activation="relu"))
    W.requires_grad_()
    recorded = microseconds(lambda: bk.two_layer(x, W, a, bias=b, activation="relu"))
    assert plain < times * 8
    assert recorded < times * 25
