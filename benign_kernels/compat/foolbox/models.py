"""foolbox's model wrapper, and what the attacks need to know of a model that is wrapped by either package."""

from __future__ import annotations

import copy
import inspect
import warnings
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from .. import _engine

_NAMES = _engine.Names("inputs", "criterion")


class Bounds(NamedTuple):
    lower: float
    upper: float


class PyTorchModel:
    """A module with the bounds of its inputs and, if wanted, their normalization (x − mean) / std.

    >>> import torch
    >>> import benign_kernels.compat.foolbox as fb
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2)).eval()
    >>> fmodel = fb.PyTorchModel(model, bounds=(0, 1), device="cpu", preprocessing={"mean": 0.5, "std": 0.25})
    >>> fmodel(torch.rand(3, 4)).shape
    torch.Size([3, 2])
    """

    data_format = "channels_first"

    def __init__(
        self,
        model: Any,
        bounds: Bounds | tuple[float, float],
        device: Any = None,
        preprocessing: dict[str, Any] | None = None,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise ValueError(f"model: got {type(model).__name__}, expected a torch.nn.Module")
        if model.training:
            warnings.warn(
                "the model is in training mode and may not be deterministic; call its eval() if that is not intended",
                stacklevel=2,
            )
        if device is None:
            device = "cuda:0" if torch.cuda.is_available() else "cpu"
        self.device = torch.device(device)
        self.module = model.to(self.device)
        self.bounds = Bounds(*bounds)
        self.mean, self.std, self.flip_axis = self._read(preprocessing or {})

    def _read(self, preprocessing: dict[str, Any]) -> tuple[Tensor | None, Tensor | None, int | None]:
        unknown = set(preprocessing) - {"mean", "std", "axis", "flip_axis"}
        if unknown:
            raise ValueError(f"preprocessing: got the key {unknown.pop()!r}, expected mean, std, axis, flip_axis")
        axis = preprocessing.get("axis")
        if axis is not None and axis >= 0:
            raise ValueError(f"preprocessing: got axis={axis}, expected a negative axis, -1 for the last, or None")

        def tensor(name: str) -> Tensor | None:
            value = preprocessing.get(name)
            if value is None:
                return None
            value = torch.as_tensor(getattr(value, "raw", value), device=self.device)
            if axis is None:
                return value
            if value.ndim != 1:
                raise ValueError(f"preprocessing: got {name} of {value.ndim} dimensions, expected one with an axis")
            return value.reshape(-1, *[1] * (-axis - 1))

        return tensor("mean"), tensor("std"), preprocessing.get("flip_axis")

    def __call__(self, inputs: Any) -> Any:
        x, restore = unwrapped(inputs)
        with torch.set_grad_enabled(x.requires_grad):
            return restore(self.module(self._preprocess(x)))

    def _preprocess(self, x: Tensor) -> Tensor:
        if self.flip_axis is not None:
            x = x.flip(self.flip_axis)
        x = x if self.mean is None else x - self.mean.to(x.dtype)
        return x if self.std is None else x / self.std.to(x.dtype)

    def transform_bounds(self, bounds: Bounds | tuple[float, float], inplace: bool = False) -> PyTorchModel:
        """The same model on inputs scaled from its bounds to ``bounds``."""
        (a, b), (c, d) = self.bounds, Bounds(*bounds)
        scale = (d - c) / (b - a)
        model = self if inplace else copy.copy(self)
        mean = torch.zeros(1, device=self.device) if self.mean is None else self.mean
        std = torch.ones(1, device=self.device) if self.std is None else self.std
        if (a, b) != (c, d):
            model.mean, model.std = scale * (mean - a) + c, scale * std
        model.bounds = Bounds(c, d)
        return model


def accuracy(fmodel: Any, inputs: Any, labels: Any) -> float:
    """The fraction of inputs whose largest logit is at the label.

    >>> import torch
    >>> import benign_kernels.compat.foolbox as fb
    >>> fmodel = fb.PyTorchModel(torch.nn.Flatten().eval(), bounds=(0, 1), device="cpu")
    >>> fb.accuracy(fmodel, torch.tensor([[0.1, 0.9], [0.2, 0.8]]), torch.tensor([1, 0]))
    0.5
    """
    x, y = unwrapped(inputs)[0], unwrapped(labels)[0]
    predictions = _engine.predicted(unwrapped(fmodel(x))[0])
    return (predictions == y).float().mean().item()


def unwrapped(value: Any) -> tuple[Tensor, Any]:
    """A tensor, and the function that gives results the type it came in (torch's own, or eagerpy's)."""
    if isinstance(value, Tensor):
        return value, lambda tensor: tensor
    raw = getattr(value, "raw", None)
    if not isinstance(raw, Tensor):
        raise TypeError(f"inputs: got {type(value).__name__}, expected a torch.Tensor or an eagerpy tensor of one")
    return raw, type(value)


def victim(fmodel: Any, x: Tensor) -> _engine.Victim:
    """The model under attack; looks through both packages' PyTorchModel at the module inside."""
    if isinstance(fmodel, PyTorchModel):
        module, (mean, std, flip) = fmodel.module, (fmodel.mean, fmodel.std, fmodel.flip_axis)
    elif type(fmodel).__name__ == "PyTorchModel" and type(fmodel).__module__.startswith("foolbox."):
        module = inspect.getclosurevars(fmodel._model).nonlocals["model"]
        mean, std, flip = (getattr(part, "raw", part) for part in fmodel._preprocess_args)
    else:
        return _engine.Victim(fmodel, x, _NAMES)
    if flip is not None:
        return _engine.Victim(fmodel, x, _NAMES)
    if mean is None and std is None:
        return _engine.Victim(fmodel, x, _NAMES, core=module)
    mean = torch.zeros((), device=x.device) if mean is None else mean
    std = torch.ones((), device=x.device) if std is None else std
    return _engine.Victim(fmodel, x, _NAMES, core=module, normalization=(mean, std))
