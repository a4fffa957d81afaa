"""What a compiler makes of the two matmuls: torch.compile, CUDA graphs, JAX, KeOps."""

from __future__ import annotations

import importlib
from typing import Any

import torch
from torch import Tensor

from bench.cases import COMPUTE, FAMILIES
from bench.formulas import RATE, STEP, Problem, TrainingSteps, first_network, l2_step, training_steps
from bench.providers import eager, training
from bench.providers.base import ATTACKS, EVERY_FAMILY, Provider, Run, captured, only

# ---- torch.compile --------------------------------------------------------------------------------------------------


def _one_step(p: Problem) -> Any:
    step = STEP[FAMILIES[p.case.family].attack or ""]
    return torch.compile(
        lambda x: step(x, p.x, eager.loss_gradient(p, x), p.step, p.radius), dynamic=False, fullgraph=True
    )


def _compiled(p: Problem) -> Run:
    torch.compiler.reset()
    if p.case.family == "training":
        plain, fixed = training_steps(p), {"dynamic": False, "fullgraph": True}
        steps = TrainingSteps(torch.compile(plain.attack, **fixed), torch.compile(plain.descend, **fixed))
        return training.plain(p, steps)
    if p.case.family in ATTACKS:
        step = _one_step(p)

        def attack() -> Tensor:
            x = p.x
            for _ in range(p.case.steps):
                x = step(x)
            return x

        return Run(attack)
    functions = {
        "forward": lambda: eager.network(p, p.x, p.W, p.a, p.bias),
        "value_and_grad": lambda: eager.value_and_grad(p),
        "parameter_grad": lambda: eager.parameter_grad(p),
        "l2_step": lambda: l2_step(p.x, p.origin, p.grad, p.step, p.radius),
    }
    if p.case.family in functions:
        return Run(torch.compile(functions[p.case.family], dynamic=False, fullgraph=True))
    leaves = tuple(tensor.detach().clone().requires_grad_() for tensor in (p.x, p.W, p.a))
    f = torch.compile(lambda x, W, a: eager.network(p, x, W, a, p.bias), dynamic=False, fullgraph=True)
    if p.case.family == "tracked":
        return Run(lambda: f(*leaves))

    def forward_backward() -> tuple[Tensor, ...]:
        value = f(*leaves)
        return (value, *torch.autograd.grad(value, leaves, p.cotangent))

    return Run(forward_backward)


def _graphed(p: Problem) -> Run:
    """The compiled steps of a whole attack as one CUDA graph; copying the input in and the result out is part of it."""
    torch.compiler.reset()
    step, x0 = _one_step(p), p.x.clone()

    def attack() -> Tensor:
        x = x0
        for _ in range(p.case.steps):
            x = step(x)
        return x

    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        graph, result = captured(attack)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before

    def replay() -> Tensor:
        x0.copy_(p.x)
        graph.replay()
        return result.clone()

    return Run(replay)


# ---- JAX ------------------------------------------------------------------------------------------------------------


