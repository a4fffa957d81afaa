"""Adversarial training of two-layer networks, in the span of the data where nothing leaves it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from . import _arguments, _recipe
from ._engine import Batch, Engine, Parameters, State
from ._history import Loop, Progress
from ._native import Native, reason_against
from .activation import Activation
from .geometry import Span, reduce_to_span
from .network import TwoLayerView, recognise

__all__ = ["Progress", "TrainingResult", "adversarial_train"]


@dataclass(frozen=True)
class TrainingResult:
    """A trained network, and how it came about.

    ``net``: a trained copy of the network that was given, in R^d: a module like it, or a `TwoLayerView` where it was a
    tuple. ``history``: name → (records, ...), with "iteration" (records,); networks S and samples are behind the
    records. ``iterations``: how many were made. ``ended``: why no more: "iterations", "stop", "callback" or
    "interrupted". ``engine``: "native", where many iterations at a time ran in native code, or "python: " and why not.
    ``span``: the span that it was trained in, or None; ``reduced``: the network in its coordinates, which gives at
    ``span.reduce(points)`` what ``net`` gives at any points of R^d.
    """

    net: Any
    history: dict[str, Tensor]
    iterations: int
    ended: str
    engine: str
    span: Span | None = field(repr=False)
    reduced: TwoLayerView | None = field(repr=False)
    state: dict[str, Any] = field(repr=False)

    @property
    def interrupted(self) -> bool:
        """Whether Ctrl-C ended it."""
        return self.ended == "interrupted"

    def state_dict(self) -> dict[str, Any]:
        """What ``resume`` takes: tensors and plain values, to be stored with `torch.save`."""
        return self.state


def adversarial_train(
    net: Any,
    x: Tensor,
    y: Tensor,
    *,
    radius: float | Tensor,
    steps: int = 20,
    iterations: int,
    step_size: float | Tensor | Callable[[int], float | Tensor],
    loss: str = "logistic",
    attack: str | Callable[[Tensor, Tensor, TwoLayerView], Tensor] = "pgd",
    norm: str = "l2",
    step: float | Tensor | None = None,
    box: tuple[float, float] | None = None,
    random_start: bool = False,
    algorithm: str = "auto",
    mixture: float | Tensor = 1.0,
    momentum: float | Tensor = 0.0,
    weight_decay: float | Tensor = 0.0,
    distance: float | Tensor | None = None,
    train_head: bool | None = None,
    train_bias: bool | None = None,
    batch_size: int | None = None,
    generator: torch.Generator | None = None,
    stop: Mapping[str, float] | None = None,
    span: bool | str = "auto",
    history: Sequence[str] | None = None,
    every: int = 1,
    trackers: Mapping[str, Callable[[TwoLayerView], Any]] | None = None,
    callback: Callable[[Progress], Any] | None = None,
    resume: Mapping[str, Any] | None = None,
    activation: str | Activation = "relu",
    patches: int = 1,
) -> TrainingResult:
    r"""Gradient descent on the loss at attacked points: of one network, or of many independent ones in one call.

    .. math:: L(\theta) = \frac1n \sum_{i=1}^n (1-\lambda)\, \ell(f(x_i), y_i) + \lambda\, \ell(f(x_i'), y_i), \qquad
              v \leftarrow \mu v + \nabla L + \kappa\theta, \quad \theta \leftarrow \theta - \eta v

    where x' is what the attack makes of x at the present θ. All is computed in W's dtype, float32 or float64, without
    autograd. The network given is left as it is.

    Args:
        net: what `as_two_layer` recognises: a `TwoLayerNet`, ``nn.Sequential(Linear, φ, Linear)``, or a tuple ``(W, a[,
            bias[, head_bias]])`` with ``activation`` and ``patches``. Leading dimensions S of its tensors are
            independent networks (seeds, configurations).
        x: (n, P·d) samples, shared by all networks, or (*S, n, P·d).
        y: (n,) or (*S, n) labels ±1; class indices for "cross_entropy"; targets shaped like f for "squared".
        radius: ε ≥ 0, a number, or a tensor that expands to (*S, n): (n,) per sample, (*S, 1) per network.
        steps, step: K and η of PGD, as in `l2_pgd`; 2.5·ε/K by default. ``step`` takes the shapes of ``radius``.
        iterations: how many updates, those before ``resume`` included.
        step_size: η of the descent; a number, one per network (*S,), or a function of the iteration 0, 1, … .
        loss: of the margin m = y f "logistic" log(1 + e^−m), "exponential" e^−m (continued by its tangent below m =
            −60), "hinge" max(0, 1 − m); "squared" ‖f − y‖²/2; "cross_entropy" for several outputs.
        attack: "pgd"; "one_step", x + ε g/‖g‖; "exact" for one linear output (identity φ), x − y ε w/‖w‖; "none";
            or a function of (samples, labels, network) that returns the attacked samples.
        norm: "l2" or "linf".
        box, algorithm: as in `l2_pgd`.
        random_start: whether PGD begins uniformly in the ball, drawn from ``generator``, and not at the sample.
        mixture: λ in [0, 1], the share of the attacked points' loss; a number or one per network.
        momentum, weight_decay: μ and κ ≥ 0, as in `torch.optim.SGD`; numbers or one per network.
        distance: R ≥ 0; after every update W is projected to ‖W − W0‖_F ≤ R. A number or one per network.
        train_head, train_bias: whether a, and whether b and c, are trained. By default, of a module what are its
            parameters; of a tuple the biases.
        batch_size: mini-batches of so many samples, the epochs' orders drawn from ``generator``; all samples if None.
        stop: name → threshold; ends when robust_loss, clean_loss, robust_error, clean_error, those named, are at most
            this in every network (looked at in each iteration; with mini-batches, in every ``every``-th).
        span: whether to train in the coordinates of `reduce_to_span`, r ≤ n·P + m dimensions instead of d. "auto" does
            so where it is exact and cheaper; True insists, with an error that says why where it is not exact.
        history: what to write down, over all samples and before the iteration's update: robust_loss, clean_loss,
            robust_error, clean_error (1 − accuracy), robust_margin, clean_margin (per sample), weight_norm ‖W‖_F,
            distance ‖W − W0‖_F, gradient_norm ‖∇L‖. By default robust_loss and robust_error.
        every: at iterations 0, every, 2·every, …, and at the last.
        trackers: name → function of the network (a `TwoLayerView` in R^d), whose values are written down, too.
        callback: called with a `Progress` after each record but the last; what it returns, if true, ends the training.
        resume: a result's, or a progress's, ``state_dict()``: goes on from there, with the same data and arguments,
            bit for bit as if there had been no interruption.

    Ctrl-C ends the training, and the result is what there is so far.

    On the CPU full batches run in native code, with no Python between the iterations that are written down, and of
    several networks one on each core; the bits do not depend on the number of threads. Not so mini-batches, ℓ∞, boxes,
    random starts, and attacks that are functions: ``engine`` says why.

    >>> x, y, _ = bk.sample_mixture(100, 5000, signal=7.0, flip=0.1)
    >>> net = bk.TwoLayerNet(5000, 64, paired=True, init=1e-3)
    >>> fit = bk.adversarial_train(net, x, y, radius=0.7, steps=20, iterations=30, step_size=0.02, every=10)
    >>> fit.history["iteration"], fit.history["robust_loss"].shape, fit.span.rank
    (tensor([ 0, 10, 20, 30]), torch.Size([4]), 132)
    >>> bk.attack_model(fit.net, x, y, radius=0.7).success.shape
    torch.Size([100])
    """
    found = recognise(net, activation=activation, patches=patches)
    if isinstance(found, str):
        raise TypeError(f"net: got {type(net).__name__}, expected a two-layer network; {found}")
    _recipe.check_network(found)
    asked = _recipe.recipe(
        view=found,
        loss=loss,
        attack=attack,
        norm=norm,
        steps=steps,
        box=box,
        random_start=random_start,
        algorithm=algorithm,
        mixture=mixture,
        step_size=step_size,
        momentum=momentum,
        weight_decay=weight_decay,
        distance=distance,
        radius=radius,
        trained=_trained(net, found, train_head, train_bias),
        batch_size=batch_size,
        generator=generator,
    )
    data = _recipe.batch(found, asked, x, y, radius, step)
    diary = _recipe.diary(asked, history, every, stop, trackers, callback)
    iterations = _arguments.integer("iterations", iterations, 0)
    first = _first(found)
    if resume is None:
        place = _Place(first, _chosen_span(span, first, data, asked, iterations, found))
    else:
        _recipe.check_saved(resume, first, span, diary)
        place = _Place.resumed(resume)
    engine = Engine(place.reduced(data), asked, place.start, found.activation, found.patches)
    state = engine.first_state()
    if resume is not None:
        state = _loaded(resume, engine)
        diary.records.extend(r for r in resume["history"] if r["iteration"] < state.iteration)

    def lifted(parameters: Parameters) -> TwoLayerView:
        return engine.view(place.lifted(parameters))

    reason = reason_against(engine)
    native = Native(engine) if reason is None else None
    loop = Loop(engine, native, diary, state, iterations, lifted, place.state_dict)
    ended = loop.run()
    return TrainingResult(
        net=_rebuilt(net, loop.net()),
        history=diary.tensors(),
        iterations=loop.state.iteration,
        ended=ended,
        engine="native" if reason is None else f"python: {reason}",
        span=place.span,
        reduced=None if place.span is None else engine.view(loop.state.parameters),
        state=loop.state_dict(),
    )


# ---- the network that comes, and that goes ---------------------------------------------------------------------------


def _trained(
    net: Any, view: TwoLayerView, train_head: bool | None, train_bias: bool | None
) -> tuple[bool, bool, bool, bool]:
    """Whether W, a, b, c are trained."""
    if train_head is None:
        train_head = isinstance(net, nn.Module) and any(p.data_ptr() == view.a.data_ptr() for p in net.parameters())
    else:
        train_head = _arguments.switch("train_head", train_head)
    train_bias = True if train_bias is None else _arguments.switch("train_bias", train_bias)
    return True, train_head, train_bias, train_bias


def _first(view: TwoLayerView) -> Parameters:
    tensors = (view.W, view.a, view.bias, view.head_bias)
    return Parameters(*(None if t is None else t.detach().clone() for t in tensors))  # type: ignore[arg-type]


@torch.no_grad()
def _rebuilt(net: Any, trained: TwoLayerView) -> Any:
    """A copy of the module with the trained numbers; the trained network itself where it was a tuple."""
    if not isinstance(net, nn.Module):
        tensors = {name: getattr(trained, name) for name in Parameters._fields}
        return replace(trained, **{name: t.clone() for name, t in tensors.items() if t is not None})
    twin = copy.deepcopy(net)
    view = recognise(twin)
    assert isinstance(view, TwoLayerView)
    for name in Parameters._fields:
        if (target := getattr(view, name)) is not None:
            target.copy_(getattr(trained, name))
    for p in twin.parameters():
        p.grad = None
    return twin


# ---- where it is trained: R^d, or the span ---------------------------------------------------------------------------


class _Place:
    """The coordinates of a training: those of R^d, or of a span in it."""

    def __init__(self, first: Parameters, span: Span | None) -> None:
        self.first, self.span = first, span
        self.start = first if span is None else first._replace(W=span.reduce(first.W))

    @classmethod
    def resumed(cls, saved: Mapping[str, Any]) -> _Place:
        basis = saved["basis"]
        return cls(Parameters(**saved["first"]), None if basis is None else Span(basis))

    def reduced(self, data: Batch) -> Batch:
        return data if self.span is None else data._replace(x=_without_noise(self.span.reduce(data.x), self.span.rank))

    def lifted(self, parameters: Parameters) -> Parameters:
        """W0 + (W − W0) Qᵀ: what was not trained is there bit for bit."""
        if self.span is None:
            return parameters
        return parameters._replace(W=self.first.W + self.span.lift(parameters.W - self.start.W))

    def state_dict(self, state: State, records: list[dict[str, Any]]) -> dict[str, Any]:
        return {
            "iteration": state.iteration,
            "parameters": state.parameters._asdict(),
            "velocity": None if state.velocity is None else state.velocity._asdict(),
            "order": state.order,
            "position": state.position,
            "generator": state.generator,
            "gram": state.gram,
            "first": self.first._asdict(),
            "basis": None if self.span is None else self.span.basis,
            "history": [dict(record) for record in records],
        }


def _without_noise(x: Tensor, rank: int) -> Tensor:
    """A basis begins with the points': beyond their number coordinates are rounding, and cost work unless zero."""
    patches = x.unflatten(-1, (-1, rank)) if rank else x.unsqueeze(-2)
    beyond = patches[..., patches.shape[-3] * patches.shape[-2] :]
    if beyond.numel() and beyond.abs().max() <= 16 * torch.finfo(x.dtype).eps * x.abs().max():
        beyond.zero_()
    return x


def _loaded(saved: Mapping[str, Any], engine: Engine) -> State:
    velocity = saved["velocity"]
    if engine.recipe.draws and engine.recipe.generator is not None:
        if saved["generator"] is None:
            raise ValueError("resume: got the state of a training without a generator, expected one with it")
        engine.recipe.generator.set_state(saved["generator"])
    return State(
        saved["iteration"],
        Parameters(**saved["parameters"]),
        None if velocity is None else Parameters(**velocity),
        saved["order"],
        saved["position"],
        saved["generator"],
        saved["gram"],
    )


def _chosen_span(
    span: bool | str, first: Parameters, data: Batch, asked: Any, iterations: int, view: TwoLayerView
) -> Span | None:
    if span is False:
        return None
    if span is not True and span != "auto":
        raise ValueError(f"span: got {span!r}, expected True, False or 'auto'")
    reason = _recipe.reason_against_span(asked, data, first)
    if reason is not None and span is True:
        raise ValueError(f"span: got True, but {reason}; expected False or 'auto'")
    if reason is not None or (span == "auto" and not _recipe.span_is_cheaper(view, data, asked, iterations)):
        return None
    return reduce_to_span(data.x, first.W)
