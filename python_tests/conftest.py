"""What all tests share: the device fixture, and when marked tests run."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
import torch

from benign_kernels._build_info import set_simd_level, simd_level

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="run the tests marked slow as well")


def pytest_configure(config: pytest.Config) -> None:
    # Each of pytest-xdist's processes takes its share of the threads: more threads than cores only wait for each other.
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    # A process that was started in the background ignores it, and so would its children.
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reasons = {}
    if not torch.cuda.is_available():
        reasons["gpu"] = "needs a CUDA device"
    if not config.getoption("--slow"):
        reasons["slow"] = "slow: run with --slow"
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    """Runs the test on the CPU and, marked gpu, on CUDA."""
    return torch.device(request.param)


@pytest.fixture(params=["amx", "v4", "v3", "base"])
def each_simd_level(request: pytest.FixtureRequest, device: torch.device) -> Iterator[None]:
    """Runs the test with the CPU kernels of every level that this machine has; on a GPU once."""
    before = simd_level()
    if device.type != "cpu" and request.param != "base":
        pytest.skip("there are no levels on a GPU")
    try:
        set_simd_level(request.param)
    except ValueError:
        pytest.skip(f"this machine has no {request.param}")
    yield
    set_simd_level(before)


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
