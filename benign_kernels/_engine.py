"""Gradient descent at attacked points, for one network or many at once: the state, and one step from it to the next.

Everything is computed without autograd, and no tensor is changed in place: a state, once made, stays as it is, so that
an interrupted training goes on from the last one as if nothing had happened.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ._budget import uniform_in_ball
from ._losses import Loss
from .activation import Activation
from .attack import l2_pgd, linf_pgd
from .network import TwoLayerView
from .ops import two_layer_parameter_grad

_PGD = {"l2": l2_pgd, "linf": linf_pgd}


class Parameters(NamedTuple):
    """A network's tensors, or gradients or velocities of them; None for what is not there, or not trained."""

    W: Tensor
    a: Tensor | None
    bias: Tensor | None
    head_bias: Tensor | None


class State(NamedTuple):
    """All that the next iteration depends on, but for the data and the recipe."""

    iteration: int
    parameters: Parameters
    velocity: Parameters | None
    order: Tensor | None  # of the samples in this epoch
    position: int  # in it
    generator: Tensor | None  # its state
    gram: Tensor | None = None  # (*S, m, m) W Wᵀ, where it is carried from one iteration to the next


class Batch(NamedTuple):
    """Samples, with their labels as the loss reads them, and each one's attack."""

    x: Tensor
    y: Tensor
    radius: float | Tensor
    step: float | Tensor | None

    def rows(self, index: Tensor, classes_or_signs: bool) -> Batch:
        def of(value: Any) -> Any:
            return value[..., index] if isinstance(value, Tensor) else value

        y = of(self.y) if classes_or_signs else self.y[..., index, :]
        return Batch(self.x[..., index, :], y, of(self.radius), of(self.step))


class Look(NamedTuple):
    """A network's outputs on a batch (*S, n, k): at attacked points (*S, n, P·d), and, where needed, at clean ones."""

    batch: Batch
    points: Tensor
    f: Tensor
    clean: Tensor | None


@dataclass(frozen=True)
class Recipe:
    """How to train; numbers that may differ between the networks are numbers or tensors (*S,)."""

    loss: Loss
    attack: str | Callable[[Tensor, Tensor, TwoLayerView], Tensor]
    norm: str
    steps: int
    box: tuple[float, float] | None
    random_start: bool
    algorithm: str
    mixture: float | Tensor
    step_size: Callable[[int], float | Tensor]
    momentum: float | Tensor
    weight_decay: float | Tensor
    distance: float | Tensor | None
    trained: tuple[bool, bool, bool, bool]
    batch_size: int | None
    generator: torch.Generator | None

    @property
    def mixes(self) -> bool:
        return isinstance(self.mixture, Tensor) or self.mixture < 1

    @property
    def has_momentum(self) -> bool:
        return isinstance(self.momentum, Tensor) or self.momentum > 0

    @property
    def draws(self) -> bool:
        return self.random_start or self.batch_size is not None


