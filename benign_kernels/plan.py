"""The planner: which algorithm an attack uses, what it costs, and why.

The cost model is in ``csrc/plan``; this module checks the arguments and gives the answer a Python shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ._arguments import integer, one_of
from .activation import Activation, resolve

_ITEM_SIZES = {torch.float32: 4, torch.float64: 8, torch.bfloat16: 2}
_DEVICES = ("cpu", "cuda")


@dataclass(frozen=True)
class Plan:
    """What :func:`plan` decided.

    ``flops`` are multiplications and additions of the whole attack, ``bytes`` its traffic to and from main memory,
    and ``reason`` is one sentence with the numbers.
    """

    algorithm: str
    flops: float
    bytes: float
    reason: str


def plan(
    *,
    n: int,
    d: int,
    m: int,
    patches: int = 1,
    heads: int = 1,
    steps: int = 20,
    networks: int = 1,
    activation: str | Activation = "relu",
    dtype: torch.dtype = torch.float32,
    device: str | torch.device = "cpu",
    norm: str = "l2",
    box: bool = False,
    trajectory: bool = False,
    start: bool = False,
    gram: bool = False,
    need: str = "x",
    algorithm: str = "auto",
) -> Plan:
    """The algorithm for ``steps`` PGD steps on ``n`` samples of ``patches`` × ``d`` against ``networks`` networks.

    ``algorithm="auto"`` takes the cheapest that applies; a name forces it. The switches say what `l2_pgd` is asked for:
    a box, the trajectory, a start, a Gram matrix that is known, and ``need``.

    >>> plan(n=100, d=10_000, m=500, steps=20).algorithm
    'gram'
    """
    least = {"n": 0, "d": 0, "m": 0, "patches": 1, "heads": 1, "steps": 0, "networks": 0}
    given = {"n": n, "d": d, "m": m, "patches": patches, "heads": heads, "steps": steps, "networks": networks}
    sizes = {name: integer(name, value, least[name]) for name, value in given.items()}
    if dtype not in _ITEM_SIZES:
        raise TypeError(f"dtype: got {dtype!r}, expected one of {', '.join(str(known) for known in _ITEM_SIZES)}")
    one_of("norm", norm, ("l2", "linf"))
    one_of("need", need, ("x", "margin"))
    if not isinstance(algorithm, str):
        raise TypeError(f"algorithm: got {algorithm!r}, expected a string")

    from . import _host  # the compiled module is needed here only

    result = _host.plan(
        **sizes,
        piecewise_linear=resolve(activation).piecewise_linear,
        item_size=_ITEM_SIZES[dtype],
        cuda=_device_type(device) == "cuda",
        l2=norm == "l2",
        box=box,
        trajectory=trajectory,
        start=start,
        gram=gram,
        need_x=need == "x",
        algorithm=algorithm,
    )
    return Plan(result.algorithm, result.flops, result.bytes, result.reason)


def _device_type(device: str | torch.device) -> str:
    if not isinstance(device, (str, torch.device)):
        raise TypeError(f"device: got {device!r}, expected a torch.device or its name")
    try:
        kind = torch.device(device).type
    except RuntimeError:
        kind = ""
    if kind not in _DEVICES:
        raise ValueError(f"device: got {str(device)!r}, expected one of {', '.join(_DEVICES)}")
    return kind
