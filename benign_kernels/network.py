"""Two-layer networks as modules, and the recognition of models that are two-layer networks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as _module_globals

from . import activation as _activation
from ._arguments import integer, one_of, optional
from .activation import Activation
from .ops import two_layer

__all__ = ["TwoLayerNet", "TwoLayerView", "as_two_layer"]

_HEADS = ("signs", "trained")
_DTYPES = (torch.float64, torch.float32, torch.bfloat16)


class TwoLayerNet(nn.Module):
    """A two-layer network, or many independent ones: f(x) = c + Σ_p Σ_j a_j φ(<w_j, x_p> + b_j).

    Shapes (S are the leading dimensions of independent networks, none by default): ``weight`` W (*S, m, d); ``head`` a
    (*S, m), or (*S, k, m) with ``heads=k``; ``bias`` b (*S, m); ``head_bias`` c (*S) or (*S, k). x is (..., P·d), or
    (*S, n, P·d), or (n, P·d) shared by all networks; f(x) has the rows of x, and a last dimension k with ``heads=k``.

    Args:
        d: dimension of a patch; the input has P·d numbers.
        m: neurons.
        activation: φ, by name or as an object of `benign_kernels.activation`.
        heads: None for one output without a dimension of its own; k for k outputs.
        head: "signs" – entries ±1/√m, a buffer that training leaves alone; "trained" – a parameter, N(0, 1/m) at first.
        bias, head_bias: whether b and c exist, as parameters. b begins like a column of W, c at zero.
        patches: P.
        init: standard deviation of W (and b) at first; 1/√d if None.
        paired: neurons j and j + m/2 begin with the same w and b and with opposite a, so that f(x) = c at first.
        networks: S, the shape of a batch of independent networks, or their number.
        generator: where the initial numbers come from; torch's global generator if None.

    >>> import torch, benign_kernels as bk
    >>> net = bk.TwoLayerNet(20, 64, activation="relu", paired=True)
    >>> net(torch.randn(5, 20)).detach().abs().max().item() < 1e-6
    True
    """

    weight: Tensor
    head: Tensor
    bias: Tensor | None
    head_bias: Tensor | None

    def __init__(
        self,
        d: int,
        m: int,
        *,
        activation: str | Activation = "relu",
        heads: int | None = None,
        head: str = "signs",
        bias: bool = False,
        head_bias: bool = False,
        patches: int = 1,
        init: float | None = None,
        paired: bool = False,
        networks: int | Sequence[int] = (),
        generator: torch.Generator | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        d, m, patches = integer("d", d, 0), integer("m", m, 0), integer("patches", patches, 1)
        heads = None if heads is None else integer("heads", heads, 1)
        one_of("head", head, _HEADS)
        if paired and m % 2:
            raise ValueError(f"paired: needs an even number of neurons, got m={m}")
        if init is not None and not 0 <= init < math.inf:
            raise ValueError(f"init: got {init}, expected a standard deviation, finite and not negative, or None")
        self.d, self.m, self.heads, self.patches = d, m, heads, patches
        self.activation = _activation.resolve(activation)
        self.networks = _network_sizes(networks)
        self.init = init
        self.paired = bool(paired)

        def empty(*shape: int) -> Tensor:
            return torch.empty((*self.networks, *shape), device=device, dtype=dtype)

        outputs = () if heads is None else (heads,)
        self.weight = nn.Parameter(empty(m, d))
        if head == "signs":
            self.register_buffer("head", empty(*outputs, m))
        else:
            self.head = nn.Parameter(empty(*outputs, m))
        self.register_parameter("bias", nn.Parameter(empty(m)) if bias else None)
        self.register_parameter("head_bias", nn.Parameter(empty(*outputs)) if head_bias else None)
        self.reset_parameters(generator=generator)

    @property
    def label_convention(self) -> str:
        """How attacks read labels: "signs" (±1) with one output, "classes" (0 … k−1) with k ≥ 2."""
        return "signs" if self.heads in (None, 1) else "classes"

    @property
    def head_is_trained(self) -> bool:
        return isinstance(self.head, nn.Parameter)

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draws W, a and b again as at first, and sets c to zero."""
        std = 1 / math.sqrt(max(self.d, 1)) if self.init is None else self.init
        scale = 1 / math.sqrt(max(self.m, 1))
        self.weight.normal_(0.0, std, generator=generator)
        if self.head_is_trained:
            self.head.normal_(0.0, scale, generator=generator)
        else:
            self.head.bernoulli_(0.5, generator=generator).mul_(2).sub_(1).mul_(scale)
        if self.bias is not None:
            self.bias.normal_(0.0, std, generator=generator)
        if self.head_bias is not None:
            self.head_bias.zero_()
        if self.paired:
            half = self.m // 2
            self.weight[..., half:, :] = self.weight[..., :half, :]
            self.head[..., half:] = -self.head[..., :half]
            if self.bias is not None:
                self.bias[..., half:] = self.bias[..., :half]

    def forward(self, x: Tensor) -> Tensor:
        return two_layer(
            x,
            self.weight,
            self.head,
            bias=self.bias,
            head_bias=self.head_bias,
            activation=self.activation,
            patches=self.patches,
        )

    def extra_repr(self) -> str:
        parts = [f"d={self.d}, m={self.m}, activation={self.activation!r}"]
        parts.append(f"head={'trained' if self.head_is_trained else 'signs'!r}")
        for name, value, default in (
            ("heads", self.heads, None),
            ("bias", self.bias is not None, False),
            ("head_bias", self.head_bias is not None, False),
            ("patches", self.patches, 1),
            ("init", self.init, None),
            ("paired", self.paired, False),
            ("networks", self.networks, ()),
        ):
            if value != default:
                parts.append(f"{name}={value}")
        return ", ".join(parts)


