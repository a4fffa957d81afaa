"""What is timed: a case is a family of ops, a shape, an activation and a dtype.  One more row is one more case."""

from __future__ import annotations

import difflib
import fnmatch
import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from benign_kernels._commands import UsageError

#: float32 and bfloat16 networks alike have float32 iterates: a bfloat16 one cannot hold a small step.
COMPUTE = {"float32": "float32", "float64": "float64", "bfloat16": "float32"}
ITEM_SIZE = {"float32": 4, "float64": 8, "bfloat16": 2}


class Family(NamedTuple):
    """``products`` n×m×d products (2nmd operations each) per call, or per step of an attack."""

    products: int
    biased: bool = False
    attack: str | None = None


FAMILIES = {
    "forward": Family(1),
    "tracked": Family(1),  # the forward pass where x, W and a require a gradient, no backward pass
    "value_and_grad": Family(2),
    "parameter_grad": Family(2, biased=True),
    "autograd": Family(3),  # forward and backward to x, W and a
    "l2_step": Family(0),
    "l2_attack": Family(2, attack="l2"),
    "linf_attack": Family(2, attack="linf"),
    "training": Family(2),  # one iteration: an attack, the gradient at what it found, a step of gradient descent
}


@dataclass(frozen=True)
class Case:
    """One thing to time.  ``at_most``: seconds per call that ours must not exceed on CPU, whatever the others take."""

    family: str
    n: int
    d: int
    m: int = 0
    activation: str = "relu"
    dtype: str = "float32"
    steps: int = 0
    at_most: float | None = None
    groups: frozenset[str] = frozenset()
    networks: int = 1

    @property
    def name(self) -> str:
        if self.family == "l2_step":
            return f"{self.family}/{self.n}x{self.d}/{self.dtype}"
        steps = f"/K{self.steps}" if self.steps else ""
        networks = f"{self.networks}*" if self.networks > 1 else ""
        return f"{self.family}/{self.activation}/{networks}{self.n}x{self.d}x{self.m}{steps}/{self.dtype}"

    @property
    def seed(self) -> int:
        return zlib.crc32(self.name.encode())

    @property
    def flops(self) -> float:
        """Operations in the matrix products of the dense algorithm."""
        products = FAMILIES[self.family].products * max(1, self.steps) + (2 if self.family == "training" else 0)
        return 2.0 * self.networks * self.n * self.m * self.d * products

    @property
    def bytes(self) -> float:
        """Traffic that no algorithm avoids when nothing is cached: inputs read once, results written once."""
        x, W = self.n * self.d, self.m * self.d
        elements = {
            "forward": x + W,
            "tracked": x + W,
            "value_and_grad": 2 * x + W,
            "parameter_grad": x + 2 * W,
            "autograd": 2 * x + 2 * W,
            "l2_step": 4 * x,
            "l2_attack": 2 * x + W,
            "linf_attack": 2 * x + W,
            "training": x + 2 * W * self.networks,
        }
        return float(elements[self.family] * ITEM_SIZE[self.dtype])


def _cases(
    group: str,
    families: str,
    shapes: Iterable[Sequence[int]],
    activations: str = "relu",
    dtypes: str = "float32",
    steps: int = 20,
    at_most: float | None = None,
    networks: int = 1,
) -> Iterator[Case]:
    for family, shape, activation, dtype in itertools.product(
        families.split(), shapes, activations.split(), dtypes.split()
    ):
        n, d, m = (*shape, 0) if len(shape) == 2 else shape
        k = steps if FAMILIES[family].attack or family == "training" else 0
        yield Case(family, n, d, m, activation, dtype, k, at_most, frozenset({group}), networks)


_EVERY_DTYPE = "float32 float64 bfloat16"
#: n·m·d from 10⁶ up; one sample, few samples, many; d small and large; m small and huge.
_FLOOR_SHAPES = (
    (100, 100, 100),
    (1, 1000, 1000),
    (1, 10000, 500),
    (1, 64, 65536),
    (4, 8, 100_000),
    (8, 784, 1000),
    (20, 30, 2000),
    (1000, 10, 5000),
    (20_000, 2, 500),
    (50_000, 30, 64),
    (100, 10_000, 500),
    (1000, 784, 2048),
    (256, 100, 65536),
)
_STEP_SHAPES = ((1, 1_000_000), (100, 10_000), (1000, 784), (100_000, 10))
_CUDA_ATTACK_SHAPES = (
    (100, 10_000, 500),
    (1000, 784, 2048),
    (4096, 784, 16384),
    (256, 100, 1_048_576),
    (8192, 1024, 65536),
    (512, 3072, 4096),
    (50, 1000, 50),
)
_OPS = "forward value_and_grad parameter_grad"

