"""The gradients of W, a and bias in one pass."""

import math

import pytest
import torch
from problems import LAYOUTS, every_shape, make_problem, small_shapes
from tolerance import DTYPES, assert_accurate

import benign_kernels as bk
from benign_kernels.activation import GELU, LeakyReLU, activations

every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)


def parameter_grad(p, phi="relu"):
    return bk.two_layer_parameter_grad(p.x, p.W, p.a, cotangent=p.cotangent, **p.hidden, activation=phi)


@every_dtype
@pytest.mark.parametrize("phi", [LeakyReLU(0.1), GELU()], ids=repr)
@every_shape
def test_every_shape_is_accurate(shape, phi, dtype, device):
    assert_accurate(lambda p: parameter_grad(p, phi), shape, phi, [2, 3, 4], dtype, device)


@every_dtype
@pytest.mark.parametrize("phi", activations(), ids=repr)
def test_every_activation_is_accurate(phi, dtype, device):
    shape = {"n": 31, "d": 17, "m": 67, "patches": 2, "heads": 2}
    assert_accurate(lambda p: parameter_grad(p, phi), shape, phi, [2, 3, 4], dtype, device)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@small_shapes
def test_the_layout_of_the_inputs_changes_no_bit(shape, layout, device):
    p = make_problem(**shape, device=device)
    for ours, theirs in zip(parameter_grad(p.map(layout)), parameter_grad(p), strict=True):
        assert torch.equal(ours, theirs)


def test_no_samples_have_no_gradient(device):
    p = make_problem(n=0, heads=2, device=device)
    assert [bool(grad.any()) for grad in parameter_grad(p)] == [False, False, False]


def test_a_nan_cannot_hide_and_spoils_no_other_network(device):
    p = make_problem(n=9, batch=(2,), device=device)
    plain = parameter_grad(p)
    p.x[1, 3] = math.nan
    grads = parameter_grad(p)
    for ours, theirs in zip(grads, plain, strict=True):
        assert torch.equal(ours[0], theirs[0])
    assert all(ours[1].isnan().any() for ours in grads[:2])


@every_dtype
def test_runs_and_thread_counts_agree_bit_for_bit(dtype, device):
    p = make_problem(n=129, d=70, m=301).to(device, dtype)
    grads = parameter_grad(p, GELU())
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3, threads):
            torch.set_num_threads(count)
            for ours, theirs in zip(parameter_grad(p, GELU()), grads, strict=True):
                assert torch.equal(ours, theirs)
    finally:
        torch.set_num_threads(threads)


def test_the_gradient_of_a_split_batch_sums_to_the_whole(device):
    p = make_problem(n=129, d=70, m=301, heads=2, device=device)
    whole = parameter_grad(p)
    parts = [
        bk.two_layer_parameter_grad(x, p.W, p.a, cotangent=r, **p.hidden)
        for x, r in zip(p.x.split(50), p.cotangent.split(50), strict=True)
    ]
    for i, theirs in enumerate(whole):
        torch.testing.assert_close(sum(part[i] for part in parts), theirs, rtol=1e-12, atol=1e-12)