def _network_sizes(networks: int | Sequence[int]) -> tuple[int, ...]:
    sizes = networks if isinstance(networks, Iterable) else (networks,)
    return tuple(integer("networks", size, 0) for size in sizes)


# ---- recognition -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class TwoLayerView:
    """The tensors of a two-layer network found in a model: f(x) = c + Σ_p Σ_j a_j φ(<w_j, x_p> + b_j).

    ``W`` (*S, m, d), ``a`` (*S, m) or (*S, k, m), ``bias`` (*S, m) or None, ``head_bias`` (*S) or (*S, k) or None: the
    model's own storage, without its gradients. A module that returns (n, 1) becomes f (n,). ``label_convention`` is how
    the model reads labels: "signs" (±1), "binary" (0/1), "classes" (0 … k−1), or None for a one-logit model that does
    not say.

    >>> import torch, benign_kernels as bk
    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 7), torch.nn.ReLU(), torch.nn.Linear(7, 2))
    >>> view, x = bk.as_two_layer(model), torch.randn(4, 3)
    >>> torch.allclose(view(x), model(x), atol=1e-6)
    True
    """

    W: Tensor
    a: Tensor
    bias: Tensor | None
    head_bias: Tensor | None
    activation: Activation
    patches: int
    label_convention: str | None

    @property
    def heads(self) -> int | None:
        """k, or None where the network has one output without a dimension of its own."""
        return None if self.a.ndim == self.W.ndim - 1 else self.a.shape[-2]

    @property
    def input_size(self) -> int:
        """P·d."""
        return self.patches * self.W.shape[-1]

    def keywords(self) -> dict[str, Any]:
        """The keyword arguments that `two_layer`, `l2_pgd` and their kin share."""
        return {
            "bias": self.bias,
            "head_bias": self.head_bias,
            "activation": self.activation,
            "patches": self.patches,
        }

    def __call__(self, x: Tensor) -> Tensor:
        return two_layer(x, self.W, self.a, **self.keywords())


