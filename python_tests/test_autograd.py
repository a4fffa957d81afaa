"""Derivatives of any order, in every mode, by value; and that gradients leave nothing behind."""

import pytest
import torch
from problems import SMALL_SHAPES, functions, make_problem, small_shapes
from torch.autograd import forward_ad, gradcheck, gradgradcheck

import benign_kernels as bk
from benign_kernels import activation as phis
from benign_kernels import reference

SMOOTH = [phi for phi in phis.activations() if not phi.piecewise_linear and phi.name != "relu_power"]
smooth = pytest.mark.parametrize("phi", [*SMOOTH, phis.ReLUPower(4)], ids=repr)
PHI = phis.SmoothLeakyReLU(0.2, 2.0)


def small_problem(shape, **change):
    return make_problem(**{**shape, "n": 2 if shape.get("n") != (2, 3) else (2, 1), "d": 2, "m": 3, **change})


every_function = pytest.mark.parametrize("name", ["value", "value_and_grad", "parameter_grad"])


# ---- first order: exactly the native ops -----------------------------------------------------------------------------


@pytest.mark.parametrize("phi", phis.activations(), ids=repr)
@small_shapes
def test_backward_is_the_gradient_of_the_reference(shape, phi, device):
    p = make_problem(**shape, device=device).requires_grad()
    inputs = list(p.tensors().values())[:-1]
    got = torch.autograd.grad(bk.two_layer(p.x, p.W, p.a, **p.network, activation=phi), inputs, p.cotangent)
    want = torch.autograd.grad(reference.two_layer(p.x, p.W, p.a, **p.network, activation=phi), inputs, p.cotangent)
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-12)


@pytest.mark.parametrize("wanted", ["x", "W", "a", "bias", "head_bias"])
def test_only_the_gradients_that_are_needed(wanted, device):
    p = make_problem(n=4, d=3, m=5, heads=2, device=device)
    getattr(p, wanted).requires_grad_()
    bk.two_layer(p.x, p.W, p.a, **p.network).backward(p.cotangent)
    assert [name for name, t in p.tensors().items() if t.grad is not None] == [wanted]


def test_a_head_bias_alone_needs_no_hidden_layer(monkeypatch):
    from benign_kernels import autograd

    p = make_problem(n=4)
    c = p.head_bias.clone().requires_grad_()
    f = bk.two_layer(p.x, p.W, p.a, bias=p.bias, head_bias=c)
    monkeypatch.setattr(autograd, "ops", None)  # any op call would raise
    f.backward(p.cotangent)
    torch.testing.assert_close(c.grad, p.cotangent.sum())


def test_nothing_is_recorded_without_need(device):
    p = make_problem(n=4, device=device)
    assert not bk.two_layer(p.x, p.W, p.a, **p.network).requires_grad
    p.W.requires_grad_()
    with torch.no_grad():
        assert not bk.two_layer(p.x, p.W, p.a, **p.network).requires_grad
    with torch.inference_mode():
        assert not bk.two_layer(p.x, p.W, p.a, **p.network).requires_grad
    assert bk.two_layer(p.x, p.W, p.a, **p.network).requires_grad


# ---- higher orders ---------------------------------------------------------------------------------------------------


@smooth
@every_function
def test_first_order(name, phi, device):
    p = small_problem(SMALL_SHAPES["plain"], device=device).requires_grad()
    function, inputs = functions(p, phi)[name]
    assert gradcheck(function, inputs, check_forward_ad=True, nondet_tol=0.0)


@every_function
@small_shapes
def test_first_order_of_every_shape(shape, name, device):
    p = small_problem(shape, device=device).requires_grad()
    function, inputs = functions(p, PHI)[name]
    assert gradcheck(function, inputs, check_forward_ad=True, nondet_tol=0.0)


@smooth
def test_second_order(phi, device):
    p = small_problem(SMALL_SHAPES["plain"], device=device).requires_grad()
    function, inputs = functions(p, phi)["value"]
    assert gradgradcheck(function, inputs, check_fwd_over_rev=True, nondet_tol=0.0)


@small_shapes
def test_second_order_of_every_shape(shape, device):
    p = small_problem(shape, device=device).requires_grad()
    function, inputs = functions(p, PHI)["value"]
    assert gradgradcheck(function, inputs, check_fwd_over_rev=True, nondet_tol=0.0)


@pytest.mark.parametrize("name", ["value_and_grad", "parameter_grad"])
def test_third_order(name, device):
    p = small_problem({}, n=1, device=device).requires_grad()
    function, inputs = functions(p, PHI)[name]
    assert gradgradcheck(function, inputs, nondet_tol=0.0)


