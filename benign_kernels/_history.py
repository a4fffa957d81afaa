"""What a training writes down at chosen iterations, and the loop that asks for it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ._engine import Engine, Look, Parameters, State
from .network import TwoLayerView

#: name → (where the network is looked at, how one number per network, or per sample, comes out of it)
_OF_LOOK = {
    "robust_loss": ("robust", "loss"),
    "clean_loss": ("clean", "loss"),
    "robust_error": ("robust", "error"),
    "clean_error": ("clean", "error"),
    "robust_margin": ("robust", "margin"),
    "clean_margin": ("clean", "margin"),
}
NAMES = (*_OF_LOOK, "weight_norm", "distance", "gradient_norm")
STOPS = ("robust_loss", "clean_loss", "robust_error", "clean_error")


@dataclass(frozen=True, eq=False)
class Progress:
    """Where a training stands, as a callback sees it: after so many iterations, with what was just written down."""

    iteration: int
    iterations: int
    record: Mapping[str, Any]
    _net: Callable[[], TwoLayerView] = field(repr=False)
    _state: Callable[[], dict[str, Any]] = field(repr=False)

    @property
    def net(self) -> TwoLayerView:
        """The network in R^d; made when asked for."""
        return self._net()

    def state_dict(self) -> dict[str, Any]:
        """What ``resume`` takes, to be stored with `torch.save`."""
        return self._state()


@dataclass
class Diary:
    """What to write down and when, and what was."""

    names: tuple[str, ...]
    every: int
    stop: Mapping[str, float]
    trackers: Mapping[str, Callable[[TwoLayerView], Any]]
    callback: Callable[[Progress], Any] | None
    records: list[dict[str, Any]] = field(default_factory=list)

    @property
    def looks(self) -> bool:
        """Whether anything needs the outputs at all samples."""
        return any(name in _OF_LOOK or name == "gradient_norm" for name in self.names)

    def looks_at_clean(self, due: bool) -> bool:
        return any(name.startswith("clean") for name in (*self.stop, *(self.names if due else ())))

    def tensors(self) -> dict[str, Tensor]:
        """name → (records, ...), and "iteration" (records,)."""
        columns: dict[str, Tensor] = {"iteration": torch.tensor([r["iteration"] for r in self.records])}
        for name in (*self.names, *self.trackers):
            values = [torch.as_tensor(r[name]) for r in self.records]
            columns[name] = torch.stack(values) if values else torch.empty(0)
        return columns


class Loop:
    """Runs an engine: ``lifted`` makes its network one in R^d, ``state_dict`` what a later run goes on from."""

    def __init__(
        self,
        engine: Engine,
        diary: Diary,
        state: State,
        iterations: int,
        lifted: Callable[[Parameters], TwoLayerView],
        state_dict: Callable[[State, list[dict[str, Any]]], dict[str, Any]],
    ) -> None:
        self.engine, self.diary, self.state, self.iterations = engine, diary, state, iterations
        self._lifted, self._state_dict = lifted, state_dict

    def net(self) -> TwoLayerView:
        return self._lifted(self.state.parameters)

    def state_dict(self) -> dict[str, Any]:
        return self._state_dict(self.state, self.diary.records)

    def run(self) -> str:
        """Trains, and says why it ended: "iterations", "stop", "callback" or "interrupted"."""
        try:
            while (ended := self._iterate()) is None:
                pass
            return ended
        except KeyboardInterrupt:
            return "interrupted"

    def _iterate(self) -> str | None:
        engine, diary, state = self.engine, self.diary, self.state
        last = state.iteration >= self.iterations
        on_time = state.iteration % diary.every == 0
        due, full = on_time or last, engine.recipe.batch_size is None
        watched = bool(diary.stop) and (full or due)
        look = None
        if watched or (due and diary.looks) or (full and not last):
            clean = engine.recipe.mixes or diary.looks_at_clean(due)
            look = engine.look(state.parameters, engine.data, clean=clean, random=full)
        enough = watched and look is not None and self._enough(look)
        gradient = None
        if look is not None and ((full and not last and not enough) or (due and "gradient_norm" in diary.names)):
            gradient = engine.gradient(state.parameters, look)
        if due or enough:
            record = self._record(look, gradient)
            diary.records.append(record)
            if diary.callback is not None and not last and self._call(record):
                return "callback"
        if enough or last:
            return "stop" if enough else "iterations"
        if not full:
            drawn = engine.draw(state)
            look = engine.look(state.parameters, drawn.batch, clean=engine.recipe.mixes)
            gradient = engine.gradient(state.parameters, look)
        else:
            drawn = engine.draw(state)
        assert gradient is not None
        self.state = engine.updated(state, gradient, drawn)
        return None

    def _call(self, record: dict[str, Any]) -> bool:
        assert self.diary.callback is not None
        progress = Progress(self.state.iteration, self.iterations, record, self.net, self.state_dict)
        return bool(self.diary.callback(progress))

    def _enough(self, look: Look) -> bool:
        """Whether every network has come down to every threshold."""
        return all(bool((self._of_look(name, look) <= least).all()) for name, least in self.diary.stop.items())

    def _record(self, look: Look | None, gradient: Parameters | None) -> dict[str, Any]:
        W, W0 = self.state.parameters.W, self.engine.initial.W
        record: dict[str, Any] = {"iteration": self.state.iteration}
        for name in self.diary.names:
            if name == "weight_norm":
                record[name] = torch.linalg.vector_norm(W, dim=(-2, -1))
            elif name == "distance":
                record[name] = torch.linalg.vector_norm(W - W0, dim=(-2, -1))
            elif name == "gradient_norm":
                assert gradient is not None
                record[name] = _norm(gradient, W.dim() - 2)
            else:
                assert look is not None
                record[name] = self._of_look(name, look)
        if self.diary.trackers:
            net = self.net()
            for name, tracker in self.diary.trackers.items():
                value = torch.as_tensor(tracker(net)).detach().clone()
                before = self.diary.records[0][name].shape if self.diary.records else value.shape
                if value.shape != before:
                    raise ValueError(
                        f"trackers: got shape {tuple(value.shape)} from {name!r} at iteration {record['iteration']}, "
                        f"expected {tuple(before)}, as at the first"
                    )
                record[name] = value
        return record

    def _of_look(self, name: str, look: Look) -> Tensor:
        where, what = _OF_LOOK[name]
        f, y, loss = (look.f if where == "robust" else look.clean), look.batch.y, self.engine.recipe.loss
        assert f is not None
        if what == "loss":
            return loss.value(f, y).mean(-1)
        margin = loss.margin(f, y)
        return margin if what == "margin" else (~(margin > 0)).to(f.dtype).mean(-1)


def _norm(gradient: Parameters, networks: int) -> Tensor:
    """‖∇‖ over all that is trained, one for each network."""
    norms = [torch.linalg.vector_norm(g.flatten(networks), dim=-1) for g in _with_a_dimension(gradient, networks)]
    return torch.linalg.vector_norm(torch.stack(norms), dim=0)


def _with_a_dimension(gradient: Parameters, networks: int) -> list[Tensor]:
    return [g.unsqueeze(-1) if g.dim() == networks else g for g in gradient if g is not None]
