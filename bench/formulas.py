"""The eager expressions that the ops replace, and their float64 values: what every provider is checked against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.cases import COMPUTE, FAMILIES, Case

VALUE: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": torch.relu,
    "leaky_relu": F.leaky_relu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "softplus": F.softplus,
    "silu": F.silu,
}
#: φ'(H) as the user of two matmuls writes it.
FIRST: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": lambda H: (H > 0).to(H.dtype),
    "leaky_relu": lambda H: torch.where(H > 0, 1.0, 0.01).to(H.dtype),
    "tanh": lambda H: 1 - torch.tanh(H).square(),
    "sigmoid": lambda H: torch.sigmoid(H) * (1 - torch.sigmoid(H)),
    "softplus": torch.sigmoid,
    "silu": lambda H: torch.sigmoid(H) * (1 + H * (1 - torch.sigmoid(H))),
}

#: Of the median row, relative; the root mean square over all rows may be _RARE times that: a gate whose h rounds to the
#: other side of a kink changes its row by more than rounding does, and is no error.  float32 sums of 10⁴ products err
#: by some 1e-5; bfloat16 holds 8 bits, tf32 11.
TOLERANCE = {"float64": 1e-9, "float32": 5e-4, "tf32": 1e-2, "bfloat16": 3e-2}
_RARE = 20
#: The rows of an attack are independent: so many are checked, or the reference would take longer than all providers.
_CHECKED_ROWS = 48


@dataclass(frozen=True)
class Problem:
    """One case's tensors, the same for every provider; attacks have radius 1 and, as a step, a tenth of it."""

    case: Case
    x: Tensor
    y: Tensor
    W: Tensor
    a: Tensor
    bias: Tensor | None
    cotangent: Tensor
    origin: Tensor
    grad: Tensor
    radius: float = 1.0
    step: float = 0.1


def make_problem(case: Case, device: str = "cpu") -> Problem:
    """Gaussian data and first layer, |h| ~ 1, a head of ±1/√m: f, its gradient and the radius are all of order 1."""
    generator = torch.Generator().manual_seed(case.seed)
    family = FAMILIES[case.family]
    storage, compute = getattr(torch, case.dtype), getattr(torch, COMPUTE[case.dtype])

    def draw(*shape: int, dtype: torch.dtype = storage, scale: float = 1.0) -> Tensor:
        return (torch.randn(*shape, generator=generator) * scale).to(device, dtype)

    def sign(count: int, dtype: torch.dtype, scale: float = 1.0) -> Tensor:
        return ((torch.randint(2, (count,), generator=generator) * 2 - 1) * scale).to(device, dtype)

    n, d, m, networks = case.n, case.d, case.m, [case.networks] if case.networks > 1 else []
    points = compute if family.attack else storage
    origin = draw(n, d, dtype=points)
    return Problem(
        case,
        # For the step op: half of the rows already at the sphere, so that projecting them is part of the work.
        x=origin + draw(n, d, dtype=points, scale=d**-0.5) if case.family == "l2_step" else origin,
        y=sign(n, points),
        W=draw(*networks, m, d, scale=d**-0.5),
        a=sign(m, storage, scale=max(1, m) ** -0.5).expand(*networks, m),
        bias=draw(m, scale=0.1) if family.biased else None,
        cotangent=draw(n),
        origin=origin,
        grad=draw(n, d, dtype=points),
    )


def hidden(x: Tensor, W: Tensor, bias: Tensor | None) -> Tensor:
    H = x @ W.T
    return H if bias is None else H + bias


def l2_step(x: Tensor, origin: Tensor, grad: Tensor, step: float, radius: float) -> Tensor:
    delta = x + step * grad / grad.norm(dim=-1, keepdim=True) - origin
    return origin + delta * (radius / delta.norm(dim=-1, keepdim=True)).clamp(max=1)


def linf_step(x: Tensor, origin: Tensor, grad: Tensor, step: float, radius: float) -> Tensor:
    return origin + (x + step * grad.sign() - origin).clamp(-radius, radius)


STEP = {"l2": l2_step, "linf": linf_step}


def analytic_gradient(x: Tensor, W: Tensor, a: Tensor, bias: Tensor | None, r: Tensor, activation: str) -> Tensor:
    """(φ'(H) ∘ r aᵀ) W: the input gradient of Σ r·f."""
    return (FIRST[activation](hidden(x, W, bias)) * (r.unsqueeze(-1) * a)) @ W


# ---- training: PGD from every sample, then gradient descent on the logistic loss at what it found --------------------

RATE = 0.1
#: Of the check: later on gates near a kink make paths differ by more than rounding does.
CHECKED_ITERATIONS = 3


def first_network(p: Problem) -> tuple[Tensor, Tensor]:
    return (p.W, p.a) if p.W.dim() == 2 else (p.W[0], p.a[0])


@dataclass(frozen=True)
class TrainingSteps:
    """The two functions that a plain loop alternates; a compiler may replace them."""

    attack: Callable[[Tensor, Tensor], Tensor]
    descend: Callable[[Tensor, Tensor], Tensor]


def training_steps(p: Problem) -> TrainingSteps:
    a, act = first_network(p)[1], p.case.activation

    def attack(x: Tensor, W: Tensor) -> Tensor:
        return l2_step(x, p.x, analytic_gradient(x, W, a, None, -p.y, act), p.step, p.radius)

    def descend(x: Tensor, W: Tensor) -> Tensor:
        H = x @ W.T
        r = -p.y * torch.sigmoid(-p.y * (VALUE[act](H) @ a)) / len(x)
        return W - RATE * (FIRST[act](H) * (r.unsqueeze(-1) * a)).T @ x

    return TrainingSteps(attack, descend)


