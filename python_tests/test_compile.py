"""torch.compile and torch.export without a graph break, fakes against the real ops, and torch's own op checks."""

import math

import pytest
import torch
from problems import SHAPES, SMALL_SHAPES, functions, make_problem, small_shapes
from torch.autograd import forward_ad

import benign_kernels as bk
from benign_kernels.activation import GELU, SmoothLeakyReLU

PHI = SmoothLeakyReLU(0.2)
raw = torch.ops.benign_kernels


@pytest.fixture(autouse=True)
def _forget_compiled_code():
    yield
    torch._dynamo.reset()


def compiled(function, backend="aot_eager"):
    """Traced and lowered as for a real backend, but run by torch: what is tested here is the graph."""
    return torch.compile(function, fullgraph=True, dynamic=True, backend=backend)


# ---- torch.compile and torch.export ----------------------------------------------------------------------------------


@small_shapes
def test_forward_and_backward_compile_to_one_graph(shape, device):
    p = make_problem(**shape, device=device).requires_grad()
    inputs = list(p.tensors().values())[:-1]

    def loss(x, W, a, bias, head_bias, r):
        f = bk.two_layer(x, W, a, bias=bias, head_bias=head_bias, activation=PHI, patches=p.patches)
        return (f.square() * r).sum()

    arguments = (p.x, p.W, p.a, p.bias, p.head_bias, p.cotangent)
    got = torch.autograd.grad(compiled(loss)(*arguments), inputs)
    want = torch.autograd.grad(loss(*arguments), inputs)
    for ours, theirs in zip(got, want, strict=True):
        torch.testing.assert_close(ours, theirs)


def test_one_graph_serves_every_size(device):
    graphs = []

    def count(graph, inputs):
        graphs.append(graph)
        return graph.forward

    def step(x, W, a, y):
        f, g = bk.two_layer_value_and_grad(x, W, a, cotangent=y, activation="tanh")
        moved = bk.l2_pgd_step(x, x, g, step=0.1, radius=1.0)
        return f.sum() + bk.linf_pgd_step(moved, x, g, step=y.abs(), radius=0.5).sum()

    fast = torch.compile(step, fullgraph=True, dynamic=True, backend=count)
    for n, d, m in ((5, 7, 11), (6, 9, 13), (50, 3, 4)):
        p = make_problem(n, d, m, device=device)
        arguments = (p.x, p.W, p.a, p.cotangent)
        torch.testing.assert_close(fast(*arguments), step(*arguments))
    assert len(graphs) == 1


