"""One projected step: its arithmetic, and every rule at the edges."""

import math

import pytest
import torch
from problems import LAYOUTS
from tolerance import DTYPES, computed_in, roundoff

import benign_kernels as bk
from benign_kernels import reference

inf, nan = math.inf, math.nan
every_dtype = pytest.mark.parametrize("dtype", DTYPES, ids=str)
both_norms = pytest.mark.parametrize("norm", ["l2", "linf"])
SHAPES = [(5, 7), (1, 1), (7,), (2, 3, 5), (0, 4), (4, 0), (129, 67), (3, 1031)]


def step_of(norm):
    return {"l2": bk.l2_pgd_step, "linf": bk.linf_pgd_step}[norm]


def in_place_of(norm):
    return {"l2": bk.l2_pgd_step_, "linf": bk.linf_pgd_step_}[norm]


def reference_of(norm):
    return {"l2": reference.l2_pgd_step, "linf": reference.linf_pgd_step}[norm]


def sample(shape, dtype=torch.float64, device="cpu", spread=0.1):
    """x near its origin, and a gradient."""
    x, origin, grad = torch.randn(3, *shape, dtype=torch.float64)
    return [t.to(device, dtype) for t in (origin + spread * x, origin, grad)]


@every_dtype
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@both_norms
def test_a_step_is_accurate(norm, shape, dtype, device):
    x, origin, grad = sample(shape, dtype, device)
    for radius in (inf, 0.2):
        got = step_of(norm)(x, origin, grad, step=0.3, radius=radius)
        want = reference_of(norm)(x, origin, grad, step=0.3, radius=radius)
        assert got.shape == x.shape
        assert got.dtype == dtype
        # x - origin, + step, the factor of the projection and + origin round once each, on numbers up to `size`; the
        # result is rounded to its own dtype.
        size = x.abs().double() + origin.abs().double() + 0.3
        allowed = 6 * roundoff(computed_in(dtype)) * size + roundoff(dtype) * want.abs()
        assert ((got.double() - want).abs() <= allowed).all()


@both_norms
def test_step_and_radius_may_differ_between_rows(norm, device):
    x, origin, grad = sample((4, 3, 5), device=device)
    step = torch.tensor([[0.1, 0.2, 0.0]] * 4, device=device).double()
    radius = torch.tensor([0.05, 0.1, inf], device=device).double()  # spread over the first dimension
    got = step_of(norm)(x, origin, grad, step=step, radius=radius)
    want = reference_of(norm)(x, origin, grad, step=step, radius=radius)
    torch.testing.assert_close(got, want, rtol=1e-14, atol=1e-14)
    number = torch.tensor(0.1, device=device)
    assert torch.equal(
        step_of(norm)(x, origin, grad, step=number, radius=1),
        step_of(norm)(x, origin, grad, step=float(number), radius=1),
    )


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@both_norms
def test_the_layout_of_the_inputs_changes_no_bit(norm, layout, device):
    inputs = sample((6, 5), device=device)
    plain = step_of(norm)(*inputs, step=0.3, radius=0.2)
    assert torch.equal(step_of(norm)(*map(layout, inputs), step=0.3, radius=0.2), plain)
    x, origin, grad = inputs
    moved = layout(x)
    assert in_place_of(norm)(moved, origin, grad, step=0.3, radius=0.2) is moved
    assert torch.equal(moved, plain)


@every_dtype
@both_norms
def test_in_place_is_the_same(norm, dtype, device):
    x, origin, grad = sample((9, 33), dtype, device)
    plain = step_of(norm)(x, origin, grad, step=0.3, radius=0.2)
    in_place_of(norm)(x, origin, grad, step=0.3, radius=0.2)
    assert torch.equal(x, plain)


@both_norms
def test_in_place_with_an_origin_or_a_gradient_in_its_own_memory(norm, device):
    numbers = sample((40, 33), torch.float64, device)[0].flatten()
    size = 30 * 33
    for offset in (0, 1, 33, 7 * 33 + 5, -1, -33):
        shift = max(0, -offset)
        for names in (("origin",), ("grad",), ("origin", "grad")):
            memory = numbers.clone()
            x = memory[shift : shift + size].view(30, 33)
            other = memory[shift + offset : shift + offset + size].view(30, 33)
            arguments = {"origin": torch.zeros_like(x), "grad": torch.ones_like(x)} | dict.fromkeys(names, other)
            want = step_of(norm)(x, **arguments, step=0.3, radius=0.2)
            in_place_of(norm)(x, **arguments, step=0.3, radius=0.2)
            assert torch.equal(x, want), (offset, names)