@pytest.mark.parametrize("phi", [phis.Identity(), phis.ReLU(), phis.LeakyReLU(0.3)], ids=repr)
def test_second_order_of_piecewise_linear_activations(phi, device):
    """φ'' = 0, but the gradient with respect to x still depends on W and a."""
    p = make_problem(n=3, d=4, m=5, heads=2, patches=2, device=device).requires_grad()
    outcomes = []
    for two_layer in (bk.two_layer, reference.two_layer):
        f = two_layer(p.x, p.W, p.a, **p.network, activation=phi)
        (gx,) = torch.autograd.grad(f, p.x, p.cotangent, create_graph=True)
        outcomes.append(torch.autograd.grad(gx.square().sum(), [p.W, p.a, p.cotangent]))
    for ours, theirs in zip(*outcomes, strict=True):
        torch.testing.assert_close(ours, theirs)


# ---- torch.func ------------------------------------------------------------------------------------------------------


def in_torch(phi, patches=1):
    def value(x, W, a, bias, head_bias):
        h = torch.einsum("...pd,md->...pm", x.unflatten(-1, (patches, W.shape[-1])), W) + bias
        return torch.einsum("...pm,...m->...", phi.value(h), a) + head_bias

    return value


@pytest.mark.parametrize("argument", range(5), ids=["x", "W", "a", "bias", "head_bias"])
@pytest.mark.parametrize(
    "transform", [torch.func.jacrev, torch.func.jacfwd, torch.func.hessian], ids=lambda t: t.__name__
)
def test_jacobians_and_hessians(transform, argument, device):
    p = make_problem(n=2, d=3, m=4, patches=2, device=device)
    inputs = (p.x, p.W, p.a, p.bias, p.head_bias)
    ours = transform(functions(p, PHI)["value"][0], argnums=argument)(*inputs)
    theirs = transform(in_torch(PHI, 2), argnums=argument)(*inputs)
    torch.testing.assert_close(ours, theirs)


def test_grad_vjp_jvp_and_forward_over_reverse(device):
    p = make_problem(n=3, d=3, m=4, device=device)
    inputs = (p.x, p.W, p.a, p.bias, p.head_bias)
    tangents = tuple(torch.randn_like(t) for t in inputs)
    ours, theirs = functions(p, PHI)["value"][0], in_torch(PHI)
    everything = tuple(range(5))

    def total(f):
        return lambda *inputs: (f(*inputs) * p.cotangent).sum()

    torch.testing.assert_close(
        torch.func.grad(total(ours), everything)(*inputs), torch.func.grad(total(theirs), everything)(*inputs)
    )
    torch.testing.assert_close(torch.func.jvp(ours, inputs, tangents), torch.func.jvp(theirs, inputs, tangents))
    twice = [torch.func.jvp(torch.func.grad(total(f), everything), inputs, tangents) for f in (ours, theirs)]
    torch.testing.assert_close(*twice)
    _, ours_vjp = torch.func.vjp(ours, *inputs)
    _, theirs_vjp = torch.func.vjp(theirs, *inputs)
    torch.testing.assert_close(ours_vjp(p.cotangent), theirs_vjp(p.cotangent))


def test_vjp_used_outside_of_its_transform(device):
    """Functorch leaves dead wrappers behind in what was saved; Function.apply takes them off, and so must we."""
    p = make_problem(n=3, device=device)
    _, pull = torch.func.vjp(lambda x: bk.two_layer(x, p.W, p.a, **p.network, activation=PHI), p.x)
    r = p.cotangent.clone().requires_grad_()
    (g,) = pull(r)
    (got,) = torch.autograd.grad(g.sum(), r)
    _, want = torch.func.jvp(
        lambda x: bk.two_layer(x, p.W, p.a, **p.network, activation=PHI), (p.x,), (torch.ones_like(p.x),)
    )
    torch.testing.assert_close(got, want)


def test_forward_mode_gives_values_not_zeros(device):
    p = make_problem(n=3, device=device)
    t = torch.randn_like(p.x)
    with forward_ad.dual_level():
        f = bk.two_layer(forward_ad.make_dual(p.x, t), p.W, p.a, **p.network, activation=PHI)
        tangent = forward_ad.unpack_dual(f).tangent
    _, gx = reference.two_layer_value_and_grad(p.x, p.W, p.a, **p.network, activation=PHI)
    torch.testing.assert_close(tangent, (gx * t).sum(-1))
    assert tangent.abs().min() > 0


MAPPED = {
    "x": (0, None, None, None, None, None),
    "x_last": (-1, None, None, None, None, None),
    "W": (None, 0, None, None, None, None),
    "a": (None, None, 1, None, None, None),
    "bias": (None, None, None, 0, None, None),
    "head_bias": (None, None, None, None, 0, None),
    "cotangent": (None, None, None, None, None, 1),
    "network": (None, 0, 0, 0, 0, None),
    "everything": (0, 0, 0, 0, 0, 0),
    "x_and_cotangent": (1, None, None, None, None, 0),
}


def stacked(p, dims, size=3):
    """Each mapped tensor with a new dimension of different values."""
    inputs = (p.x, p.W, p.a, p.bias, p.head_bias, p.cotangent)
    out = []
    for t, dim in zip(inputs, dims, strict=True):
        if t is None or dim is None:
            out.append(t)
        else:
            dim = dim % (t.dim() + 1)
            out.append(torch.stack([t * (1 + 0.3 * i) for i in range(size)], min(dim, t.dim())))
    return out


