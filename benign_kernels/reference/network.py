"""Two-layer networks, their values and gradients."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ..activation import Activation, resolve


@dataclass
class Network:
    """f(x) = c + Σ_p Σ_j a_j φ(<w_j, x_p> + b_j) for points X (n, P, d)."""

    W: Tensor  # (m, d)
    a: Tensor  # (k, m)
    b: Tensor  # (m,)
    c: Tensor  # (k,)
    phi: Activation

    def preactivation(self, X: Tensor) -> Tensor:  # (n, P, m)
        return torch.einsum("npd,md->npm", X, self.W) + self.b

    def output(self, X: Tensor) -> Tensor:  # (n, k)
        return self.c + torch.einsum("npm,km->nk", self.phi.value(self.preactivation(X)), self.a)

    def gate(self, X: Tensor, R: Tensor) -> Tensor:
        """U_pj = φ'(h_pj) Σ_c R_c a_cj: the gradient of Σ R·f in neuron space, (n, P, m)."""
        return self.phi.first(self.preactivation(X)) * (R @ self.a)[:, None, :]

    def input_gradient(self, X: Tensor, R: Tensor) -> Tensor:  # (n, P, d)
        return self.gate(X, R) @ self.W

    def parameter_gradient(self, X: Tensor, R: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        U = self.gate(X, R)
        gW = torch.einsum("npm,npd->md", U, X)
        ga = torch.einsum("nk,npm->km", R, self.phi.value(self.preactivation(X)))
        return gW, ga, U.sum((0, 1))


def each_network(
    x: Tensor,
    W: Tensor,
    a: Tensor,
    bias: Tensor | None,
    head_bias: Tensor | None,
    activation: str | Activation,
    patches: int,
) -> Iterator[tuple[Tensor, Network]]:
    """Each network with its points (n, P, d)."""
    S, (m, d) = W.shape[:-2], W.shape[-2:]
    networks, rows = S.numel(), rows_of_each(x, W)
    heads = head_shape(W, a).numel()
    points = x.double().expand(*S, *x.shape[-2:]) if S else x.double()
    points = points.reshape(networks, rows, patches, d)
    b = W.new_zeros(networks, m, dtype=torch.float64) if bias is None else bias.double().reshape(networks, m)
    c = (
        W.new_zeros(networks, heads, dtype=torch.float64)
        if head_bias is None
        else head_bias.double().reshape(networks, heads)
    )
    W, a = W.double().reshape(networks, m, d), a.double().reshape(networks, heads, m)
    for i in range(networks):
        yield points[i], Network(W[i], a[i], b[i], c[i], resolve(activation))


def row_shape(x: Tensor, W: Tensor) -> torch.Size:
    """Of the results: one entry for each row of each network."""
    return W.shape[:-2] + x.shape[-2:-1] if W.dim() > 2 else x.shape[:-1]


def rows_of_each(x: Tensor, W: Tensor) -> int:
    return row_shape(x, W)[W.dim() - 2 :].numel()


def head_shape(W: Tensor, a: Tensor) -> torch.Size:
    return a.shape[-2:-1] if a.dim() == W.dim() else torch.Size()


def _stack(parts: list[Tensor], shape: torch.Size, like: Tensor) -> Tensor:
    return torch.stack(parts).reshape(shape) if parts else like.new_zeros(shape, dtype=torch.float64)


# ---- value and gradients ---------------------------------------------------------------------------------------------


def two_layer(
    x: Tensor,
    W: Tensor,
    a: Tensor,
    *,
    bias: Tensor | None = None,
    head_bias: Tensor | None = None,
    activation: str | Activation = "relu",
    patches: int = 1,
) -> Tensor:
    """f(x) = c + Σ_p Σ_j a_j φ(<w_j, x_p> + b_j)"""
    f = [net.output(X) for X, net in each_network(x, W, a, bias, head_bias, activation, patches)]
    return _stack(f, row_shape(x, W) + head_shape(W, a), x)


def two_layer_value_and_grad(
    x: Tensor,
    W: Tensor,
    a: Tensor,
    *,
    cotangent: Tensor | None = None,
    bias: Tensor | None = None,
    head_bias: Tensor | None = None,
    activation: str | Activation = "relu",
    patches: int = 1,
) -> tuple[Tensor, Tensor]:
    """f, and the gradient of Σ cotangent·f with respect to x (for each network its own, also where x is shared)."""
    rows, heads = row_shape(x, W), head_shape(W, a)
    R = W.new_ones(rows + heads, dtype=torch.float64) if cotangent is None else cotangent.double()
    networks = list(each_network(x, W, a, bias, head_bias, activation, patches))
    R = R.reshape(len(networks), rows_of_each(x, W), heads.numel())
    f = [net.output(X) for X, net in networks]
    g = [net.input_gradient(X, R[i]) for i, (X, net) in enumerate(networks)]
    return _stack(f, rows + heads, x), _stack(g, rows + x.shape[-1:], x)


def two_layer_parameter_grad(
    x: Tensor,
    W: Tensor,
    a: Tensor,
    *,
    cotangent: Tensor,
    bias: Tensor | None = None,
    activation: str | Activation = "relu",
    patches: int = 1,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of Σ cotangent·f with respect to W, a and bias."""
    networks = list(each_network(x, W, a, bias, None, activation, patches))
    R = cotangent.double().reshape(len(networks), rows_of_each(x, W), head_shape(W, a).numel())
    grads = [net.parameter_gradient(X, R[i]) for i, (X, net) in enumerate(networks)]
    gW, ga, gb = zip(*grads, strict=True) if grads else ([], [], [])
    return _stack(list(gW), W.shape, x), _stack(list(ga), a.shape, x), _stack(list(gb), W.shape[:-1], x)