class Engine:
    """One training's data, recipe and first weights, in the coordinates that it runs in."""

    def __init__(self, data: Batch, recipe: Recipe, initial: Parameters, activation: Activation, patches: int) -> None:
        self.data, self.recipe, self.initial = data, recipe, initial
        self.activation, self.patches = activation, patches
        assert initial.a is not None
        self.has_heads = initial.a.dim() == initial.W.dim()
        self.samples = data.x.shape[-2]

    def view(self, parameters: Parameters) -> TwoLayerView:
        W, a, bias, head_bias = parameters
        assert a is not None
        convention = "classes" if self.recipe.loss.labels == "classes" else "signs"
        return TwoLayerView(W, a, bias, head_bias, self.activation, self.patches, convention)

    def first_state(self) -> State:
        generator = self.recipe.generator
        drawn = None if generator is None else generator.get_state()
        return State(0, self.initial, None, None, 0, drawn)

    # ---- looking -----------------------------------------------------------------------------------------------------

    def look(self, parameters: Parameters, batch: Batch, *, clean: bool, random: bool = True) -> Look:
        """Attacks the batch. ``random=False`` begins at the samples whatever the recipe says, and draws nothing."""
        recipe = self.recipe
        net, labels = self.view(parameters), self._native(batch.y)
        if recipe.attack == "none":
            f = self._outputs(net(batch.x))
            return Look(batch, batch.x, f, f)
        if recipe.attack in ("pgd", "one_step"):
            found = self._pgd(net, batch, labels, random and recipe.random_start)
            points, f = found.x, self._outputs(found.logits)
        else:
            if callable(recipe.attack):
                points = recipe.attack(batch.x, labels, net).detach().to(batch.x.dtype)
            else:
                points = self._exact(net, batch)
            f = self._outputs(net(points))
        return Look(batch, points, f, self._outputs(net(batch.x)) if clean else None)

    def _pgd(self, net: TwoLayerView, batch: Batch, labels: Tensor, random_start: bool) -> Any:
        recipe, start = self.recipe, None
        if random_start:
            shape = (*net.W.shape[:-2], *batch.x.shape[-2:])
            like = {"dtype": batch.x.dtype, "device": batch.x.device}
            start = batch.x + uniform_in_ball(recipe.norm, shape, batch.radius, recipe.generator, like)
        one_step = recipe.attack == "one_step"
        return _PGD[recipe.norm](
            *(batch.x, labels, net.W, net.a),
            **net.keywords(),
            radius=batch.radius,
            step=batch.radius if one_step else batch.step,
            steps=1 if one_step else recipe.steps,
            loss="squared" if recipe.loss.labels == "targets" else "margin",
            box=recipe.box,
            start=start,
            algorithm=recipe.algorithm,
        )

    def _exact(self, net: TwoLayerView, batch: Batch) -> Tensor:
        """x + ε·sign·v for a linear network, whose gradient is the same everywhere: v = w/‖w‖, or sign(w) for ℓ∞."""
        a = net.a[..., 0, :] if self.has_heads else net.a
        w = (a.unsqueeze(-1) * net.W).sum(-2)
        w = w.repeat(*[1] * (w.dim() - 1), self.patches)
        if self.recipe.norm == "linf":
            direction = w.sign()
        else:
            direction = torch.nn.functional.normalize(w / _no_less_than_tiny(w.abs().amax(-1, keepdim=True)), dim=-1)
        if self.recipe.loss.labels == "signs":
            sign = -batch.y
        else:  # away from the target
            sign = torch.where(self._outputs(net(batch.x))[..., 0] < batch.y[..., 0], -1.0, 1.0).to(w.dtype)
        return batch.x + (batch.radius * sign).unsqueeze(-1) * direction.unsqueeze(-2)

    def _outputs(self, f: Tensor) -> Tensor:
        return f if self.has_heads else f.unsqueeze(-1)

    def _native(self, y: Tensor) -> Tensor:
        """Labels as attacks take them: targets shaped like the network's output."""
        return y.squeeze(-1) if self.recipe.loss.labels == "targets" and not self.has_heads else y

    # ---- learning ----------------------------------------------------------------------------------------------------

    def gradient(self, parameters: Parameters, look: Look) -> Parameters:
        """Of the mean over the batch of (1−λ)·ℓ(f(x)) + λ·ℓ(f(x'))."""
        recipe, y = self.recipe, look.batch.y
        rows = max(1, look.batch.x.shape[-2])
        if not recipe.mixes or look.f is look.clean:
            return self._gradient_at(parameters, look.points, recipe.loss.cotangent(look.f, y) / rows)
        assert look.clean is not None
        share = _like(recipe.mixture, look.f)
        attacked = self._gradient_at(parameters, look.points, recipe.loss.cotangent(look.f, y) * (share / rows))
        clean = self._gradient_at(parameters, look.batch.x, recipe.loss.cotangent(look.clean, y) * ((1 - share) / rows))
        return Parameters(*(s if s is None else s + t for s, t in zip(attacked, clean, strict=True)))  # type: ignore

    def _gradient_at(self, parameters: Parameters, points: Tensor, cotangent: Tensor) -> Parameters:
        W, a, bias, head_bias = parameters
        assert a is not None
        _, train_a, train_bias, train_head_bias = self.recipe.trained
        gc = cotangent.sum(-2)
        gW, ga, gb = two_layer_parameter_grad(
            *(points, W, a),
            cotangent=cotangent if self.has_heads else cotangent.squeeze(-1),
            bias=bias,
            activation=self.activation,
            patches=self.patches,
        )
        return Parameters(
            gW,
            ga if train_a else None,
            gb if train_bias and bias is not None else None,
            (gc if self.has_heads else gc.squeeze(-1)) if train_head_bias and head_bias is not None else None,
        )

    def updated(self, state: State, gradient: Parameters, batch: _Drawn) -> State:
        """One step of gradient descent: v ← μ v + g + κ θ, θ ← θ − η v, and W back into the ball around W0."""
        recipe = self.recipe
        eta = recipe.step_size(state.iteration)
        new: list[Tensor | None] = []
        velocity: list[Tensor | None] = []
        last = state.velocity or (None,) * 4
        for p, g, v in zip(state.parameters, gradient, last, strict=True):
            if p is None or g is None:
                new.append(p)
                velocity.append(None)
                continue
            if isinstance(recipe.weight_decay, Tensor) or recipe.weight_decay:
                g = g + _like(recipe.weight_decay, p) * p
            if v is not None:
                g = _like(recipe.momentum, p) * v + g
            new.append(p - _like(eta, p) * g)
            velocity.append(g)
        if recipe.distance is not None:
            new[0] = self._projected(new[0])  # type: ignore[arg-type]
        return State(
            state.iteration + 1,
            Parameters(*new),  # type: ignore[arg-type]
            Parameters(*velocity) if recipe.has_momentum else None,  # type: ignore[arg-type]
            batch.order,
            batch.position,
            recipe.generator.get_state() if recipe.draws and recipe.generator is not None else state.generator,
        )

    def _projected(self, W: Tensor) -> Tensor:
        moved = W - self.initial.W
        size = torch.linalg.vector_norm(moved, dim=(-2, -1), keepdim=True)
        allowed = torch.as_tensor(_like(self.recipe.distance, W), dtype=W.dtype, device=W.device)
        return torch.where(size > allowed, self.initial.W + moved * (allowed / _no_less_than_tiny(size)), W)

    # ---- batches -----------------------------------------------------------------------------------------------------

    def draw(self, state: State) -> _Drawn:
        """The samples of this iteration: all, or the next ``batch_size`` of an epoch's random order."""
        size = self.recipe.batch_size
        if size is None:
            return _Drawn(self.data, None, 0)
        order, position = state.order, state.position
        if order is None or position >= self.samples:
            device = self.recipe.generator.device if self.recipe.generator is not None else "cpu"
            order, position = torch.randperm(self.samples, generator=self.recipe.generator, device=device), 0
        index = order[position : position + size].to(self.data.x.device)
        batch = self.data.rows(index, self.recipe.loss.labels != "targets")
        return _Drawn(batch, order, position + size)


class _Drawn(NamedTuple):
    batch: Batch
    order: Tensor | None
    position: int


def _like(value: Any, t: Tensor) -> Any:
    """One number per network, in the shape that multiplies ``t``."""
    if not isinstance(value, Tensor) or not value.dim():
        return value
    return value.reshape(*value.shape, *[1] * (t.dim() - value.dim()))


def _no_less_than_tiny(t: Tensor) -> Tensor:
    return t.clamp(min=torch.finfo(t.dtype).tiny)
