"""Where a training lives: the span of its points and first weights, and Gaussian mixtures drawn inside that span.

With gradient descent and ℓ2 attacks nothing ever leaves S = span(all patches of x, rows of W0): in an orthonormal basis
of S the same training has r ≤ n·P + m dimensions instead of d. For Gaussian clusters the coordinates in such a basis
have a known law, so that they are drawn without the d-dimensional points.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from ._arguments import integer, switch, tensor

__all__ = ["Mixture", "ReducedMixture", "Span", "reduce_to_span", "sample_mixture", "sample_reduced"]

_DTYPES = (torch.float32, torch.float64)


# ---- the span --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Span:
    """An orthonormal basis of a subspace of R^d, or one for each network.

    ``basis`` Q is (d, r), or (*S, d, r) for independent networks S; where their ranks differ, the smaller bases end in
    columns of zeros.

    >>> span = bk.reduce_to_span(torch.randn(4, 1000), torch.randn(3, 1000))
    >>> span.d, span.rank
    (1000, 7)
    """

    basis: Tensor

    @property
    def d(self) -> int:
        return self.basis.shape[-2]

    @property
    def rank(self) -> int:
        """r, the dimension of the span (the largest over the networks)."""
        return self.basis.shape[-1]

    def reduce(self, points: Tensor) -> Tensor:
        """The coordinates X Q, patch by patch: (..., P·d) → (..., P·r), with S in front where the basis has it.

        What is orthogonal to the span is dropped: no network whose weights lie in it can see that.
        """
        points = self._checked(points, self.d, "d")
        return self._each_patch(points, self.basis, self.d)

    def lift(self, coordinates: Tensor) -> Tensor:
        """C Qᵀ, the vectors with these coordinates: points (..., P·r) → (..., P·d), weights (m, r) → (m, d)."""
        coordinates = self._checked(coordinates, self.rank, "r")
        return self._each_patch(coordinates, self.basis.mT, self.rank)

    def residual(self, points: Tensor) -> Tensor:
        """‖x − Q Qᵀ x‖ over all patches, (...,): how far each point is from the span."""
        return torch.linalg.vector_norm(points - self.lift(self.reduce(points)), dim=-1)

    def _checked(self, vectors: Any, size: int, letter: str) -> Tensor:
        name = "points" if letter == "d" else "coordinates"
        vectors, networks = tensor(name, vectors), tuple(self.basis.shape[:-2])
        got = f"{name}: got shape {tuple(vectors.shape)}, expected"
        if not vectors.dim() or (vectors.shape[-1] % size if size else vectors.shape[-1]):
            raise ValueError(f"{got} (..., P·{letter}) with {letter}={size}")
        if networks and vectors.dim() > 2 and vectors.shape[:-2] != networks:
            raise ValueError(f"{got} (n, P·{letter}), or {networks} in front of it: one for each basis")
        return vectors.to(self.basis.dtype)

    def _each_patch(self, vectors: Tensor, matrix: Tensor, size: int) -> Tensor:
        with torch.autocast(matrix.device.type, enabled=False):
            return self._product(vectors, matrix, size)

    def _product(self, vectors: Tensor, matrix: Tensor, size: int) -> Tensor:
        patches = vectors.shape[-1] // size if size else 1
        if matrix.dim() == 2:
            moved = vectors.reshape(*vectors.shape[:-1], patches, size) @ matrix
            return moved.reshape(*vectors.shape[:-1], patches * matrix.shape[-1])
        rows = vectors.shape[-2:-1] if vectors.dim() > 1 else torch.Size([1])
        vectors = vectors.reshape(*vectors.shape[:-2], rows[0] * patches, size) if vectors.dim() > 1 else vectors[None]
        return (vectors @ matrix).reshape(*matrix.shape[:-2], *rows, patches * matrix.shape[-1])


def reduce_to_span(x: Tensor, W: Tensor, *directions: Tensor) -> Span:
    r"""An orthonormal basis of S = span(all patches of x, rows of W, the directions).

    .. math:: S = \mathrm{span}\{x_{i,p}\} + \mathrm{span}\{w_j\} + \mathrm{span}\{v\}, \qquad
              r = \dim S \le \min(d,\ nP + m + \text{directions})

    Args:
        x: (n, P·d) points, shared by all networks, or (*S, n, P·d); how many patches P they have, W's d tells.
        W: (*S, m, d) weights of independent networks S (usually none: (m, d)).
        directions: vectors (d,) or (j, d) that shall lie in the span, too.

    The basis is computed in float64 and returned in W's dtype. Its rank is exact: equal and dependent rows (duplicates,
    paired neurons) count once; dependence is told at max(N, d)·2⁻⁵² of the largest singular value of the N unit rows.

    >>> x, W = torch.randn(20, 3000), torch.randn(10, 3000)
    >>> span = bk.reduce_to_span(x, W)
    >>> f = bk.two_layer(span.reduce(x), span.reduce(W), torch.ones(10))
    >>> span.rank, torch.allclose(f, bk.two_layer(x, W, torch.ones(10)), rtol=1e-4, atol=1e-2)
    (30, True)
    """
    x, W = tensor("x", x), tensor("W", W)
    if W.dim() < 2 or not W.is_floating_point():
        raise ValueError(f"W: got {W.dtype} of shape {tuple(W.shape)}, expected (m, d) or (networks..., m, d)")
    networks, d = W.shape[:-2], W.shape[-1]
    if x.dim() not in (2, W.dim()) or (x.shape[-1] % d if d else x.shape[-1]):
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected (n, P·d) or (networks..., n, P·d) with d={d}")
    if x.dim() > 2 and x.shape[:-2] != networks:
        raise ValueError(f"x: got shape {tuple(x.shape)}, expected {(*networks, 'n', 'P·d')} or one shared (n, P·d)")
    extra = [_direction(v, d) for v in directions]

    def rows(points: Tensor, weights: Tensor) -> Tensor:
        return torch.cat([t.reshape(-1, d).to(W.device, torch.float64) for t in (points, weights, *extra)])

    shared = x.dim() == 2 and (not networks or (W.numel() > 0 and bool((W[(0,) * len(networks)] == W).all())))
    if shared:  # one basis serves all
        return Span(_orthonormal(rows(x, W[(0,) * len(networks)])).to(W.dtype))
    points = x.expand(*networks, *x.shape[-2:]).reshape(-1, *x.shape[-2:])
    bases = [_orthonormal(rows(p, w)) for p, w in zip(points, W.reshape(-1, *W.shape[-2:]), strict=True)]
    basis = W.new_zeros(len(bases), d, max((q.shape[1] for q in bases), default=0))
    for i, q in enumerate(bases):
        basis[i, :, : q.shape[1]] = q
    return Span(basis.reshape(*networks, *basis.shape[-2:]))


def _direction(v: Any, d: int) -> Tensor:
    v = tensor("directions", v)
    if v.dim() not in (1, 2) or v.shape[-1] != d:
        raise ValueError(f"directions: got shape {tuple(v.shape)}, expected ({d},) or (j, {d})")
    return v


def _orthonormal(rows: Tensor) -> Tensor:
    """Q (d, r) of the rows (N, d), in float64. Raises for rows that are not finite."""
    if not bool(rows.isfinite().all()):
        raise ValueError("x, W: got values that are not finite, expected finite ones, which span a subspace")
    size = rows.abs().amax(1, keepdim=True) if rows.numel() else rows[:, :1]
    rows = (rows / size)[size[:, 0] > 0]
    rows = _distinct(rows / torch.linalg.vector_norm(rows, dim=1, keepdim=True))
    if not rows.numel():
        return rows.new_zeros(rows.shape[1], 0)
    q, triangle = torch.linalg.qr(rows.mT)
    noise = max(rows.shape) * torch.finfo(torch.float64).eps
    if bool((triangle.diagonal().abs() > noise * math.sqrt(len(rows))).all()):
        return q
    left, values, _ = torch.linalg.svd(triangle, full_matrices=False)
    return q @ left[:, values > noise * values[0]]


def _distinct(rows: Tensor) -> Tensor:
    """Without rows that repeat an earlier one: a third less of them costs half the work, and keeps the rank plain."""
    weights = torch.rand(rows.shape[1], generator=torch.Generator().manual_seed(0), dtype=rows.dtype).to(rows.device)
    key, order = (rows * weights).sum(1).sort(stable=True)
    ordered = rows[order]
    same = (key[1:] == key[:-1]) & (ordered[1:] == ordered[:-1]).all(1)
    first = ~torch.cat([same.new_zeros(min(1, len(rows))), same])
    return rows[order[first].sort().values]


# ---- Gaussian mixtures -----------------------------------------------------------------------------------------------


class Mixture(NamedTuple):
    """Samples of `sample_mixture`: x (*S, n, d); y (*S, n), observed labels ±1; clean (*S, n), labels before flips."""

    x: Tensor
    y: Tensor
    clean: Tensor


def sample_mixture(
    n: int,
    d: int,
    signal: float | Tensor,
    *,
    flip: float = 0.0,
    noise: float = 1.0,
    networks: int | Sequence[int] = (),
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> Mixture:
    r"""Two Gaussian clusters around ±μ, with label noise.

    .. math:: x = \tilde y\, \mu + \sigma\, \xi, \qquad \xi \sim N(0, I_d),\quad \tilde y = \pm 1,\quad
              P(y \ne \tilde y) = \beta

    Args:
        n, d: how many samples, of how many dimensions.
        signal: ‖μ‖, with μ along the first axis; or μ itself, (d,).
        flip: β, the share of labels that are flipped, in [0, 1].
        noise: σ ≥ 0.
        networks: S, the shape of a batch of independent data sets, or their number.
        generator: torch's global generator if None.

    >>> x, y, clean = bk.sample_mixture(100, 5000, signal=7.0, flip=0.1)
    >>> x.shape, y.shape, bool((y.abs() == 1).all())
    (torch.Size([100, 5000]), torch.Size([100]), True)
    """
    n, d, S = integer("n", n, 0), integer("d", d, 1), _sizes("networks", networks)
    flip, noise, draw = _share(flip), _size("noise", noise), _Draws(S, generator, dtype)
    if isinstance(signal, Tensor):
        mean = tensor("signal", signal).to(torch.float64)
        if mean.shape != (d,):
            raise ValueError(f"signal: got shape {tuple(mean.shape)}, expected a number or ({d},)")
    else:
        mean = torch.zeros(d, dtype=torch.float64)
        mean[0] = _size("signal", signal)
    y, clean = draw.labels(n, flip)
    x = torch.randn(*S, n, d, generator=generator, dtype=dtype) * noise
    return Mixture(x + clean.unsqueeze(-1) * mean.to(dtype), y, clean)


@dataclass(frozen=True)
class ReducedMixture:
    """Samples of `sample_reduced`: coordinates in an orthonormal basis of span{μ, x, W}, whose first vector is μ/‖μ‖.

    ``x`` (*S, n, r), ``y``, ``clean`` (*S, n): training points, observed labels, labels before flips. ``W`` (*S, m, r):
    first weights. ``test_x`` (*S, tests, r), ``test_y``, ``test_clean``: fresh points' coordinates in the same span;
    ``test_residual`` (*S, tests): the norm of what they have outside of it, which no network in the span can see.
    ``d``: the dimension they stand for.
    """

    x: Tensor
    y: Tensor
    clean: Tensor
    W: Tensor
    test_x: Tensor
    test_y: Tensor
    test_clean: Tensor
    test_residual: Tensor
    d: int

    @property
    def rank(self) -> int:
        """r, min(d, 1 + n + m), or with pairs min(d, 1 + n + m/2)."""
        return self.x.shape[-1]


def sample_reduced(
    n: int,
    d: int,
    signal: float,
    *,
    m: int,
    init: float | None = None,
    paired: bool = False,
    tests: int = 0,
    flip: float = 0.0,
    noise: float = 1.0,
    networks: int | Sequence[int] = (),
    generator: torch.Generator | None = None,
    dtype: torch.dtype = torch.float32,
) -> ReducedMixture:
    r"""What `sample_mixture` and a Gaussian W would give in the span of μ, x and W, drawn there: d costs nothing.

    Exact in law; from one generator's state the data are the same for all m. The first coordinate is the one along μ;
    the others of the n + m noise vectors are the rows of a Bartlett factor, lower triangular:

    .. math:: L_{ii} \sim \chi_{d-1-i},\qquad L_{ij} \sim N(0, 1)\ (j < i), \qquad i = 0, \dots, n + m - 1

    Args:
        n, d: how many training points; their dimension, up to 10¹².
        signal: ‖μ‖ ≥ 0.
        m: rows of W, N(0, init²) each; init is 1/√d if None.
        paired: the second half of the rows repeats the first.
        tests: how many fresh points from the same clusters.
        flip, noise, networks, generator: as in `sample_mixture`.

    >>> sample = bk.sample_reduced(20, 10**12, signal=1e4, m=8, paired=True, tests=50)
    >>> sample.x.shape, sample.W.shape, sample.test_x.shape
    (torch.Size([20, 25]), torch.Size([8, 25]), torch.Size([50, 25]))
    """
    n, d, m, tests = integer("n", n, 0), integer("d", d, 1), integer("m", m, 0), integer("tests", tests, 0)
    S, flip = _sizes("networks", networks), _share(flip)
    signal, noise = _size("signal", signal), _size("noise", noise)
    init = 1 / math.sqrt(d) if init is None else _size("init", init)
    if switch("paired", paired) and m % 2:
        raise ValueError(f"paired: needs an even number of neurons, got m={m}")
    draw = _Draws(S, generator, dtype)
    distinct = m // 2 if paired else m
    y, clean = draw.labels(n, flip)
    test_y, test_clean = draw.labels(tests, flip)
    # First what does not depend on W, and of that what depends on d last: so are the data alike for all m, and nearly
    # so for all d.
    seen, rank = 1 + min(n, d - 1), 1 + min(n + distinct, d - 1)
    freedom = d - 1 - torch.arange(rank - 1, dtype=torch.float64)
    points, fresh, lengths = draw.normal(n, seen), draw.normal(tests, seen), draw.chi(freedom[: seen - 1])
    weights, further = draw.normal(distinct, rank), draw.normal(tests, rank - seen)
    lengths = torch.cat([lengths, draw.chi(freedom[seen - 1 :])], -1)
    vectors = _bartlett(torch.cat([pad(points, (0, rank - seen)), weights], -2), lengths)

    def around(noise_vectors: Tensor, clean: Tensor) -> Tensor:
        points = noise * noise_vectors
        points[..., 0] += signal * clean.double()
        return points.to(dtype)

    W = (init * vectors[..., n:, :]).to(dtype)
    outside = draw.chi(torch.full((tests,), float(d - rank), dtype=torch.float64))
    return ReducedMixture(
        x=around(vectors[..., :n, :], clean),
        y=y,
        clean=clean,
        W=torch.cat([W, W], -2) if paired else W,
        test_x=around(torch.cat([fresh, further], -1), test_clean),
        test_y=test_y,
        test_clean=test_clean,
        test_residual=(noise * outside).to(dtype),
        d=d,
    )


class _Draws:
    """Random numbers for independent data sets S; float64, but for the labels."""

    def __init__(self, S: tuple[int, ...], generator: torch.Generator | None, dtype: torch.dtype) -> None:
        if generator is not None and not isinstance(generator, torch.Generator):
            raise TypeError(f"generator: got {type(generator).__name__}, expected a torch.Generator or None")
        if dtype not in _DTYPES:
            raise TypeError(f"dtype: got {dtype}, expected torch.float32 or torch.float64")
        self.S, self.generator, self.dtype = S, generator, dtype

    def labels(self, n: int, flip: float) -> tuple[Tensor, Tensor]:
        """Observed, and before flips."""
        clean = torch.randint(0, 2, (*self.S, n), generator=self.generator).to(self.dtype) * 2 - 1
        flipped = torch.rand(*self.S, n, generator=self.generator, dtype=torch.float64) < flip
        return torch.where(flipped, -clean, clean), clean

    def normal(self, *shape: int) -> Tensor:
        return torch.randn(*self.S, *shape, generator=self.generator, dtype=torch.float64)

    def chi(self, freedom: Tensor) -> Tensor:
        """(*S, *freedom.shape) norms of standard normal vectors of so many dimensions; 0 for none."""
        shape = freedom.expand(*self.S, *freedom.shape)
        gamma = torch._standard_gamma(shape.clamp(min=1) / 2, generator=self.generator)
        return torch.where(shape > 0, (2 * gamma).sqrt(), 0.0)


def _bartlett(normal: Tensor, lengths: Tensor) -> Tensor:
    """(*S, count, r) standard normal vectors of R^d: first along a given axis, then in the basis they span.

    ``normal``: as many standard normal numbers, unused on and above the diagonal of that basis; ``lengths``: what is
    there on it.
    """
    below = normal[..., 1:].tril(-1)
    i = torch.arange(lengths.shape[-1])
    below[..., i, i] = lengths
    return torch.cat([normal[..., :1], below], -1)


def _sizes(name: str, value: int | Sequence[int]) -> tuple[int, ...]:
    sizes = value if isinstance(value, Iterable) else (value,)
    return tuple(integer(name, size, 0) for size in sizes)


def _size(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name}: got {type(value).__name__}, expected a number")
    if not 0 <= value < math.inf:
        raise ValueError(f"{name}: got {value}, expected a finite number ≥ 0")
    return float(value)


def _share(value: Any) -> float:
    if _size("flip", value) > 1:
        raise ValueError(f"flip: got {value}, expected a share between 0 and 1")
    return float(value)
