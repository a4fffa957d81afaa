"""``python -m bench.split``: where the gram attack's time goes, and how near its products come to the machine's peak.

No clock runs inside the attack. The parts are differences of whole calls, interleaved: none of K = 0 steps, one step,
all steps; with and without the points.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

import benign_kernels as bk
from bench import limits
from bench.cases import CASES, Case
from bench.formulas import make_problem
from bench.timing import CpuClock

#: Shapes that the planner gives to the gram walk.
_CASES = [
    case
    for case in CASES.values()
    if "attack" in case.groups and case.family == "l2_attack" and case.dtype == "float32" and case.m <= 2 * case.d
]


def split(case: Case, rounds: int, clock: CpuClock) -> dict[str, float]:
    """Seconds of H and G, of the first V and its step, of the rest of the walk, and of the points; medians."""
    p = make_problem(case)

    def call(steps: int, need: str) -> Callable[[], Any]:
        options = {"radius": p.radius, "step": p.step, "steps": steps, "activation": case.activation, "need": need}
        return lambda: bk.l2_pgd(p.x, p.y, p.W, p.a, algorithm="gram", **options)

    calls = [call(0, "margin"), call(1, "margin"), call(case.steps, "margin"), call(case.steps, "x")]
    times = np.array([[clock.time(one, 1) for one in calls] for _ in range(rounds + 1)])[1:]
    set_up, one, margins, points = np.median(times, axis=0)
    parts = {"set-up": set_up, "first V": one - set_up, "walk": margins - one, "finish": points - margins}
    return {**parts, "all": points}


def set_up_flops(case: Case) -> float:
    """H0, and G by its lower triangle."""
    return 2.0 * case.n * case.m * case.d + 1.0 * case.m * case.m * case.d


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.split", description=__doc__)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    clock = CpuClock(processor_time=arguments.threads == 1)
    peak = limits.measure("cpu", arguments.threads).flops["float32"]
    print(f"{arguments.threads} threads, peak {peak / 1e9:.0f} GFLOP/s float32; ms, median of {arguments.rounds}")
    print(
        f"{'n × d × m':>20} {'set-up':>9} {'first V':>9} {'walk':>9} {'finish':>9} {'all':>9}  of peak: set-up, finish"
    )
    for case in _CASES:
        parts = split(case, arguments.rounds, clock)
        rates = set_up_flops(case) / parts["set-up"] / peak, 2.0 * case.n * case.m * case.d / parts["finish"] / peak
        times = " ".join(f"{1e3 * seconds:9.3f}" for seconds in parts.values())
        name = f"{case.n} × {case.d} × {case.m}"
        print(f"{name:>20} {times}  {rates[0]:.0%}, {rates[1]:.0%}  {case.activation}")


if __name__ == "__main__":
    main()
