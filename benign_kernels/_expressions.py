"""The network and its derivatives of first and second order as torch expressions.

These form the n×P×m matrices that the kernels never store. Each is a formula that torch differentiates again, so that
derivatives of any order follow. Only double backward and forward mode come here, and what dynamo traces inside a
transform of torch.func: there it looks through our functions at the native op, which has no derivative of its own.

    H = X Wᵀ + b,   R the cotangent of f,   Q = R A,   U = Q∘φ'(H)
    f = Σ_p φ(H) Aᵀ + c,   gx = U W,   gW = Uᵀ X,   ga = Rᵀ Σ_p φ(H),   gb = Σ U
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .activation import from_native


class Native(NamedTuple):
    """The arguments of the ops that are not tensors."""

    activation: str
    alpha: float
    beta: float
    patches: int


class Gradients(NamedTuple):
    """Of a number with respect to the inputs of a gradient op; None where it does not depend on one."""

    x: Tensor | None
    W: Tensor | None
    a: Tensor | None
    bias: Tensor | None
    cotangent: Tensor | None


class Hidden:
    """The pre-activations H of points x and what follows from them.

    Inside, everything has the shape of networks (*S), rows n, patches P, and heads k: X (*S, n, P, d), H (*S, n, P, m),
    A (*S, k, m), R (*S, n, k). Where S is empty, all leading dimensions of x are flattened into n; where x is shared by
    the networks, X is (n, P, d).
    """

    def __init__(self, x: Tensor, W: Tensor, a: Tensor, bias: Tensor | None, native: Native):
        self.phi = from_native(native.activation, native.alpha, native.beta)
        self.batched = W.dim() > 2
        self.has_heads = a.dim() == W.dim()
        self.x_shape, self.patches, self.dtype = x.shape, native.patches, x.dtype
        self.row_shape = W.shape[:-2] + x.shape[-2:-1] if self.batched else x.shape[:-1]
        self.X, self.W, self.A = self.points(x), _wide(W), self.head(a)
        self.H = self.project(self.X, self.W, None if bias is None else _wide(bias))

    # ---- into and out of the inner shapes ----

    def points(self, x: Tensor) -> Tensor:
        d = self.x_shape[-1] // self.patches
        rows = self.x_shape[:-1] if self.batched else (math.prod(self.x_shape[:-1]),)
        return _wide(x).reshape(*rows, self.patches, d)

    def points_of_networks(self, x: Tensor) -> Tensor:
        """As ``points``, for an array that has its own rows for each network also where x is shared."""
        rows = self.row_shape if self.batched else (math.prod(self.row_shape),)
        return _wide(x).reshape(*rows, self.patches, self.x_shape[-1] // self.patches)

    def head(self, a: Tensor) -> Tensor:
        return _wide(a if self.has_heads else a.unsqueeze(-2))

    def outputs(self, f: Tensor) -> Tensor:
        f = f if self.has_heads else f.unsqueeze(-1)
        return _wide(f if self.batched else f.reshape(math.prod(self.row_shape), f.shape[-1]))

    def as_points(self, X: Tensor) -> Tensor:
        """(*S, n, P, d) as x has it; summed over the networks where x is shared."""
        X = X.reshape(*self.row_shape, self.x_shape[-1])
        return X.sum_to_size(self.x_shape).to(self.dtype)

    def as_points_of_networks(self, X: Tensor) -> Tensor:
        return X.reshape(*self.row_shape, self.x_shape[-1]).to(self.dtype)

    def as_head(self, A: Tensor) -> Tensor:
        return (A if self.has_heads else A.squeeze(-2)).to(self.dtype)

    def as_outputs(self, F: Tensor) -> Tensor:
        return F.reshape((*self.row_shape, *(F.shape[-1:] if self.has_heads else ()))).to(self.dtype)

    # ---- the pieces of the formulas ----

    @staticmethod
    def project(X: Tensor, W: Tensor, bias: Tensor | None) -> Tensor:
        """X Wᵀ + b"""
        H = torch.einsum("...npd,...md->...npm", X, W)
        return H if bias is None else H + bias.unsqueeze(-2).unsqueeze(-2)

    def value(self) -> Tensor:
        return self.phi.value(self.H)

    def first(self) -> Tensor:
        return self.phi.first(self.H)

    def second(self) -> Tensor:
        return self.phi.second(self.H)

    def movement(self, x: Tensor | None, W: Tensor | None, bias: Tensor | None) -> Tensor:
        """H' = x Wᵀ + X Wᵀ + b for a movement of each: x in inner shape, W and b as they are."""
        moved = torch.zeros_like(self.H)
        if x is not None:
            moved = moved + self.project(x, self.W, None)
        if W is not None:
            moved = moved + self.project(self.X, _wide(W), None)
        if bias is not None:
            moved = moved + _wide(bias).unsqueeze(-2).unsqueeze(-2)
        return moved


