"""Plain torch: the loop through autograd, the same by two matmuls, and what an expert makes of it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bench.cases import FAMILIES
from bench.formulas import FIRST, STEP, VALUE, Problem, analytic_gradient, hidden, l2_step, training_steps
from bench.providers import training
from bench.providers.base import ATTACKS, Provider, Run, compute_dtype, only

GRADIENTS = frozenset({"value_and_grad", "parameter_grad"})
#: Neurons at a time: n × 1024 activations stay in cache.
_CHUNK = 1024


def attack_loop(p: Problem, gradient: Callable[[Tensor], Tensor]) -> Tensor:
    """K exact-direction steps: ``gradient(x)`` makes the margin fall; its length does not matter."""
    x, step = p.x, STEP[FAMILIES[p.case.family].attack or ""]
    for _ in range(p.case.steps):
        x = step(x, p.x, gradient(x), p.step, p.radius)
    return x


def network(p: Problem, x: Tensor, W: Tensor, a: Tensor, bias: Tensor | None) -> Tensor:
    return VALUE[p.case.activation](hidden(x, W, bias)) @ a


# ---- through autograd -----------------------------------------------------------------------------------------------


def _eager(p: Problem) -> Run:
    family = p.case.family
    if family == "training":
        return training.plain(p, training_steps(p))
    if family == "forward":
        return Run(lambda: network(p, p.x, p.W, p.a, p.bias))
    if family == "l2_step":
        return Run(lambda: l2_step(p.x, p.origin, p.grad, p.step, p.radius))
    if family in ATTACKS:
        return Run(lambda: attack_loop(p, lambda x: _autograd_gradient(p, x)))
    x, W, a = (tensor.detach().clone().requires_grad_() for tensor in (p.x, p.W, p.a))
    if family == "tracked":
        return Run(lambda: network(p, x, W, a, p.bias))
    if family == "value_and_grad":
        return Run(lambda: _with_gradients(network(p, x, p.W, p.a, p.bias), (x,), torch.ones_like(p.cotangent)))
    if family == "autograd":
        return Run(lambda: _with_gradients(network(p, x, W, a, p.bias), (x, W, a), p.cotangent))
    assert p.bias is not None
    bias = p.bias.detach().clone().requires_grad_()
    return Run(lambda: _with_gradients(network(p, p.x, W, a, bias), (W, a, bias), p.cotangent)[1:])


def _with_gradients(f: Tensor, leaves: tuple[Tensor, ...], cotangent: Tensor) -> tuple[Tensor, ...]:
    return (f, *torch.autograd.grad(f, leaves, cotangent))


def _autograd_gradient(p: Problem, x: Tensor) -> Tensor:
    x = x.detach().requires_grad_()
    f = network(p, x.to(p.W.dtype), p.W, p.a, p.bias)
    return torch.autograd.grad(-(p.y * f).sum(), x)[0]


# ---- by two matmuls -------------------------------------------------------------------------------------------------


def loss_gradient(p: Problem, x: Tensor) -> Tensor:
    r = -p.y.to(p.W.dtype)
    return analytic_gradient(x.to(p.W.dtype), p.W, p.a, p.bias, r, p.case.activation).to(x.dtype)


def value_and_grad(p: Problem) -> tuple[Tensor, Tensor]:
    H = hidden(p.x, p.W, p.bias)
    return VALUE[p.case.activation](H) @ p.a, (FIRST[p.case.activation](H) * p.a) @ p.W


def parameter_grad(p: Problem) -> tuple[Tensor, Tensor, Tensor]:
    H = hidden(p.x, p.W, p.bias)
    U = FIRST[p.case.activation](H) * (p.cotangent.unsqueeze(-1) * p.a)
    return U.T @ p.x, VALUE[p.case.activation](H).T @ p.cotangent, U.sum(0)


def _analytic(p: Problem) -> Run:
    if p.case.family == "value_and_grad":
        return Run(lambda: value_and_grad(p))
    if p.case.family == "parameter_grad":
        return Run(lambda: parameter_grad(p))
    return Run(lambda: attack_loop(p, lambda x: loss_gradient(p, x)))


# ---- buffers reused, only the sign of the loss's derivative ---------------------------------------------------------


def _gate_(H: Tensor, activation: str) -> Tensor:
    """φ'(H) in H's own memory where torch has it."""
    if activation == "relu":
        return H.gt_(0)
    if activation == "tanh":
        return H.tanh_().square_().neg_().add_(1)
    return H.copy_(FIRST[activation](H))


def _buffered(p: Problem) -> Run:
    n, d, m = p.case.n, p.case.d, p.case.m
    step = STEP[FAMILIES[p.case.family].attack or ""]
    H, g = p.W.new_empty(n, m), p.W.new_empty(n, d)

    def gradient(x: Tensor) -> Tensor:
        torch.mm(x.to(p.W.dtype), p.W.T, out=H)
        if p.bias is not None:
            H.add_(p.bias)
        # The label's sign goes on n×d numbers, not on n×m.
        torch.mm(_gate_(H, p.case.activation).mul_(p.a), p.W, out=g)
        return g.to(x.dtype)

    def attack() -> Tensor:
        x, eta = p.x, (-p.step * p.y).unsqueeze(-1)
        for _ in range(p.case.steps):
            x = step(x, p.x, gradient(x), eta, p.radius)  # type: ignore[arg-type]
        return x

    return Run(attack)


# ---- blocks of neurons through oneDNN's float32 product -------------------------------------------------------------


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x weightᵀ through oneDNN, which is twice as fast as MKL on AMD."""
    result: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return result