def as_two_layer(model: Any, *, activation: str | Activation = "relu", patches: int = 1) -> TwoLayerView | None:
    """Finds the two-layer network in ``model``; None if it is not one, or does more than the formula says.

    Recognised: `TwoLayerNet`; ``nn.Sequential(Linear, φ, Linear)``, after an ``nn.Flatten()`` or not (and, with one
    logit, before an ``nn.Flatten(0)`` or not), with φ any of ``nn.ReLU``, ``LeakyReLU``, ``Tanh``, ``Sigmoid``,
    ``SiLU``, ``GELU()``, ``Softplus`` (if its linear cut-off lies below rounding), ``Identity``; and tuples ``(W, a)``,
    ``(W, a, bias)``, ``(W, a, bias, head_bias)``, whose φ and P are ``activation`` and ``patches``. Not recognised:
    anything with hooks, parametrizations, an overridden ``forward``, or dtypes other than float64, float32, bfloat16.

    >>> import torch, benign_kernels as bk
    >>> bk.as_two_layer(torch.nn.Linear(3, 7)) is None
    True
    """
    found = recognise(model, activation=activation, patches=patches)
    return found if isinstance(found, TwoLayerView) else None


def recognise(model: Any, *, activation: str | Activation = "relu", patches: int = 1) -> TwoLayerView | str:
    """As `as_two_layer`, but says why a model is not recognised."""
    if isinstance(model, TwoLayerView):
        return model
    if isinstance(model, tuple | list):
        return _from_tensors(model, _activation.resolve(activation), patches)
    if isinstance(model, TwoLayerNet):
        found = _from_net(model)
    elif type(model) is nn.Sequential:
        found = _from_sequential(model)
    else:
        return f"{type(model).__name__} is neither a TwoLayerNet nor an nn.Sequential(Linear, activation, Linear)"
    if isinstance(found, str):
        return found
    return _reason_against(found) or found


def _from_tensors(tensors: Sequence[Tensor | None], activation: Activation, patches: int) -> TwoLayerView | str:
    named = zip(("W", "a", "bias", "head_bias"), (*tensors, None, None, None, None), strict=False)
    W, a, bias, head_bias = (optional(name, t) for name, t in named)
    if W is None or a is None or len(tensors) > 4 or W.ndim < 2 or a.ndim < W.ndim - 1:
        return "it is not a tuple (W, a[, bias[, head_bias]]) of tensors, W (..., m, d) and a (..., m) or (..., k, m)"
    convention = "signs" if a.ndim == W.ndim - 1 or a.shape[-2] == 1 else "classes"
    return TwoLayerView(W, a, bias, head_bias, activation, patches, convention)


def _from_net(net: TwoLayerNet) -> TwoLayerView | str:
    if type(net).forward is not TwoLayerNet.forward or _altered(net):
        return "it has hooks or an overridden forward"
    bias = None if net.bias is None else net.bias.detach()
    head_bias = None if net.head_bias is None else net.head_bias.detach()
    return TwoLayerView(
        net.weight.detach(), net.head.detach(), bias, head_bias, net.activation, net.patches, net.label_convention
    )


def _from_sequential(model: nn.Sequential) -> TwoLayerView | str:
    layers: list[Any] = list(_layers(model))
    if any(_altered(layer) for layer in layers):
        return "a layer has hooks, a parametrization or an overridden forward"
    layers = [layer for layer in layers if type(layer) is not nn.Sequential]
    if layers and type(layers[0]) is nn.Flatten and (layers[0].start_dim, layers[0].end_dim) == (1, -1):
        layers = layers[1:]
    if len(layers) == 4 and type(layers[3]) is nn.Flatten and _drops_the_last(layers[3]) and _outputs(layers[2]) == 1:
        layers = layers[:3]
    if len(layers) != 3 or type(layers[0]) is not nn.Linear or type(layers[2]) is not nn.Linear:
        return "it is not nn.Sequential([Flatten,] Linear, activation, Linear)"
    first, phi, last = layers
    activation = _from_module(phi, first.weight.dtype)
    if isinstance(activation, str):
        return activation
    bias = None if first.bias is None else first.bias.detach()
    a, head_bias = last.weight.detach(), None if last.bias is None else last.bias.detach()
    convention: str | None = "classes"
    if last.out_features == 1:
        a, head_bias = a[0], None if head_bias is None else head_bias[0]
        convention = None
    return TwoLayerView(first.weight.detach(), a, bias, head_bias, activation, 1, convention)


