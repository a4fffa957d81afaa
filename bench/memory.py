"""Peak memory of one call beyond its inputs, measured in a process of its own.

tracemalloc does not see tensors; the kernel's high-water mark of the resident set does, and it can be reset.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

import torch

from bench import providers
from bench.cases import CASES
from bench.formulas import make_problem
from bench.machine import ROOT, use_threads

_CALLS = 2


def extra_mb(case: str, provider: str, device: str, threads: int) -> float | None:
    """Megabytes; None where the system does not tell."""
    command = [sys.executable, "-m", "bench.memory", case, provider, device, str(threads)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if done.returncode:
        return None
    found: float | None = json.loads(done.stdout.splitlines()[-1])
    return found


def _resident(field: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1024
    raise OSError(f"/proc/self/status has no {field}")


def _measure(case: str, provider: str, device: str) -> float | None:
    # Loaded and started beforehand: the library itself, the thread pool, oneDNN.
    chosen = providers.PROVIDERS[provider]
    small = make_problem(CASES["forward/relu/64x128x256/float32"], device)
    if chosen.unavailable(small.case, device) is None:
        chosen.build(small).call()
    problem = make_problem(CASES[case], device)
    if device == "cuda":
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run = chosen.build(problem)
        for _ in range(_CALLS):
            run.call()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    try:
        Path("/proc/self/clear_refs").write_text("5")  # resets the high-water mark
        before_mb = _resident("VmRSS")
    except OSError:
        return None
    run = chosen.build(problem)
    for _ in range(_CALLS):
        run.call()
    return _resident("VmHWM") - before_mb


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    for name in ("case", "provider", "device"):
        parser.add_argument(name)
    parser.add_argument("threads", type=int)
    arguments = parser.parse_args()
    use_threads(arguments.threads)
    print(json.dumps(_measure(arguments.case, arguments.provider, arguments.device)))
