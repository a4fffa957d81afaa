"""Where and with what a row was measured."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch

from benign_kernels._commands import UsageError

ROOT = Path(__file__).resolve().parents[1]


def use_threads(count: int | None) -> int:
    """Sets torch's threads, and confines the process to as many CPUs so that no other library uses more."""
    if count is None:
        return torch.get_num_threads()
    available = (
        sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    )
    if not 1 <= count <= len(available):
        raise UsageError(f"--threads: got {count}, expected 1 to {len(available)}, the CPUs this process may use")
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, available[:count])
    torch.set_num_threads(count)
    return count


def hardware(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    found = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    name = found.get("model name") or platform.processor() or platform.machine()
    family = f" family {found['cpu family']} model {found['model']}" if {"cpu family", "model"} <= found.keys() else ""
    return name + family


def simd() -> str:
    return torch.backends.cpu.get_cpu_capability()


def accelerator(device: str) -> dict[str, Any]:
    """The GPU's driver, and its clocks in MHz right now, as nvidia-smi tells them; nothing where it does not."""
    if device != "cuda":
        return {}
    fields = {"driver": "driver_version", "clock_mhz": "clocks.sm", "memory_clock_mhz": "clocks.mem"}
    gpu = f"--id=GPU-{torch.cuda.get_device_properties(torch.cuda.current_device()).uuid}"
    command = ["nvidia-smi", gpu, f"--query-gpu={','.join(fields.values())}", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout
        driver, *clocks = (part.strip() for part in told.split(","))
        return dict(zip(fields, (driver, *map(int, clocks)), strict=True))
    except (OSError, subprocess.SubprocessError, ValueError):
        return {}


def revision() -> str:
    """The commit of this checkout, with + where a tracked file differs from it."""

    def git(*arguments: str) -> str:
        return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "--untracked-files=no", "--", ".", ":!bench/results")
        return git("rev-parse", "--short", "HEAD") + ("+" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def load() -> float:
    """Processes that wanted a CPU over the last minute, this one included."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else 0.0


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