def test_value_and_gradient_ops_compile_with_gradients(device):
    p = make_problem(n=4, heads=2, device=device).requires_grad()

    def loss(x, W, a, bias, head_bias, r):
        f, gx = bk.two_layer_value_and_grad(x, W, a, cotangent=r, bias=bias, head_bias=head_bias, activation=PHI)
        return f.sum() + gx.square().sum()

    arguments = (p.x, p.W, p.a, p.bias, p.head_bias, p.cotangent)
    got = torch.autograd.grad(compiled(loss)(*arguments), arguments)
    for ours, theirs in zip(got, torch.autograd.grad(loss(*arguments), arguments), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_in_place_steps_compile(device):
    p = make_problem(n=4, device=device)

    def walk(x, g):
        x = x.clone()
        bk.l2_pgd_step_(x, x.clone(), g, step=0.1, radius=1.0)
        bk.linf_pgd_step_(x, x.clone(), g, step=0.1, radius=1.0)
        return x

    torch.testing.assert_close(compiled(walk)(p.x, p.x.sin()), walk(p.x, p.x.sin()))


@pytest.mark.slow
def test_inductor_compiles_a_training_step(device):
    p = make_problem(n=4, device=device).requires_grad()
    loss = lambda x, W, a: bk.two_layer(x, W, a, activation=PHI).exp().sum()  # noqa: E731
    arguments = (p.x, p.W, p.a)
    got = torch.autograd.grad(torch.compile(loss, fullgraph=True, dynamic=True)(*arguments), arguments)
    for ours, theirs in zip(got, torch.autograd.grad(loss(*arguments), arguments), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("shape", ["plain", "networks_heads"])
@pytest.mark.parametrize("name", ["value", "value_and_grad", "parameter_grad"])
def test_transforms_inside_of_compiled_code(name, shape, device):
    """Dynamo looks through an autograd.Function there: the raw op would have no gradient, and zeros for a tangent."""
    p = make_problem(**SHAPES[shape], device=device)
    function, inputs = functions(p, PHI)[name]
    given = [i for i, t in enumerate(inputs) if t is not None]
    tangents = [torch.randn_like(inputs[i]) for i in given]

    def of_given(*tensors):
        full = list(inputs)
        for i, t in zip(given, tensors, strict=True):
            full[i] = t
        return function(*full)

    def loss(*tensors):
        outputs = of_given(*tensors)
        return sum(out.sin().sum() for out in (outputs if isinstance(outputs, tuple) else [outputs]))

    def transformed(*tensors):
        grads = torch.func.grad(loss, argnums=tuple(range(len(given))))(*tensors)
        _, moved = torch.func.jvp(of_given, tuple(tensors), tuple(tangents))
        return grads, moved

    arguments = [inputs[i] for i in given]
    torch.testing.assert_close(compiled(transformed, backend="eager")(*arguments), transformed(*arguments))


def test_vmap_inside_of_compiled_code(device):
    p = make_problem(n=4, device=device)
    Ws = torch.stack([p.W, 2 * p.W, -p.W])
    mapped = torch.func.vmap(lambda W: bk.two_layer(p.x, W, p.a, **p.network, activation=PHI))
    torch.testing.assert_close(compiled(mapped)(Ws), mapped(Ws))


def test_dual_numbers_reach_compiled_code(device):
    p = make_problem(n=4, device=device)
    value = lambda x: bk.two_layer(x, p.W, p.a, **p.network, activation=PHI)  # noqa: E731
    fast = compiled(value)
    fast(p.x)
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(p.x, p.x.cos())
        torch.testing.assert_close(
            forward_ad.unpack_dual(fast(dual)).tangent, forward_ad.unpack_dual(value(dual)).tangent
        )


class Net(torch.nn.Module):
    def __init__(self, p):
        super().__init__()
        self.W, self.a, self.bias = (torch.nn.Parameter(t) for t in (p.W, p.a, p.bias))

    def forward(self, x):
        return bk.two_layer(x, self.W, self.a, bias=self.bias, activation=GELU())


@pytest.mark.parametrize("strict", [False, True])
def test_export_with_a_dynamic_batch(strict, device):
    p = make_problem(n=4, device=device)
    net = Net(p)
    program = torch.export.export(net, (p.x,), dynamic_shapes=({0: torch.export.Dim("n", min=1)},), strict=strict)
    assert "benign_kernels.two_layer.default" in program.graph_module.print_readable(print_output=False)
    for n in (1, 9):
        x = make_problem(n=n, device=device).x
        torch.testing.assert_close(program.module()(x), net(x))


# ---- the raw ops -----------------------------------------------------------------------------------------------------


def raw_calls(p, dtype):
    """(op, arguments) of every op on a problem."""
    x, W, a, bias, head_bias, r = p.x, p.W, p.a, p.bias, p.head_bias, p.cotangent
    phi = ("smooth_leaky_relu", 0.2, 1.0, p.patches)
    rows = r.shape[:-1] if a.dim() == W.dim() else r.shape
    classes = a.dim() == W.dim() and a.shape[-2] > 1
    y = (
        torch.zeros(rows, dtype=torch.long, device=x.device)
        if classes
        else torch.ones(rows, dtype=dtype, device=x.device)
    )
    per_row = torch.ones(rows, dtype=dtype, device=x.device)
    threat = ("l2", "margin", "exact", "added", 0.0, 1.0)
    each = torch.ones(x.shape[:-1], dtype=dtype, device=x.device)
    yield raw.two_layer, (x, W, a, bias, head_bias, *phi)
    yield raw.two_layer_value_and_grad, (x, W, a, bias, head_bias, r, *phi)
    yield raw.two_layer_value_and_grad, (x, W, a, bias, head_bias, None, *phi)
    yield raw.two_layer_parameter_grad, (x, W, a, bias, r, *phi)
    for norm in ("l2", "linf"):
        out_of_place, in_place = getattr(raw, f"{norm}_pgd_step"), getattr(raw, f"{norm}_pgd_step_")
        yield out_of_place, (x, x + 0.1, x.sin(), each, None, 0.0, 1.0)
        yield in_place, (x.clone(), x + 0.1, x.sin(), None, each, 0.5, 0.0)
    network = (x, y, W, a, bias, head_bias)
    box, free, auto = (-1.0, 1.0), (-math.inf, math.inf), (False, True, "auto")
    yield raw.pgd, (*network, None, None, None, None, 0.5, 0.2, 2, *threat, False, *box, False, *auto, *phi)
    yield raw.pgd, (*network, None, None, per_row, per_row, 0.0, 0.0, 2, *threat, True, *box, True, *auto, *phi)
    if x.device.type != "cuda":  # margins alone, from a Gram matrix that is known
        gram = (W.to(x.dtype) @ W.to(x.dtype).mT).to(torch.float32 if x.dtype == torch.bfloat16 else x.dtype)
        ask = (False, False, "gram")
        yield raw.pgd, (*network, gram, None, None, None, 0.5, 0.2, 2, *threat, False, *free, False, *ask, *phi)


@small_shapes
def test_opcheck(shape, device):
    p = make_problem(**shape, device=device)
    for op, arguments in raw_calls(p, torch.float64):
        torch.library.opcheck(op.default, arguments)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", SHAPES)
def test_meta_tensors_have_the_shapes_and_dtypes_of_real_ones(shape, dtype, device):
    p = make_problem(**SHAPES[shape]).to(device, dtype)
    computed = torch.float32 if dtype == torch.bfloat16 else dtype
    for op, arguments in raw_calls(p, computed):
        if op is raw.pgd:
            arguments = (arguments[0].to(computed), *arguments[1:])
        real = op.default(*arguments)
        fake = op.default(*(t.to("meta") if isinstance(t, torch.Tensor) else t for t in arguments))
        pairs = zip(real, fake, strict=True) if isinstance(real, tuple) else [] if real is None else [(real, fake)]
        for ours, theirs in pairs:
            assert (ours.shape, ours.dtype, ours.stride()) == (theirs.shape, theirs.dtype, theirs.stride()), op


def test_small_shapes_are_shapes():
    assert set(SMALL_SHAPES) < set(SHAPES)