@pytest.mark.parametrize("dims", MAPPED.values(), ids=MAPPED.keys())
@small_shapes
@every_function
def test_vmap_is_the_loop(name, shape, dims, device):
    p = make_problem(**shape, device=device)
    if p.bias is None and dims == MAPPED["bias"]:
        pytest.skip("has no bias to map over")
    dims = tuple(
        None if dim is None or t is None else dim % (t.dim() + 1) if dim < 0 else min(dim, t.dim())
        for t, dim in zip((p.x, p.W, p.a, p.bias, p.head_bias, p.cotangent), dims, strict=True)
    )
    inputs = stacked(p, dims)
    used = {"value": [0, 1, 2, 3, 4], "value_and_grad": [0, 1, 2, 3, 4, 5], "parameter_grad": [0, 1, 2, 3, 5]}[name]
    inputs, dims = [inputs[i] for i in used], tuple(dims[i] for i in used)
    if all(dim is None for dim in dims):
        return
    function, _ = functions(p, PHI)[name]
    got = torch.func.vmap(function, in_dims=dims)(*inputs)
    loop = [
        function(*(t if dim is None else t.select(dim, i) for t, dim in zip(inputs, dims, strict=True)))
        for i in range(3)
    ]
    want = torch.stack(loop) if name == "value" else tuple(torch.stack(parts) for parts in zip(*loop, strict=True))
    torch.testing.assert_close(got, want)


def test_nested_vmap_and_per_sample_gradients(device):
    p = make_problem(n=4, d=3, m=5, device=device)
    Ws, xs = torch.randn(2, 3, 5, 3, device=device).double(), torch.randn(3, 4, 3, device=device).double()
    value = lambda x, W: bk.two_layer(x, W, p.a, bias=p.bias, activation=PHI)  # noqa: E731
    got = torch.func.vmap(torch.func.vmap(value, in_dims=(0, 0)), in_dims=(None, 0))(xs, Ws)
    want = torch.stack([torch.stack([value(xs[i], Ws[j, i]) for i in range(3)]) for j in range(2)])
    torch.testing.assert_close(got, want)

    per_sample = torch.func.vmap(torch.func.grad(lambda W, x: value(x, W)), in_dims=(None, 0))(p.W, p.x)
    for i in range(4):
        gW, _, _ = bk.two_layer_parameter_grad(
            p.x[i], p.W, p.a, bias=p.bias, cotangent=torch.ones((), device=device).double(), activation=PHI
        )
        torch.testing.assert_close(per_sample[i], gW)


def test_per_sample_hessian_by_vmap(device):
    p = make_problem(n=3, d=3, m=5, device=device)
    got = torch.func.vmap(torch.func.hessian(lambda x: bk.two_layer(x, p.W, p.a, **p.network, activation=PHI)))(p.x)
    gate = p.a * PHI.second(p.x @ p.W.T + p.bias)
    torch.testing.assert_close(got, torch.einsum("nm,mi,mj->nij", gate, p.W, p.W))


# ---- autocast --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_autocast_computes_in_float32(dtype, device):
    p = make_problem(n=6, m=40).to(device, dtype).requires_grad()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        f = bk.two_layer(p.x, p.W, p.a, **p.network)
        value, gx = bk.two_layer_value_and_grad(p.x, p.W, p.a, cotangent=p.cotangent, **p.network)
        raw = torch.ops.benign_kernels.two_layer(
            *(t.detach() for t in (p.x, p.W, p.a, p.bias, p.head_bias)), "relu", 0, 0, 1
        )
    computed = torch.float64 if dtype == torch.float64 else torch.float32
    assert {f.dtype, value.dtype, gx.dtype, raw.dtype} == {computed}
    wide = p.to(computed)
    torch.testing.assert_close(f, bk.two_layer(wide.x, wide.W, wide.a, **wide.network), rtol=0, atol=0)
    torch.testing.assert_close(raw, f, rtol=0, atol=0)
    f.sum().backward()
    assert p.x.grad.dtype == p.W.grad.dtype == p.a.grad.dtype == dtype


def test_autocast_of_mixed_dtypes_and_of_the_attack(device):
    p = make_problem(n=6).to(device, torch.float32)
    y = torch.ones(6, device=device)
    half = p.W.bfloat16()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        f = bk.two_layer(p.x, half, p.a, **p.network)
        adv = torch.ops.benign_kernels.pgd(
            *(
                p.x,
                y,
                half,
                p.a,
                p.bias,
                p.head_bias,
                None,
                None,
                None,
                None,
                0.5,
                0.2,
                3,
                "l2",
                "margin",
                "exact",
                "added",
            ),
            *(0.0, 1.0, False, -torch.inf, torch.inf, False, False, True, "auto", "relu", 0.0, 0.0, 1),
        )
    torch.testing.assert_close(f, bk.two_layer(p.x, half.float(), p.a, **p.network), rtol=0, atol=0)
    assert {out.dtype for out in adv} == {torch.float32}