_TABLE = (
    _cases("call", "forward", [(4, 8, 16)], at_most=8e-6),
    _cases("call", "tracked", [(4, 8, 16)], at_most=25e-6),
    _cases("call", "value_and_grad autograd l2_step", [(4, 8, 16)]),
    _cases("attack", "l2_attack", [(100, 10_000, 500), (1000, 784, 2048), (256, 100, 65536), (20, 30, 64)]),
    _cases("attack", "l2_attack", [(2000, 3072, 1024)], activations="tanh"),
    _cases("attack", "l2_attack", [(100, 1100, 1000), (100, 150, 50)]),
    _cases("attack", "l2_attack", [(1000, 784, 2048)], dtypes="float64 bfloat16"),
    _cases("attack", "linf_attack", [(1000, 784, 2048)]),
    _cases("ops", f"{_OPS} autograd", [(1000, 784, 2048), (100, 10_000, 500)], "relu tanh"),
    _cases("ops", f"{_OPS} autograd", [(1000, 784, 2048)], dtypes="float64 bfloat16"),
    _cases("step", "l2_step", _STEP_SHAPES, dtypes="float32 float64"),
    _cases("floor", _OPS, _FLOOR_SHAPES, "relu tanh", _EVERY_DTYPE),
    _cases("floor", "l2_attack", _FLOOR_SHAPES, "relu tanh", _EVERY_DTYPE, steps=3),
    _cases("floor", "l2_step", _STEP_SHAPES, dtypes="float32 float64"),
    _cases("cuda", "l2_attack", _CUDA_ATTACK_SHAPES),
    _cases("training", "training", [(100, 5000, 1000), (100, 30_000, 1000), (100, 5000, 100)]),
    _cases("training", "training", [(100, 5000, 50)], networks=64),
    _cases("quick", f"{_OPS} autograd l2_attack", [(64, 128, 256)], "relu tanh"),
    _cases("quick", "l2_step", [(100, 1000)]),
    _cases("tiny", f"{_OPS} tracked autograd l2_attack linf_attack", [(6, 5, 32)], "relu tanh", _EVERY_DTYPE, steps=3),
    _cases("tiny", "training", [(6, 40, 8)], "relu tanh", "float32 float64", steps=3),
    _cases("tiny", "training", [(6, 40, 8)], steps=3, networks=2),
    _cases("tiny", "l2_step", [(6, 5)], dtypes="float32 float64"),
)


def _merged(cases: Iterable[Case]) -> dict[str, Case]:
    """By name; a case listed in several groups belongs to all of them."""
    found: dict[str, Case] = {}
    for case in cases:
        known = found.get(case.name, case)
        found[case.name] = replace(known, groups=known.groups | case.groups, at_most=known.at_most or case.at_most)
    return found


CASES = _merged(itertools.chain(*_TABLE))
GROUPS = sorted({group for case in CASES.values() for group in case.groups})
#: What runs when nothing is named.
DEFAULT_GROUPS = {"cpu": ("call", "ops", "step", "attack"), "cuda": ("call", "ops", "step", "cuda")}


def select(patterns: Sequence[str], dtype: str | None = None) -> list[Case]:
    """The cases of the groups or name globs ``patterns``, in the table's order."""
    chosen: set[str] = set()
    for pattern in patterns:
        names = {name for name, case in CASES.items() if pattern in case.groups or fnmatch.fnmatch(name, pattern)}
        if not names:
            near = difflib.get_close_matches(pattern, [*GROUPS, *CASES], n=2)
            hint = f"; did you mean {' or '.join(near)}?" if near else ""
            raise UsageError(
                f"--case: nothing is named {pattern!r}{hint} (groups: {', '.join(GROUPS)}; "
                f"names: FAMILY/ACTIVATION/NxDxM[/KSTEPS]/DTYPE, with * for any; families: {', '.join(FAMILIES)})"
            )
        chosen |= names
    cases = [case for name, case in CASES.items() if name in chosen and dtype in (None, case.dtype)]
    if not cases:
        raise UsageError(f"--dtype: none of the chosen cases is in {dtype}")
    return cases
