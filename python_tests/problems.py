"""Sample inputs, shared by the tests of values, gradients, fakes and errors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

import benign_kernels as bk


@dataclass(frozen=True)
class Problem:
    """A network (or a batch of them), points, and a cotangent of the output."""

    x: Tensor
    W: Tensor
    a: Tensor
    bias: Tensor | None
    head_bias: Tensor | None
    cotangent: Tensor
    patches: int

    @property
    def network(self) -> dict[str, Any]:
        """The keyword arguments of `two_layer` next to x, W and a."""
        return {"bias": self.bias, "head_bias": self.head_bias, "patches": self.patches}

    @property
    def hidden(self) -> dict[str, Any]:
        """The same without the head bias, which no gradient depends on."""
        return {"bias": self.bias, "patches": self.patches}

    def tensors(self) -> dict[str, Tensor]:
        named = {name: getattr(self, name) for name in ("x", "W", "a", "bias", "head_bias", "cotangent")}
        return {name: t for name, t in named.items() if t is not None}

    def map(self, change: Any) -> Problem:
        return replace(self, **{name: change(t) for name, t in self.tensors().items()})

    def to(self, *args: Any) -> Problem:
        return self.map(lambda t: t.to(*args))

    def requires_grad(self) -> Problem:
        return self.map(lambda t: t.detach().clone().requires_grad_())


def make_problem(
    n: int | tuple[int, ...] = 5,
    d: int = 7,
    m: int = 11,
    *,
    patches: int = 1,
    heads: int | None = None,
    batch: tuple[int, ...] = (),
    shared: bool = False,
    bias: bool = True,
    head_bias: bool = True,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
    device: torch.device | str = "cpu",
) -> Problem:
    """Gaussian data, weights of size 1/sqrt(d), a head of size 1/sqrt(m): outputs of order one."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    rows = n if isinstance(n, tuple) else (n,)
    k = () if heads is None else (heads,)
    x_batch = () if shared else batch
    problem = Problem(
        x=normal(*x_batch, *rows, patches * d),
        W=normal(*batch, m, d) / max(d, 1) ** 0.5,
        a=normal(*batch, *k, m) / max(m, 1) ** 0.5,
        bias=normal(*batch, m) if bias else None,
        head_bias=normal(*batch, *k) if head_bias else None,
        cotangent=normal(*batch, *rows, *k),
        patches=patches,
    )
    return problem.to(device, dtype)


#: name → arguments of make_problem: ones, primes, nothing, batches, patches, heads, with and without biases.
SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "bare": {"bias": False, "head_bias": False},
    "one": {"n": 1, "d": 1, "m": 1},
    "vector": {"n": (), "d": 5, "m": 3},
    "rows": {"n": (2, 3), "d": 5, "m": 4},
    "primes": {"n": 37, "d": 67, "m": 131},
    "wide": {"n": 3, "d": 5, "m": 613},
    "deep": {"n": 3, "d": 523, "m": 17, "bias": False},
    "tall": {"n": 257, "d": 3, "m": 5},
    "patches": {"n": 5, "d": 6, "m": 9, "patches": 3},
    "heads": {"n": 5, "d": 6, "m": 9, "heads": 3},
    "one_head": {"n": 5, "d": 6, "m": 9, "heads": 1},
    "heads_patches": {"n": 7, "d": 5, "m": 10, "heads": 4, "patches": 2},
    "networks": {"batch": (3,), "n": 4, "d": 5, "m": 7},
    "networks_heads": {"batch": (2, 3), "n": 4, "d": 5, "m": 7, "heads": 2, "patches": 2},
    "shared": {"batch": (3,), "shared": True, "n": 4, "d": 5, "m": 7, "bias": False},
    "shared_heads": {"batch": (2, 2), "shared": True, "n": 4, "d": 5, "m": 7, "heads": 3},
    "no_samples": {"n": 0},
    "no_neurons": {"m": 0},
    "no_dimension": {"d": 0},
    "no_networks": {"batch": (0,)},
}
#: A few of them, for tests that multiply by other things.
SMALL_SHAPES = {
    name: SHAPES[name] for name in ("plain", "rows", "heads_patches", "networks_heads", "shared", "shared_heads")
}

every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())
small_shapes = pytest.mark.parametrize("shape", SMALL_SHAPES.values(), ids=SMALL_SHAPES.keys())


def functions(p: Problem, phi: Any) -> dict[str, tuple[Any, tuple[Any, ...]]]:
    """name → one of the three network ops as a function of its tensors alone, and those tensors."""

    def value(x, W, a, bias, head_bias):
        return bk.two_layer(x, W, a, bias=bias, head_bias=head_bias, activation=phi, patches=p.patches)

    def value_and_grad(x, W, a, bias, head_bias, r):
        keywords = {"bias": bias, "head_bias": head_bias, "activation": phi, "patches": p.patches}
        return bk.two_layer_value_and_grad(x, W, a, cotangent=r, **keywords)

    def parameter_grad(x, W, a, bias, r):
        return bk.two_layer_parameter_grad(x, W, a, bias=bias, cotangent=r, activation=phi, patches=p.patches)

    network = (p.x, p.W, p.a, p.bias, p.head_bias)
    return {
        "value": (value, network),
        "value_and_grad": (value_and_grad, (*network, p.cotangent)),
        "parameter_grad": (parameter_grad, (*network[:4], p.cotangent)),
    }


def labels(problem: Problem, loss: str = "margin") -> Tensor:
    """Labels of the kind that the network's head asks for."""
    f = problem.cotangent
    if loss == "squared":
        return 3 * f
    if problem.a.dim() == problem.W.dim() and problem.a.shape[-2] > 1:
        return f.argmin(-1)
    return (f[..., 0] if problem.a.dim() == problem.W.dim() else f).sign()


# ---- layouts: the same numbers, stored otherwise ---------------------------------------------------------------------


def transposed(t: Tensor) -> Tensor:
    """Strides of a transposed tensor."""
    return t.mT.contiguous().mT if t.dim() >= 2 else strided(t)


def strided(t: Tensor) -> Tensor:
    """Every second element of a larger tensor whose others are NaN."""
    wide = t.new_full((*t.shape, 2), float("nan"))
    wide[..., 0] = t
    return wide[..., 0]


def offset(t: Tensor) -> Tensor:
    """Beginning one element into its storage: not aligned to any vector."""
    flat = t.new_empty(t.numel() + 1)
    flat[1:] = t.flatten()
    return flat[1:].view(t.shape)


LAYOUTS = {"transposed": transposed, "strided": strided, "offset": offset}