def _drops_the_last(flatten: nn.Flatten) -> bool:
    """Whether it makes (n,) of (n, 1)."""
    return flatten.start_dim == 0 and flatten.end_dim in (-1, 1)


def _outputs(layer: nn.Module) -> int:
    return layer.out_features if type(layer) is nn.Linear else 0


def _layers(model: nn.Module) -> Iterable[nn.Module]:
    """The model's layers in order, with every nn.Sequential followed by its own."""
    yield model
    if type(model) is nn.Sequential:
        for child in model:
            yield from _layers(child)


def _altered(layer: nn.Module) -> bool:
    """Whether calling ``layer`` may do anything besides its class's forward."""
    hooks = (
        "_forward_hooks",
        "_forward_pre_hooks",
        "_backward_hooks",
        "_backward_pre_hooks",
    )
    return (
        any(getattr(layer, name) for name in hooks)
        or any(getattr(_module_globals, f"_global{name}") for name in hooks)
        or "forward" in vars(layer)
        or type(layer).__call__ is not nn.Module.__call__
        or "parametrizations" in layer._modules
        or any(name in vars(layer) for name in ("weight", "head"))  # the old weight_norm's plain tensor
    )


def _from_module(phi: nn.Module, dtype: torch.dtype) -> Activation | str:
    """The activation that a torch module computes, or why there is none."""
    make = _MODULES.get(type(phi))
    if make is None:
        return f"{type(phi).__name__} is not among the recognised activations"
    if isinstance(phi, nn.GELU) and phi.approximate != "none":
        return f"nn.GELU(approximate={phi.approximate!r}) is an approximation"
    if isinstance(phi, nn.Softplus) and not _cutoff_is_rounding(phi, dtype):
        return f"nn.Softplus becomes linear from {phi.threshold} on, which {dtype} can tell from softplus"
    try:
        return make(phi)
    except (TypeError, ValueError) as error:
        return f"{phi!r} is out of the activation's range: {error}"


def _cutoff_is_rounding(phi: nn.Softplus, dtype: torch.dtype) -> bool:
    """Where βh exceeds its threshold t, torch replaces softplus by h: the derivative then errs by e^−t / (1 + e^−t)."""
    unit_roundoff = torch.finfo(torch.float64 if dtype == torch.float64 else torch.float32).eps / 2
    return phi.beta > 0 and math.exp(-phi.threshold) <= unit_roundoff


_MODULES: dict[type[nn.Module], Callable[[Any], Activation]] = {
    nn.Identity: lambda phi: _activation.Identity(),
    nn.ReLU: lambda phi: _activation.ReLU(),
    nn.LeakyReLU: lambda phi: _activation.LeakyReLU(phi.negative_slope),
    nn.Tanh: lambda phi: _activation.Tanh(),
    nn.Sigmoid: lambda phi: _activation.Sigmoid(),
    nn.SiLU: lambda phi: _activation.SiLU(),
    nn.GELU: lambda phi: _activation.GELU(),
    nn.Softplus: lambda phi: _activation.Softplus(phi.beta),
}


def _reason_against(view: TwoLayerView) -> str | None:
    """Why the ops would not take these tensors; None if they would."""
    tensors = [t for t in (view.W, view.a, view.bias, view.head_bias) if t is not None]
    if any(type(t) is not Tensor for t in tensors):
        return "its tensors are of a subclass of torch.Tensor"
    if any(t.dtype not in _DTYPES for t in tensors):
        return f"its dtype is {view.W.dtype}, and the kernels take float64, float32 and bfloat16"
    if len({t.dtype for t in tensors}) > 1 or len({t.device for t in tensors}) > 1:
        return "its tensors differ in dtype or device"
    if view.W.device.type not in ("cpu", "cuda"):
        return f"its tensors are on {view.W.device}"
    return None