@both_norms
def test_in_place_leaves_the_rest_of_the_storage_alone(norm, device):
    whole = torch.zeros(6, 4, device=device)
    in_place_of(norm)(
        whole[::2, :2], torch.zeros(3, 2, device=device), torch.ones(3, 2, device=device), step=1, radius=9
    )
    assert whole[1::2].abs().sum() == 0
    assert whole[:, 2:].abs().sum() == 0
    assert (whole[::2, :2] != 0).all()


# ---- the ball --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
@pytest.mark.parametrize("d", [1, 3, 1000, 100_000])
def test_the_result_lies_in_the_ball_to_4_ulp(d, dtype, device):
    _, origin, grad = sample((16, d), dtype, device)
    zero = torch.zeros_like(origin)
    radius = 0.3
    got = bk.l2_pgd_step(origin, zero, grad, step=0.7, radius=radius).cpu()
    for row in got:
        norm = math.sqrt(math.fsum(t * t for t in row.tolist()))
        limit = torch.tensor(radius, dtype=dtype).item()
        assert norm <= limit * (1 + 4 * torch.finfo(dtype).eps)
        assert norm >= limit * (1 - 4 * torch.finfo(dtype).eps) or (origin.norm(dim=1) < 1).any()


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=str)
def test_the_cube_is_kept_exactly(dtype, device):
    _, origin, grad = sample((16, 50), dtype, device)
    zero = torch.zeros_like(origin)
    got = bk.linf_pgd_step(origin, zero, grad, step=0.7, radius=0.3)
    assert got.abs().max() <= torch.tensor(0.3, dtype=dtype)


# ---- scales ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "scales"),
    [
        (torch.float32, (1e-30, 1e30, 2.0**-100, 2.0**120)),
        (torch.float64, (1e-300, 1e300)),
        (torch.bfloat16, (2.0**-100, 2.0**120)),
    ],
    ids=str,
)
@both_norms
def test_the_scale_of_the_gradient_does_not_matter(norm, dtype, scales, device):
    x, origin, grad = sample((5, 40), dtype, device)
    want = step_of(norm)(x, origin, grad, step=0.3, radius=inf)
    for scale in scales:
        got = step_of(norm)(x, origin, (grad.double() * scale).to(dtype), step=0.3, radius=inf)
        torch.testing.assert_close(got, want, rtol=4 * torch.finfo(dtype).eps, atol=0.3 * torch.finfo(dtype).eps)


def test_the_largest_and_smallest_numbers_are_gradients_too(device):
    x = torch.zeros(2, 4, device=device)
    grad = torch.full((2, 4), 3e38, device=device)
    grad[1] = 2.0**-149
    got = bk.l2_pgd_step(x, x, grad, step=1.0, radius=inf)
    assert got[0].tolist() == [0.5] * 4
    assert got[1].tolist() == [0.5] * 4


# ---- nothing to do ---------------------------------------------------------------------------------------------------


@every_dtype
@both_norms
def test_no_step_inside_the_ball_returns_x_bit_for_bit(norm, dtype, device):
    x, origin, grad = sample((6, 9), dtype, device)
    x[0, 0] = -0.0
    origin[0, 0] = -0.0
    for keywords, g in (({"step": 0.0}, grad), ({"step": 1.0}, torch.zeros_like(grad))):
        for radius in (50.0, inf):
            got = step_of(norm)(x, origin, g, radius=radius, **keywords)
            assert torch.equal(got, x)
            assert torch.equal(got.signbit(), x.signbit())


@every_dtype
@both_norms
def test_radius_zero_returns_the_origin_bit_for_bit(norm, dtype, device):
    x, origin, grad = sample((6, 9), dtype, device)
    origin[0, 0] = -0.0
    got = step_of(norm)(x, origin, grad, step=0.5, radius=0.0)
    assert torch.equal(got, origin)
    assert torch.equal(got.signbit(), origin.signbit())


@both_norms
def test_a_zero_gradient_still_projects(norm, device):
    x, origin, grad = sample((6, 9), device=device, spread=2.0)
    got = step_of(norm)(x, origin, torch.zeros_like(grad), step=1.0, radius=0.1)
    want = reference_of(norm)(x, origin, torch.zeros_like(grad), step=1.0, radius=0.1)
    torch.testing.assert_close(got, want, rtol=1e-14, atol=1e-14)


