"""``python -m bench.planner``: how much time the planner's choice of an algorithm loses against the best one.

Every algorithm that applies is timed on a grid of shapes, activations and sizes of steps; regret is the time of the
planner's choice over the time of the fastest. The constants in csrc/plan/cost.cpp were fitted to its output.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

import benign_kernels as bk
from bench.cases import Case
from bench.formulas import make_problem
from bench.timing import CpuClock

#: (n, d, m): m far below d to far above it, one sample to thousands.
SHAPES = (
    *((20, 30, 64), (100, 150, 50), (5, 200, 300), (1, 784, 512), (1, 100, 20_000), (64, 10, 300)),
    *((64, 64, 64), (64, 512, 128), (64, 128, 512), (64, 2000, 64), (64, 100, 4000), (16, 784, 4000)),
    *((512, 100, 256), (512, 256, 1024), (512, 784, 256), (256, 3072, 512), (256, 40, 4000), (100, 5000, 250)),
    *((100, 1100, 1000), (2000, 100, 100), (2000, 784, 128), (1000, 50, 1000)),
    *((1, 10_000, 100), (1, 1000, 300), (1000, 10, 100)),
)
STEPS = (1, 3, 20)
#: Beyond, G takes gigabytes, and no planner that is not broken chooses it.
_MOST_GRAM = 8192
#: Steps as a part of the radius 1, which is a typical |h|: about 0.2, 2 and 20 % of the gates flip in each.
FLIPS = {"few": 0.02, "some": 0.1, "many": 1.0}


@dataclass(frozen=True)
class Row:
    """Seconds by algorithm for one problem, and what the planner chose."""

    n: int
    d: int
    m: int
    steps: int
    activation: str
    flips: str
    chosen: str
    seconds: dict[str, float]

    @property
    def regret(self) -> float:
        return self.seconds[self.chosen] / min(self.seconds.values())


def problems() -> Iterator[tuple[Case, str]]:
    for n, d, m in SHAPES:
        for steps in STEPS:
            for flips in FLIPS:
                yield Case("l2_attack", n, d, m, "relu", "float32", steps), flips
            yield Case("l2_attack", n, d, m, "tanh", "float32", steps), "few"


def measure(case: Case, flips: str, rounds: int, clock: CpuClock) -> Row:
    p = make_problem(case)
    sizes = {"n": case.n, "d": case.d, "m": case.m, "steps": case.steps, "activation": case.activation}
    options = {"radius": 1.0, "step": FLIPS[flips], "steps": case.steps, "activation": case.activation}
    names = ["dense"] + ["half_sparse"] * (case.activation == "relu") + ["gram"] * (case.m <= _MOST_GRAM)
    calls = {name: partial(bk.l2_pgd, p.x, p.y, p.W, p.a, algorithm=name, **options) for name in names}
    first = {name: clock.time(call, 2) for name, call in calls.items()}
    repeats = max(1, int(2e-3 / min(first.values())))
    times = np.array([[clock.time(call, repeats) for call in calls.values()] for _ in range(rounds)])  # interleaved
    seconds = dict(zip(names, np.median(times, axis=0).tolist(), strict=True))
    return Row(**sizes, flips=flips, chosen=bk.plan(**sizes).algorithm, seconds=seconds)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.planner", description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write a row for each problem")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = CpuClock(processor_time=arguments.threads == 1)
    rows = []
    for case, flips in problems():
        rows.append(measure(case, flips, arguments.rounds, clock))
        row = rows[-1]
        times = ", ".join(f"{name} {1e3 * seconds:.3f}" for name, seconds in row.seconds.items())
        name = f"{row.n}×{row.d}×{row.m} K={row.steps} {row.activation}, {flips} flips"
        print(f"{row.regret:5.2f}  {name}: {row.chosen} ({times} ms)")
    regrets = np.array([row.regret for row in rows])
    middle, high, worst = np.quantile(regrets, [0.5, 0.95, 1])
    print(f"regret over {len(rows)} problems: median {middle:.2f}, 95 % {high:.2f}, worst {worst:.2f}")
    if arguments.json:
        arguments.json.write_text("".join(json.dumps({**asdict(row), "regret": row.regret}) + "\n" for row in rows))


if __name__ == "__main__":
    main()
