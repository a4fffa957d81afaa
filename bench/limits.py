"""What this machine can do at best, measured: multiply-adds per second by precision, and copied bytes per second."""

from __future__ import annotations

import ctypes
import functools
import os
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from bench.cases import Case
from bench.timing import Clock, CpuClock, CudaClock

_SOURCE = Path(__file__).with_name("fma.c")
_TRIES = 15
#: For all tries of one limit: a product of 8192³ in float64 takes seconds on a GPU that is made for float32.
_SECONDS = 1.0
#: Many bursts of a few milliseconds: on a machine that others use too, the best of them is the nearest to its peak.
_ITERATIONS = 1_000_000
_BURSTS = 50


@dataclass(frozen=True)
class Limits:
    """``flops``: per second, by dtype (and "tf32" on CUDA); ``copy``: bytes read and written per second."""

    flops: dict[str, float]
    copy: float

    def seconds(self, case: Case) -> tuple[float, str]:
        """The least that the dense algorithm needs with nothing cached, and which limit says so."""
        products, traffic = case.flops / self.flops[case.dtype], case.bytes / self.copy
        return (products, "fma") if products >= traffic else (traffic, "copy")

    def __str__(self) -> str:
        peaks = ", ".join(f"{name} {peak / 1e9:.0f}" for name, peak in self.flops.items())
        return f"{peaks} GFLOP/s; copy {self.copy / 1e9:.1f} GB/s"


@functools.cache
def measure(device: str, threads: int) -> Limits:
    """Measured once in a process, in about a second."""
    if device == "cuda":
        return _measure_cuda()
    clock = CpuClock(processor_time=threads == 1)  # which a busy machine does not falsify
    flops = {
        "float32": max(_fma("float32", threads), _matmul(torch.float32, clock)),
        "float64": max(_fma("float64", threads), _matmul(torch.float64, clock)),
    }
    # A bfloat16 network may as well be computed in float32: the limit is whichever the machine does faster.
    flops["bfloat16"] = max(flops["float32"], _matmul(torch.bfloat16, clock))
    return Limits(flops, _copy(torch.empty(2**26), clock))


def _best(call: Callable[[], object], clock: Clock) -> float:
    clock.time(call, 1)
    tries: list[float] = []
    while not tries or (len(tries) < _TRIES and sum(tries) < _SECONDS):
        tries.append(clock.time(call, 1))
    return min(tries)


def _copy(source: torch.Tensor, clock: Clock) -> float:
    target = torch.empty_like(source)
    return 2 * source.nbytes / _best(lambda: target.copy_(source), clock)


def _matmul(dtype: torch.dtype, clock: Clock, size: int = 1024) -> float:
    """torch's best product of this precision; for float32, oneDNN's (MKL is slow on AMD)."""
    A, B = torch.ones(size, size, dtype=dtype), torch.ones(size, size, dtype=dtype)
    products: list[Callable[[], object]] = [lambda: A @ B.T]
    if torch.backends.mkldnn.is_available() and dtype == torch.float32:
        products.append(lambda: torch.ops.mkldnn._linear_pointwise(A, B, None, "none", [], ""))
    return 2 * size**3 / min(_best(product, clock) for product in products)


def _fma(name: str, threads: int) -> float:
    """Per second over all threads; 0 where there is no C compiler."""
    library = _fma_library()
    if library is None:
        return 0.0
    function = getattr(library, f"fma_{name}")
    function.restype, number = ctypes.c_double, ctypes.c_float if name == "float32" else ctypes.c_double
    function.argtypes = [ctypes.c_long, number, number]
    per_iteration = getattr(library, f"fma_{name}_flops")()
    best: list[float] = []

    def run() -> None:
        # ctypes releases the interpreter's lock during a call, so the threads do run at the same time; each has its own
        # best burst, since the others on the machine need not leave all CPUs alone at once.
        bursts = []
        for _ in range(_BURSTS):
            begin = time.perf_counter()
            function(_ITERATIONS, 0.5, 1.0)
            bursts.append(time.perf_counter() - begin)
        best.append(per_iteration * _ITERATIONS / min(bursts))

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sum(best)


@functools.cache
def _fma_library() -> ctypes.CDLL | None:
    compiler = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/fma.so"
        options = ["-O2", "-march=native", "-ffp-contract=fast", "-shared", "-fPIC"]
        if subprocess.run([*compiler.split(), *options, str(_SOURCE), "-o", path], capture_output=True).returncode:
            return None
        return ctypes.CDLL(path)


def _measure_cuda(size: int = 8192) -> Limits:
    clock, flops = CudaClock(), {}
    before = torch.backends.cuda.matmul.allow_tf32
    try:
        for name in ("float32", "tf32", "float64", "bfloat16"):
            torch.backends.cuda.matmul.allow_tf32 = name == "tf32"
            # Random numbers: on constant ones a GPU draws less power and runs faster than it ever does at work.
            numbers = torch.randn(2, size, size, device="cuda")
            A, B = numbers if name == "tf32" else numbers.to(getattr(torch, name))
            flops[name] = 2 * size**3 / _best(functools.partial(torch.mm, A, B), clock)
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return Limits(flops, _copy(torch.empty(2**28, device="cuda"), clock))