def _wide(t: Tensor) -> Tensor:
    return t.float() if t.dtype == torch.bfloat16 else t


def _spread(R: Tensor, A: Tensor) -> Tensor:
    """R A, the same for all patches: (*S, n, 1, m)"""
    return (R @ A).unsqueeze(-2)


def _heads(R: Tensor, Z: Tensor) -> Tensor:
    """Rᵀ Σ_p Z: (*S, k, m)"""
    return torch.einsum("...nk,...npm->...km", R, Z)


def _weights(U: Tensor, X: Tensor) -> Tensor:
    """Uᵀ X: (*S, m, d)"""
    return torch.einsum("...npm,...npd->...md", U, X)


def value(hidden: Hidden, head_bias: Tensor | None) -> Tensor:
    """f = Σ_p φ(H) Aᵀ + c"""
    f = hidden.value().sum(-2) @ hidden.A.mT
    if head_bias is not None:
        f = f + _wide(head_bias if hidden.has_heads else head_bias.unsqueeze(-1)).unsqueeze(-2)
    return hidden.as_outputs(f)


def input_gradient(hidden: Hidden, cotangent: Tensor) -> Tensor:
    """gx = U W"""
    U = _spread(hidden.outputs(cotangent), hidden.A) * hidden.first()
    return hidden.as_points_of_networks(torch.einsum("...npm,...md->...npd", U, hidden.W))


