"""Finds nvcc and decides what it compiles for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

# What a cubin is built for; "a" marks the features of one generation only. Other cards get theirs from the PTX of
# compute_80 when the library is first used on them (sm_86 and sm_89 run the cubin of sm_80 as it is).
CUBINS = ("75", "80", "90a", "100a")
PTX = "80"


class CudaError(RuntimeError):
    pass


@dataclass(frozen=True)
class Cuda:
    nvcc: Path
    home: Path
    version: str
    architectures: tuple[str, ...]

    @property
    def gencode(self) -> list[str]:
        flags = []
        for architecture in self.architectures:
            kind, number = architecture.split("_")
            code = architecture if kind == "sm" else f"compute_{number}"
            flags.append(f"-gencode=arch=compute_{number},code={code}")
        return flags

    @property
    def library_folder(self) -> Path:
        for folder in (self.home / "lib64", *sorted(self.home.glob("targets/*/lib"))):
            if (folder / "libcudart_static.a").exists():
                return folder
        raise CudaError(f"nvcc is {self.nvcc}, but its toolkit {self.home} has no libcudart_static.a")


def find_cuda() -> tuple[Cuda | None, str]:
    """The CUDA toolkit to use, or None, and one line that says which and why."""
    wish = os.environ.get("BENIGN_KERNELS_CUDA", "")
    if wish not in ("", "0", "1"):
        raise CudaError(f"BENIGN_KERNELS_CUDA: got {wish!r}, expected 0 (CPU only), 1 (CUDA or fail) or unset")
    if wish == "0":
        return None, "CPU only: BENIGN_KERNELS_CUDA=0"
    try:
        cuda = _probe()
    except CudaError as error:
        if wish == "1":
            raise
        return None, f"CPU only: {error}"
    return cuda, f"CUDA {cuda.version} from {cuda.nvcc} for {' '.join(cuda.architectures)}"


def _probe() -> Cuda:
    nvcc = _find_nvcc()
    if nvcc is None:
        raise CudaError("no nvcc (set CUDA_HOME to a CUDA toolkit to build the CUDA half)")
    version = re.search(r"release [\d.]+, V([\d.]+)", _output(nvcc, "--version"))
    if version is None:
        raise CudaError(f"{nvcc} --version names no release")
    known = set(_output(nvcc, "--list-gpu-arch").split())
    names = [f"sm_{number}" for number in CUBINS if f"compute_{number.rstrip('a')}" in known]
    if f"compute_{PTX}" in known:
        names.append(f"compute_{PTX}")
    if not names:
        raise CudaError(f"{nvcc} (CUDA {version.group(1)}) knows none of the architectures {' '.join(CUBINS)}")
    cuda = Cuda(nvcc, _home_of(nvcc), version.group(1), tuple(names))
    _compile_something(cuda)
    return cuda


def _find_nvcc() -> Path | None:
    for home in (os.environ.get("CUDA_HOME"), os.environ.get("CUDA_PATH")):
        if home:
            nvcc = Path(home) / "bin" / "nvcc"
            if not nvcc.exists():
                raise CudaError(f"CUDA_HOME is {home}, which has no bin/nvcc")
            return nvcc
    found = shutil.which("nvcc")
    if found:
        return Path(found)
    conventional = Path("/usr/local/cuda/bin/nvcc")
    return conventional if conventional.exists() else None


def _home_of(nvcc: Path) -> Path:
    """The toolkit's folder as nvcc itself sees it: what is on PATH may be a wrapper or a link from elsewhere."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "empty.cu"
        source.touch()
        text = _output(nvcc, "--dryrun", str(source))
    top = re.search(r"^#\$ TOP=(.*)$", text, re.MULTILINE)
    return Path(top.group(1).strip()).resolve() if top else nvcc.resolve().parent.parent


def _compile_something(cuda: Cuda) -> None:
    """nvcc refuses host compilers it does not know: found out here, it is one sentence and not a page per source."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "probe.cu"
        source.write_text("#include <cmath>\n__global__ void probe() {}\n")
        command = [
            cuda.nvcc,
            "-std=c++17",
            *host_compiler(),
            cuda.gencode[0],
            "-c",
            source,
            "-o",
            source.with_suffix(".o"),
        ]
        result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if result.returncode != 0:
        reason = next((line for line in (result.stderr + result.stdout).splitlines() if "error" in line), "it failed")
        raise CudaError(
            f"nvcc {cuda.version} cannot compile an empty kernel with this host compiler "
            f"(name another with CXX or NVCC_CCBIN): {reason.strip()}"
        )


def host_compiler() -> list[str]:
    """nvcc's -ccbin, where CXX asks for a certain compiler; NVCC_CCBIN is read by nvcc itself."""
    compiler = os.environ.get("CXX")
    return ["-ccbin", compiler] if compiler and "NVCC_CCBIN" not in os.environ else []


def _output(*command: str | Path) -> str:
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    if result.returncode != 0:
        raise CudaError(
            f"{' '.join(str(word) for word in command)} fails: {(result.stderr or result.stdout).strip()[:300]}"
        )
    return result.stdout + result.stderr