def _chunked(p: Problem) -> Run:
    phi, first = VALUE[p.case.activation], FIRST[p.case.activation]
    size = _CHUNK if p.case.m > 2 * _CHUNK else max(1, p.case.m)
    biases = p.bias.split(size) if p.bias is not None else [None] * len(p.W.split(size))
    chunks = list(zip(p.W.split(size), p.a.split(size), biases, strict=True))

    def forward() -> Tensor:
        f = p.x.new_zeros(p.case.n)
        for W, a, b in chunks:
            f += phi(_linear(p.x, W, b)) @ a
        return f

    def gradient(x: Tensor) -> Tensor:
        g = torch.zeros_like(x)
        for W, a, b in chunks:
            g += _linear(first(_linear(x, W, b)).mul_(a), W.T)
        return g

    def both() -> tuple[Tensor, Tensor]:
        f, g = p.x.new_zeros(p.case.n), torch.zeros_like(p.x)
        for W, a, b in chunks:
            H = _linear(p.x, W, b)
            f += phi(H) @ a
            g += _linear(first(H).mul_(a), W.T)
        return f, g

    def parameters() -> tuple[Tensor, ...]:
        parts = []
        for W, a, b in chunks:
            H = _linear(p.x, W, b)
            U = first(H).mul_(a).mul_(p.cotangent.unsqueeze(-1))
            parts.append((_linear(U.T, p.x.T), phi(H).T @ p.cotangent, U.sum(0)))
        return tuple(torch.cat(part) for part in zip(*parts, strict=True))

    if p.case.family in ATTACKS:
        y = p.y.unsqueeze(-1)
        return Run(lambda: attack_loop(p, lambda x: gradient(x).mul_(-y)))
    return Run({"forward": forward, "value_and_grad": both, "parameter_grad": parameters}[p.case.family])


# ---- CUDA: the same two matmuls in lower precision ------------------------------------------------------------------


def _tf32(p: Problem) -> Run:
    def attack() -> Tensor:
        before = torch.backends.cuda.matmul.allow_tf32
        torch.backends.cuda.matmul.allow_tf32 = True
        try:
            return attack_loop(p, lambda x: loss_gradient(p, x))
        finally:
            torch.backends.cuda.matmul.allow_tf32 = before

    return Run(attack)


def _bfloat16(p: Problem) -> Run:
    W, gate = p.W.bfloat16(), FIRST[p.case.activation]
    r = (-p.y.unsqueeze(-1) * p.a).bfloat16()

    def gradient(x: Tensor) -> Tensor:
        return ((gate(x.bfloat16() @ W.T) * r) @ W).to(compute_dtype(p.case))

    return Run(lambda: attack_loop(p, gradient))


_FLOAT32 = ("float32",)
PROVIDERS = (
    Provider("eager", "torch through autograd", _eager),
    Provider("analytic", "torch, the gradient as two matmuls", _analytic, GRADIENTS | ATTACKS),
    Provider("buffers", "two matmuls into reused buffers, no loss derivative", _buffered, ATTACKS),
    Provider(
        "onednn",
        "two matmuls in blocks of 1024 neurons through torch's oneDNN",
        _chunked,
        GRADIENTS | ATTACKS | {"forward"},
        refuses=only(_FLOAT32, device="cpu"),
    ),
    Provider(
        "tf32",
        "two matmuls, tf32 allowed",
        _tf32,
        ATTACKS,
        refuses=only(_FLOAT32, device="cuda"),
        precision="tf32",
    ),
    Provider(
        "bf16",
        "two matmuls on bfloat16 copies",
        _bfloat16,
        ATTACKS,
        refuses=only(_FLOAT32, device="cuda"),
        precision="bfloat16",
    ),
)