# ---- what is not finite ----------------------------------------------------------------------------------------------


@every_dtype
@pytest.mark.parametrize("bad", [nan, inf, -inf])
@pytest.mark.parametrize("place", [0, 1, 2], ids=["x", "origin", "grad"])
@both_norms
def test_a_bad_row_is_nan_and_touches_no_other(norm, place, bad, dtype, device):
    inputs = sample((7, 19), dtype, device)
    plain = step_of(norm)(*inputs, step=0.3, radius=0.2)
    inputs[place][3, 11] = bad
    got = step_of(norm)(*inputs, step=0.3, radius=0.2)
    assert got[3].isnan().all()
    others = torch.arange(7, device=device) != 3
    assert torch.equal(got[others], plain[others])


# ---- around autograd -------------------------------------------------------------------------------------------------


@both_norms
def test_the_result_is_detached(norm, device):
    x, origin, grad = sample((3, 4), device=device)
    for t in (x, origin, grad):
        t.requires_grad_()
    assert not step_of(norm)(x, origin, grad, step=0.1, radius=1.0).requires_grad
    plain = step_of(norm)(x, origin, grad, step=0.1, radius=1.0)
    assert in_place_of(norm)(x, origin, grad, step=0.1, radius=1.0) is x
    assert x.requires_grad
    assert x.is_leaf
    assert torch.equal(x.detach(), plain)


@pytest.mark.parametrize("of_grad", [torch.bfloat16, torch.float16, torch.float64], ids=str)
@both_norms
def test_autocast_steps_in_the_dtype_of_x(norm, of_grad, device):
    x, origin, grad = sample((5, 9), torch.float32, device)
    grad = grad.to(of_grad)
    want = step_of(norm)(x, origin, grad.float(), step=0.3, radius=0.2)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        got = step_of(norm)(x, origin, grad, step=0.3, radius=0.2)
        in_place_of(norm)(x, origin, grad, step=0.3, radius=0.2)
    assert got.dtype == torch.float32
    assert torch.equal(got, want)
    assert torch.equal(x, want)
    with pytest.raises(ValueError, match="grad: got dtype"):
        step_of(norm)(x, origin, grad, step=0.3, radius=0.2)


def test_an_in_place_step_is_noticed_by_a_backward_that_needs_the_old_value(device):
    x = torch.ones(2, 2, device=device, requires_grad=True)
    y = x * 1
    loss = y.square().sum()
    bk.l2_pgd_step_(y, torch.zeros(2, 2, device=device), torch.ones(2, 2, device=device), step=0.1, radius=9.0)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@both_norms
def test_vmap_adds_a_dimension_of_rows(norm, device, recwarn):
    x, origin, grad = sample((3, 4, 5), device=device)
    radius = torch.tensor([0.1, 0.2, 0.3], device=device).double()
    want = step_of(norm)(x, origin[:1].expand(3, 4, 5), grad, step=0.3, radius=radius[:, None])

    def step(x, grad, radius):
        return step_of(norm)(x, origin[0], grad, step=0.3, radius=radius)

    def in_place(x, grad, radius):
        return in_place_of(norm)(x.clone(), origin[0], grad, step=0.3, radius=radius)

    for function in (step, in_place):
        assert torch.equal(torch.func.vmap(function)(x, grad, radius), want)
    assert not recwarn.list


def test_a_pgd_loop_on_any_model(device):
    """The loop of the docstring: three lines, and it climbs."""
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.GELU(), torch.nn.Linear(16, 1)).to(device)
    x0 = torch.randn(5, 8, device=device)
    x = x0
    before = model(x0).sum().item()
    for _ in range(5):
        x = x.detach().requires_grad_()
        (grad,) = torch.autograd.grad(model(x).sum(), x)
        x = bk.l2_pgd_step(x, x0, grad, step=0.2, radius=0.5)
    assert model(x).sum().item() > before
    assert ((x - x0).norm(dim=1) <= 0.5 * (1 + 1e-6)).all()


@both_norms
def test_runs_and_thread_counts_agree_bit_for_bit(norm, device):
    inputs = sample((300, 257), torch.float32, device)
    plain = step_of(norm)(*inputs, step=0.3, radius=0.2)
    threads = torch.get_num_threads()
    try:
        for count in (1, 2, 3, threads):
            torch.set_num_threads(count)
            assert torch.equal(step_of(norm)(*inputs, step=0.3, radius=0.2), plain)
    finally:
        torch.set_num_threads(threads)