def _jax(p: Problem) -> Run:
    import jax
    import jax.numpy as jnp

    jax.config.update("jax_enable_x64", True)

    def array(tensor: Tensor) -> Any:
        numbers = jnp.asarray(tensor.float().numpy() if tensor.dtype == torch.bfloat16 else tensor.numpy())
        return numbers.astype(jnp.bfloat16) if tensor.dtype == torch.bfloat16 else numbers

    phi = getattr(jnp if p.case.activation == "tanh" else jax.nn, p.case.activation)
    tensors = (p.x, p.y, *first_network(p), p.cotangent, p.origin, p.grad)
    x, y, W, a, cotangent, origin, grad = map(array, tensors)
    bias = jnp.zeros((), a.dtype) if p.bias is None else array(p.bias)
    storage, points = W.dtype, jnp.dtype(COMPUTE[p.case.dtype])

    def f(x: Any, W: Any, a: Any, bias: Any) -> Any:
        return phi(x @ W.T + bias) @ a

    def weighted(weights: Any) -> Any:
        def total(*network: Any) -> Any:
            value = f(*network)
            return (weights * value).sum(), value

        return total

    def step(x: Any, origin: Any, grad: Any) -> Any:
        if FAMILIES[p.case.family].attack == "linf":
            return origin + jnp.clip(x + p.step * jnp.sign(grad) - origin, -p.radius, p.radius)
        delta = x + p.step * grad / jnp.linalg.norm(grad, axis=-1, keepdims=True) - origin
        return origin + delta * jnp.minimum(1, p.radius / jnp.linalg.norm(delta, axis=-1, keepdims=True))

    def attack(x0: Any, y: Any, W: Any, a: Any, bias: Any) -> Any:
        def loss(x: Any) -> Any:
            return -(y * f(x.astype(storage), W, a, bias).astype(points)).sum()

        return jax.lax.fori_loop(0, p.case.steps, lambda _, x: step(x, x0, jax.grad(loss)(x)), x0)

    def gradients(which: tuple[int, ...]) -> Any:
        return jax.value_and_grad(weighted(cotangent), which, has_aux=True)

    def trained(W: Any, iterations: int) -> Any:
        def iteration(_: int, W: Any) -> Any:
            attacked = attack(x, y, W, a, bias)
            loss = jax.grad(lambda W: jax.nn.softplus(-y * f(attacked, W, a, bias)).mean())
            return W - RATE * loss(W)

        return jax.lax.fori_loop(0, iterations, iteration, W)

    def unpack(result: Any) -> tuple[Tensor, ...]:
        arrays = result if isinstance(result, tuple) else (result,)
        return tuple(torch.from_numpy(jnp.asarray(one, jnp.float64).__array__().copy()) for one in arrays)

    family = p.case.family
    if family == "training":
        train = jax.jit(trained)
        return training.run(p, lambda count: jax.block_until_ready(train(W, count)), lambda new: unpack(new - W)[0], 1)
    network: tuple[Any, ...] = (x, W, a, bias)
    arguments = network
    if family in ATTACKS:
        compiled, arguments = jax.jit(attack), (x, y, W, a, bias)
    elif family == "l2_step":
        compiled, arguments = jax.jit(step), (x, origin, grad)
    elif family == "forward":
        compiled = jax.jit(f)
    elif family == "parameter_grad":
        compiled = jax.jit(lambda *net: gradients((1, 2, 3))(*net)[1])
    elif family == "value_and_grad":
        compiled = jax.jit(lambda *net: _value_first(jax.value_and_grad(weighted(1.0), (0,), has_aux=True)(*net)))
    else:
        compiled = jax.jit(lambda *net: _value_first(gradients((0, 1, 2))(*net)))

    return Run(lambda: jax.block_until_ready(compiled(*arguments)), unpack)


def _value_first(result: Any) -> tuple[Any, ...]:
    (_, value), gradients = result
    return (value, *gradients)


# ---- KeOps ----------------------------------------------------------------------------------------------------------


def _keops(p: Problem) -> Run:
    lazy = importlib.import_module("pykeops.torch").LazyTensor
    W, a = lazy(p.W[None, :, :].contiguous()), lazy(p.a.view(1, -1, 1).contiguous())

    def hidden(x: Tensor) -> Any:
        return (lazy(x[:, None, :].contiguous()) | W).relu()

    def forward() -> Tensor:
        result: Tensor = (hidden(p.x) * a).sum(dim=1)
        return result.squeeze(-1)

    def gradient(x: Tensor) -> Tensor:
        result: Tensor = ((hidden(x).sign() * a) * W).sum(dim=1)
        return result

    if p.case.family == "forward":
        return Run(forward)
    if p.case.family == "value_and_grad":
        return Run(lambda: (forward(), gradient(p.x)))
    y = p.y.unsqueeze(-1)
    return Run(lambda: eager.attack_loop(p, lambda x: gradient(x) * -y))


PROVIDERS = (
    Provider("compile", "torch.compile of the two matmuls, a step at a time", _compiled),
    Provider(
        "graph",
        "torch.compile and a CUDA graph of the whole attack, tf32 allowed",
        _graphed,
        ATTACKS,
        refuses=only(("float32",), device="cuda"),
        precision="tf32",
    ),
    Provider(
        "jax",
        "jax.jit of the whole call",
        _jax,
        EVERY_FAMILY - {"tracked"},
        requires=("jax",),
        refuses=only(device="cpu"),
    ),
    Provider(
        "keops",
        "pykeops lazy tensors (relu; tens of times slower than eager on CPU)",
        _keops,
        ATTACKS | {"forward", "value_and_grad"},
        requires=("pykeops",),
        refuses=only(("float32", "float64"), ("relu",)),
        default=False,
    ),
)
