"""What an attack takes beside its inputs: points, and what an algorithm keeps of them; never K of anything."""

from __future__ import annotations

import subprocess
import sys

import pytest

#: n, d, m of float32 inputs. In megabytes: x 16, W 32, a hidden layer 32, W Wᵀ 64.
N, D, M = 2000, 2000, 4000
POINTS, HIDDEN, GRAM = 4e-6 * N * D, 4e-6 * N * M, 4e-6 * M * M
#: Panels of a thread, and what the allocator rounds up to. Measured: 5 to 19.
TILES = 24

# The high-water mark of the resident set, in a process of its own; a small attack first, for what is loaded once.
MEASURE = """
import sys
from pathlib import Path
import torch
import benign_kernels as bk

def attack(n, d, m, **options):
    x, W = torch.randn(n, d), torch.randn(m, d) / d**0.5
    y, a = torch.ones(n), torch.ones(m) / m**0.5
    return lambda: bk.l2_pgd(x, y, W, a, radius=0.1, **options)

def resident(name):
    return next(int(line.split()[1]) for line in Path("/proc/self/status").read_text().splitlines() if name in line)

torch.set_num_threads(1)
n, d, m, steps = map(int, sys.argv[1:5])
options = {"algorithm": sys.argv[5], "need": sys.argv[6]}
attack(200, 200, 200, **options)()
call = attack(n, d, m, steps=steps, **options)
try:
    Path("/proc/self/clear_refs").write_text("5")
except OSError:
    sys.exit(3)
before = resident("VmRSS")
call()
print((resident("VmHWM") - before) / 1e3)
"""


def megabytes(algorithm: str, need: str, steps: int) -> float:
    command = [sys.executable, "-c", MEASURE, *map(str, (N, D, M, steps)), algorithm, need]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip("this system does not tell the peak of a process's memory")
    assert done.returncode == 0, done.stderr
    return float(done.stdout)


@pytest.mark.parametrize(
    ("algorithm", "need", "most"),
    [
        ("dense", "x", POINTS + TILES),
        ("dense", "margin", TILES),
        ("half_sparse", "x", POINTS + 2 * TILES),  # each slab of a panel keeps its share of g
        ("gram", "x", 2 * POINTS + 8 * HIDDEN + GRAM + TILES),  # the points, and the way to them before it is scaled
        ("gram", "margin", 8 * HIDDEN + GRAM + TILES),
    ],
)
def test_memory_is_that_of_the_points_and_of_the_hidden_layer(algorithm: str, need: str, most: float) -> None:
    assert megabytes(algorithm, need, steps=2) <= most