def parameter_gradient(hidden: Hidden, cotangent: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """gW = Uᵀ X,  ga = Rᵀ Σ_p φ(H),  gb = Σ U"""
    R = hidden.outputs(cotangent)
    U = _spread(R, hidden.A) * hidden.first()
    gW = _weights(U, hidden.X).to(hidden.dtype)
    return gW, hidden.as_head(_heads(R, hidden.value())), U.sum((-3, -2)).to(hidden.dtype)


def ones_like_outputs(hidden: Hidden) -> Tensor:
    heads = hidden.A.shape[-2:-1] if hidden.has_heads else ()
    return hidden.H.new_ones((*hidden.row_shape, *heads))


def double_backward(
    hidden: Hidden, cotangent: Tensor, gx: Tensor | None, gW: Tensor | None, ga: Tensor | None, gb: Tensor | None
) -> Gradients:
    """The gradients of Σ of the first-order gradients, each times its own cotangent (None for zero).

    With H' = gx Wᵀ + X gWᵀ + gb and T = Q∘φ''(H)∘H' + (R ga)∘φ'(H):
    x̄ = T W + U gW,  W̄ = Tᵀ X + Uᵀ gx,  ā = Rᵀ Σ_p φ'(H)∘H',  b̄ = Σ T,  R̄ = Σ_p (φ'(H)∘H') Aᵀ + φ(H) gaᵀ
    """
    R = hidden.outputs(cotangent)
    Q = _spread(R, hidden.A)
    first = hidden.first()
    U = Q * first
    points = None if gx is None else hidden.points_of_networks(gx)
    moved = hidden.movement(points, gW, gb)
    gated = first * moved
    T = Q * hidden.second() * moved
    r_bar = gated.sum(-2) @ hidden.A.mT
    if ga is not None:
        head = hidden.head(ga)
        T = T + _spread(R, head) * first
        r_bar = r_bar + hidden.value().sum(-2) @ head.mT
    x_bar = torch.einsum("...npm,...md->...npd", T, hidden.W)
    w_bar = _weights(T, hidden.X)
    if gW is not None:
        x_bar = x_bar + torch.einsum("...npm,...md->...npd", U, _wide(gW))
    if points is not None:
        w_bar = w_bar + _weights(U, points)
    return Gradients(
        hidden.as_points(x_bar),
        w_bar.to(hidden.dtype),
        hidden.as_head(_heads(R, gated)),
        T.sum((-3, -2)).to(hidden.dtype),
        hidden.as_outputs(r_bar),
    )


class Movement(NamedTuple):
    """Tangents of the inputs; None for zero."""

    x: Tensor | None
    W: Tensor | None
    a: Tensor | None
    bias: Tensor | None


def value_movement(hidden: Hidden, moved: Movement, head_bias: Tensor | None) -> Tensor:
    """f' = Σ_p (φ'(H)∘H') Aᵀ + φ(H) A'ᵀ + c'"""
    f = (hidden.first() * _hidden_movement(hidden, moved)).sum(-2) @ hidden.A.mT
    if moved.a is not None:
        f = f + hidden.value().sum(-2) @ hidden.head(moved.a).mT
    if head_bias is not None:
        f = f + _wide(head_bias if hidden.has_heads else head_bias.unsqueeze(-1)).unsqueeze(-2)
    return hidden.as_outputs(f)


def input_gradient_movement(hidden: Hidden, moved: Movement, R: Tensor, dR: Tensor | None) -> Tensor:
    """gx' = U' W + U W'"""
    U, dU, _, _ = _gate_movement(hidden, moved, R, dR)
    gx = torch.einsum("...npm,...md->...npd", dU, hidden.W)
    if moved.W is not None:
        gx = gx + torch.einsum("...npm,...md->...npd", U, _wide(moved.W))
    return hidden.as_points_of_networks(gx)


def parameter_gradient_movement(
    hidden: Hidden, moved: Movement, R: Tensor, dR: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """gW' = U'ᵀ X + Uᵀ X',  ga' = R'ᵀ Σ_p φ(H) + Rᵀ Σ_p φ'(H)∘H',  gb' = Σ U'"""
    U, dU, R, dR = _gate_movement(hidden, moved, R, dR)
    gW = _weights(dU, hidden.X)
    if moved.x is not None:
        gW = gW + _weights(U, hidden.points(moved.x))
    ga = _heads(R, hidden.first() * _hidden_movement(hidden, moved))
    if dR is not None:
        ga = ga + _heads(dR, hidden.value())
    return gW.to(hidden.dtype), hidden.as_head(ga), dU.sum((-3, -2)).to(hidden.dtype)


def _hidden_movement(hidden: Hidden, moved: Movement) -> Tensor:
    x = None if moved.x is None else hidden.points(moved.x)
    return hidden.movement(x, moved.W, moved.bias)


def _gate_movement(
    hidden: Hidden, moved: Movement, R: Tensor, dR: Tensor | None
) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    """U, U' = (R' A + R A')∘φ'(H) + Q∘φ''(H)∘H', and R, R' in inner shape"""
    R, dR = hidden.outputs(R), None if dR is None else hidden.outputs(dR)
    Q, first = _spread(R, hidden.A), hidden.first()
    dU = Q * hidden.second() * _hidden_movement(hidden, moved)
    if dR is not None:
        dU = dU + _spread(dR, hidden.A) * first
    if moved.a is not None:
        dU = dU + _spread(R, hidden.head(moved.a)) * first
    return Q * first, dU, R, dR
