"""What a training writes down at chosen iterations, and the loop that asks for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ._engine import Engine, Look, Parameters, State
from ._native import Looks, Native
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
_SIZES = ("weight_norm", "distance", "gradient_norm")
NAMES = (*_OF_LOOK, *_SIZES)
STOPS = ("robust_loss", "clean_loss", "robust_error", "clean_error")
#: A native call lasts about so long: Ctrl-C is heard in between.
_CALL_SECONDS = 0.1


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
    """Runs an engine: ``lifted`` makes its network one in R^d, ``state_dict`` what a later run goes on from.

    ``native``: the engine's iterations in native code, where they can be made there.
    """

    def __init__(
        self,
        engine: Engine,
        native: Native | None,
        diary: Diary,
        state: State,
        iterations: int,
        lifted: Callable[[Parameters], TwoLayerView],
        state_dict: Callable[[State, list[dict[str, Any]]], dict[str, Any]],
    ) -> None:
        self.engine, self.native, self.diary, self.state, self.iterations = engine, native, diary, state, iterations
        self._lifted, self._state_dict = lifted, state_dict
        self._updates = 1  # of the next native call

    def net(self) -> TwoLayerView:
        return self._lifted(self.state.parameters)

    def state_dict(self) -> dict[str, Any]:
        return self._state_dict(self.state, self.diary.records)

    def run(self) -> str:
        """Trains, and says why it ended: "iterations", "stop", "callback" or "interrupted"."""
        go_on = self._iterate if self.native is None else self._iterate_natively
        try:
            while (ended := go_on()) is None:
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
        if (due or enough) and self._write(self._record(look, gradient), last):
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

    def _iterate_natively(self) -> str | None:
        """As many iterations at once as nothing in Python looks at but to write them down."""
        diary, state, native = self.diary, self.state, self.native
        assert native is not None
        first, left = state.iteration, self.iterations - state.iteration
        updates = max(0, min(left, self._updates))
        if diary.trackers or diary.callback is not None:
            updates = min(updates, diary.every - first % diary.every)
        every = 1 if diary.stop else diary.every
        wanted = {"clean": diary.looks_at_clean(True), "norms": any(name in _SIZES for name in diary.names)}
        began = time.perf_counter()
        ahead, looks = native.advance(state, updates, every, **wanted)
        self._set_pace(updates, time.perf_counter() - began)
        seen = [t for t in range(first, first + updates) if t % every == 0] if updates else [first]
        columns = {name: self._column(name, looks) for name in {*diary.names, *diary.stop}}
        good = self._first_good(columns, len(seen))
        if good is not None and seen[good] > first:  # only so far, to look at it again
            ahead, _ = native.advance(state, seen[good] - first, every, **wanted)
            self._updates = 1
        enough, last = good is not None and seen[good] == first, left <= 0
        for i, t in enumerate(seen[:1] if enough else seen[:good]):
            if enough or last or t % diary.every == 0:
                record = {"iteration": t, **{name: columns[name][i] for name in diary.names}}
                if self._write(record, last):
                    return "callback"
        if enough or last:
            return "stop" if enough else "iterations"
        self.state = ahead
        return None

    def _set_pace(self, updates: int, seconds: float) -> None:
        if updates == self._updates:
            faster = _CALL_SECONDS / max(seconds, 1e-9)
            self._updates = max(1, min(int(updates * faster), 8 * updates))

    def _column(self, name: str, looks: Looks) -> Tensor:
        """(records, ...): a number or row of numbers for each look."""
        if name in looks.scalars:
            return looks.scalars[name]
        y = self.engine.data.y
        return self._of_outputs(name, looks.f, looks.clean, y.expand(looks.f.shape[0], *y.shape))

    def _first_good(self, columns: Mapping[str, Tensor], count: int) -> int | None:
        """The first look at which every network has come down to every threshold."""
        if not self.diary.stop:
            return None
        down = [(columns[name] <= least).reshape(count, -1).all(1) for name, least in self.diary.stop.items()]
        good = torch.stack(down).all(0)
        return int(good.to(torch.uint8).argmax()) if bool(good.any()) else None

    def _write(self, record: dict[str, Any], last: bool) -> bool:
        """Adds the trackers' values to the record, and it to the diary; whether the callback then ends the training."""
        self._track(record)
        self.diary.records.append(record)
        if self.diary.callback is None or last:
            return False
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
        return record

    def _track(self, record: dict[str, Any]) -> None:
        net = self.net() if self.diary.trackers else None
        for name, tracker in self.diary.trackers.items():
            assert net is not None
            value = torch.as_tensor(tracker(net)).detach().clone()
            before = self.diary.records[0][name].shape if self.diary.records else value.shape
            if value.shape != before:
                raise ValueError(
                    f"trackers: got shape {tuple(value.shape)} from {name!r} at iteration {record['iteration']}, "
                    f"expected {tuple(before)}, as at the first"
                )
            record[name] = value

    def _of_look(self, name: str, look: Look) -> Tensor:
        return self._of_outputs(name, look.f, look.clean, look.batch.y)

    def _of_outputs(self, name: str, attacked: Tensor, clean: Tensor | None, y: Tensor) -> Tensor:
        where, what = _OF_LOOK[name]
        f, loss = (attacked if where == "robust" else clean), self.engine.recipe.loss
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
