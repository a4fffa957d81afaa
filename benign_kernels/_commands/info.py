"""Show how the library was built, and what of it this machine uses."""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

import torch

from .. import __version__
from .._build_info import build_info


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")


def main(arguments: argparse.Namespace) -> int:
    facts = collect()
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return 0
    for section, values in facts.items():
        print(section)
        for name, value in values.items():
            print(f"  {name:14} {' '.join(value) if isinstance(value, (list, tuple)) else value}")
    return 0


def collect() -> dict[str, dict[str, Any]]:
    """The facts by section."""
    built = dataclasses.asdict(build_info())
    return {
        "benign_kernels": {"version": __version__, **built},
        "torch": {
            "version": torch.__version__,
            "cuda": torch.version.cuda or "none",
            "threads": torch.get_num_threads(),
        },
        "devices": {"cpu": _cpu_name(), **_cuda_devices(built["architectures"])},
    }


def _cpu_name() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8")
    except OSError:
        text = ""
    model = re.search(r"^model name\s*:\s*(.*)$", text, re.MULTILINE)
    return f"{model.group(1) if model else platform.machine()}, {os.cpu_count()} cores"


def _cuda_devices(architectures: tuple[str, ...]) -> dict[str, str]:
    devices = {}
    for index in range(torch.cuda.device_count() if torch.cuda.is_available() else 0):
        properties = torch.cuda.get_device_properties(index)
        code = code_for((properties.major, properties.minor), architectures)
        memory = properties.total_memory / 2**30
        devices[f"cuda:{index}"] = (
            f"{properties.name}, {memory:.0f} GiB, sm_{properties.major}{properties.minor}: {code}"
        )
    return devices


def code_for(capability: tuple[int, int], architectures: tuple[str, ...]) -> str:
    """Which of the built code the driver runs on a device of this capability."""
    major, minor = capability
    own = f"sm_{major}{minor}a"
    if own in architectures:
        return f"runs {own}"
    cubins = [name for name in architectures if name.startswith("sm_") and not name.endswith("a")]
    fitting = [name for name in cubins if int(name[3:-1]) == major and int(name[-1]) <= minor]
    if fitting:
        return f"runs {max(fitting)}"
    ptx = [name for name in architectures if name.startswith("compute_") and int(name[8:]) <= 10 * major + minor]
    return (
        f"compiles {max(ptx)} on first use"
        if ptx
        else f"not supported by this build ({' '.join(architectures) or 'CPU only'})"
    )
