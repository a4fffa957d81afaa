"""Value and input gradient in one pass."""

import math

import pytest
import torch
from problems import LAYOUTS, every_shape, make_problem, small_shapes
from tolerance import DTYPES, assert_accurate

import benign_kernels as bk
from benign_kernels.activation import GELU, LeakyReLU, ReLU, Sigmoid, Tanh, activations

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def value_and_grad(p, phi="relu", **change):
    keywords = {"cotangent": p.cotangent, **p.network, "activation": phi, **change}
    return bk.two_layer_value_and_grad(p.x, p.W, p.a, **keywords)


@every_dtype
@pytest.mark.parametrize("phi", [LeakyReLU(0.1), GELU()], ids=repr)
@every_shape
def test_every_shape_is_accurate(shape, phi, dtype, device):
    assert_accurate(lambda p: value_and_grad(p, phi), shape, phi, [0, 1], dtype, device)


@every_dtype
@pytest.mark.parametrize("phi", activations(), ids=repr)
def test_every_activation_is_accurate(phi, dtype, device):
    shape = {"n": 31, "d": 17, "m": 67, "patches": 2, "heads": 2}
    assert_accurate(lambda p: value_and_grad(p, phi), shape, phi, [0, 1], dtype, device)


@small_shapes
def test_the_value_is_that_of_two_layer(shape, device):
    p = make_problem(**shape, device=device)
    f, _ = value_and_grad(p)
    torch.testing.assert_close(f, bk.two_layer(p.x, p.W, p.a, **p.network), rtol=1e-14, atol=1e-14)


@small_shapes
def test_no_cotangent_is_all_ones(shape, device):
    p = make_problem(**shape, device=device)
    ones = value_and_grad(p, cotangent=torch.ones_like(p.cotangent))
    for ours, theirs in zip(value_and_grad(p, cotangent=None), ones, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=1e-14)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@small_shapes
def test_the_layout_of_the_inputs_changes_no_bit(shape, layout, device):
    p = make_problem(**shape, device=device)
    for ours, theirs in zip(value_and_grad(p.map(layout)), value_and_grad(p), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_a_row_touches_no_other(dtype, device):
    p = make_problem(n=37, d=19, m=23).to(device, dtype)
    plain = value_and_grad(p)
    others = torch.arange(37, device=device) != 5
    for bad in (math.nan, math.inf, 1e30, 1e-30):
        x = p.x.clone()
        x[5] = bad
        f, gx = bk.two_layer_value_and_grad(x, p.W, p.a, cotangent=p.cotangent, **p.network)
        assert torch.equal(f[others], plain[0][others])
        assert torch.equal(gx[others], plain[1][others])
    r = p.cotangent.clone()
    r[5] = math.nan
    f, gx = value_and_grad(p, cotangent=r)
    assert torch.equal(gx[others], plain[1][others])
    assert torch.equal(f, plain[0])
    assert gx[5].isnan().all()


@pytest.mark.parametrize("phi", [Tanh(), Sigmoid()], ids=repr)
def test_the_direction_survives_saturation(phi, device):
    """Far out φ' is exp(-40): no smaller than the roundoff of φ, unless it is computed as such."""
    W = torch.eye(3, device=device)
    x = torch.tensor([[21.0, 20.0, 20.5]], device=device)
    _, gx = bk.two_layer_value_and_grad(x, W, torch.ones(3, device=device), activation=phi)
    torch.testing.assert_close(gx.double(), phi.first(x.double()), rtol=1e-5, atol=0)


def test_a_kink_has_the_slope_of_torch(device):
    x, W, a = torch.zeros(1, 2, device=device), torch.ones(1, 2, device=device), torch.ones(1, device=device)
    for phi, slope in ((ReLU(), 0.0), (LeakyReLU(0.25), 0.25)):
        _, gx = bk.two_layer_value_and_grad(x, W, a, activation=phi)
        assert gx.tolist() == [[slope, slope]]


@every_dtype
def test_runs_and_thread_counts_agree_bit_for_bit(dtype, device):
    p = make_problem(n=129, d=70, m=301).to(device, dtype)
    f, gx = value_and_grad(p, GELU())
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3, threads):
            torch.set_num_threads(count)
            again = value_and_grad(p, GELU())
            assert torch.equal(again[0], f)
            assert torch.equal(again[1], gx)
    finally:
        torch.set_num_threads(threads)


def test_a_split_batch_agrees(device):
    p = make_problem(n=129, d=70, m=301, device=device)
    _, gx = value_and_grad(p)
    for size in (1, 7, 64):
        parts = [
            bk.two_layer_value_and_grad(x, p.W, p.a, cotangent=r, **p.network)[1]
            for x, r in zip(p.x.split(size), p.cotangent.split(size), strict=True)
        ]
        torch.testing.assert_close(torch.cat(parts), gx, rtol=1e-12, atol=1e-13)