def train(p: Problem, steps: TrainingSteps, W: Tensor, iterations: int) -> Tensor:
    for _ in range(iterations):
        x = p.x
        for _ in range(p.case.steps):
            x = steps.attack(x, W)
        W = steps.descend(x, W)
    return W


def movement(p: Problem, steps: TrainingSteps) -> Tensor:
    """W − W0 after the iterations that are checked."""
    W = first_network(p)[0]
    return train(p, steps, W, CHECKED_ITERATIONS) - W


# ---- the float64 values ----------------------------------------------------------------------------------------------


class Oracle:
    """A case's float64 values, computed once, and how far a provider's results are from them."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.attack = FAMILIES[problem.case.family].attack
        x, y, W, a, cotangent, origin, grad = (
            tensor.double()
            for tensor in (
                *(problem.x, problem.y, problem.W, problem.a),
                *(problem.cotangent, problem.origin, problem.grad),
            )
        )
        self.network = (W, a, None if problem.bias is None else problem.bias.double())
        if self.attack:
            count = min(problem.case.n, _CHECKED_ROWS)
            self.rows = torch.linspace(0, problem.case.n - 1, count, device=x.device).long()
            self.y = y[self.rows]
            self.before = self._margin(x[self.rows])
            self.after = self._margin(self._attacked(x[self.rows]))
        elif problem.case.family == "l2_step":
            self.expected: tuple[Tensor, ...] = (l2_step(x, origin, grad, problem.step, problem.radius),)
        elif problem.case.family == "training":
            precise = replace(problem, x=x, y=y, W=W, a=a)
            self.expected = (movement(precise, training_steps(precise)),)
        else:
            self.expected = self._gradients(x, cotangent)

    def _chunks(self) -> list[tuple[Tensor, Tensor, Tensor | None]]:
        """The network in blocks of neurons: a float64 n×m matrix need not fit."""
        W, a, bias = self.network
        size = max(1, 2**25 // self.problem.case.n)
        biases = [None] * len(W.split(size)) if bias is None else list(bias.split(size))
        return list(zip(W.split(size), a.split(size), biases, strict=True))

    def _forward(self, x: Tensor) -> Tensor:
        activation = VALUE[self.problem.case.activation]
        return torch.stack([activation(hidden(x, W, b)) @ a for W, a, b in self._chunks()]).sum(0)

    def _input_gradient(self, x: Tensor, r: Tensor) -> Tensor:
        activation = self.problem.case.activation
        return torch.stack([analytic_gradient(x, W, a, b, r, activation) for W, a, b in self._chunks()]).sum(0)

    def _margin(self, x: Tensor) -> Tensor:
        return self.y * self._forward(x)

    def _attacked(self, x0: Tensor) -> Tensor:
        x, step = x0, STEP[self.attack or ""]
        for _ in range(self.problem.case.steps):
            x = step(x, x0, self._input_gradient(x, -self.y), self.problem.step, self.problem.radius)
        return x

    def _parameter_gradients(self, x: Tensor, r: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        activation, parts = self.problem.case.activation, []
        for W, a, b in self._chunks():
            H = hidden(x, W, b)
            U = FIRST[activation](H) * (r.unsqueeze(-1) * a)
            parts.append((U.T @ x, VALUE[activation](H).T @ r, U.sum(0)))
        gw, ga, gb = (torch.cat(part) for part in zip(*parts, strict=True))
        return gw, ga, gb

    def _gradients(self, x: Tensor, cotangent: Tensor) -> tuple[Tensor, ...]:
        family, ones = self.problem.case.family, torch.ones_like(cotangent)
        if family == "parameter_grad":
            return self._parameter_gradients(x, cotangent)
        f = (self._forward(x),)
        if family == "value_and_grad":
            return (*f, self._input_gradient(x, ones))
        if family == "autograd":
            return (*f, self._input_gradient(x, cotangent), *self._parameter_gradients(x, cotangent)[:2])
        return f

    def error(self, outputs: tuple[Tensor, ...]) -> float:
        """Of the median row relative to the typical row (or of all rows, over _RARE); infinite for a wrong shape."""
        if self.attack:
            return self._attack_error(*outputs)
        if len(outputs) != len(self.expected):
            return float("inf")
        return max(_row_error(found, true) for found, true in zip(outputs, self.expected, strict=True))

    def _attack_error(self, x: Tensor) -> float:
        """By the margins that the attacked points really have; points outside the ball are wrong outright."""
        origin = self.problem.origin
        if x.shape != origin.shape or not x.isfinite().all():
            return float("inf")
        moved = (x.double() - origin.double()).norm(p=2 if self.attack == "l2" else float("inf"), dim=-1)
        slack = 1e-12 if self.problem.case.dtype == "float64" else 2e-5
        if moved.max() > self.problem.radius * (1 + slack):
            return float("inf")
        scale = (self.after - self.before).abs().mean()
        return _summary((self._margin(x[self.rows].double()) - self.after).abs() / scale)


def _row_error(found: Tensor, true: Tensor) -> float:
    if found.shape != true.shape:
        return float("inf")
    rows = true.flatten(1) if true.dim() > 1 else true.unsqueeze(-1)
    differences = (found.double().reshape(rows.shape) - rows).norm(dim=-1)
    return _summary(differences / rows.norm(dim=-1).square().mean().sqrt())


def _summary(errors: Tensor) -> float:
    worst = max(errors.median().item(), errors.square().mean().sqrt().item() / _RARE)
    return worst if bool(errors.isfinite().all()) else float("inf")
