"""What the binary asks of its surroundings: torch's stable ABI and the system; nothing of one torch, CUDA or Python."""

import re
import subprocess
from pathlib import Path

import pytest

from benign_kernels import _host
from benign_kernels._build_info import build_info

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "benign_kernels" / "libbenign_kernels.so"
OBJECTS = ROOT / "build" / "native" / "objects"

# What every Linux has, and libtorch_cpu, in which the stable ABI lives.
ALLOWED_LIBRARIES = (
    r"libtorch_cpu\.so|libstdc\+\+\.so\.6|libgcc_s\.so\.1|lib(c|m|dl|rt|pthread)\.so\.\d|ld-linux.*\.so\.\d"
)
# The C functions of the stable ABI; whatever else torch exports is C++ and changes from release to release.
STABLE_ABI = r"aoti_torch_\w+|torch_\w+"


def lines_of(*command: str | Path) -> list[str]:
    return subprocess.run(
        [str(word) for word in command], check=True, capture_output=True, text=True
    ).stdout.splitlines()


def undefined_symbols() -> set[str]:
    return {line.split()[-1] for line in lines_of("nm", "-D", "--undefined-only", LIBRARY)}


def test_needs_only_torch_cpu_and_the_system():
    needed = re.findall(r"\(NEEDED\).*\[(.*)\]", "\n".join(lines_of("readelf", "-d", LIBRARY)))
    assert "libtorch_cpu.so" in needed
    assert [name for name in needed if not re.fullmatch(ALLOWED_LIBRARIES, name)] == []


def test_has_no_path_of_the_machine_that_built_it():
    assert not re.search(r"RPATH|RUNPATH", "\n".join(lines_of("readelf", "-d", LIBRARY)))


def test_no_symbol_of_python_or_the_cuda_libraries():
    foreign = re.compile(r"_?Py[A-Z_]|cuda[A-Z]|__cuda|cu[A-Z]|cublas|_ZN?K?\d*(c10|at|torch|caffe2)")
    assert sorted(symbol for symbol in undefined_symbols() if foreign.match(symbol)) == []


def test_symbols_without_a_version_are_the_stable_abi():
    # Those of the C and C++ libraries carry a version: memcpy@GLIBC_2.14.
    unversioned = {symbol for symbol in undefined_symbols() if "@" not in symbol}
    hooks = r"_ITM_\w+TMCloneTable|__gmon_start__|__cxa_finalize"
    assert sorted(symbol for symbol in unversioned if not re.fullmatch(f"{STABLE_ABI}|{hooks}", symbol)) == []


@pytest.mark.parametrize(
    ("file", "own"), [(LIBRARY, "benign_kernels_"), (Path(_host.__file__), "PyInit__host")], ids=["library", "module"]
)
def test_exports_nothing_but_its_own_c_functions(file, own):
    exported = [line.split()[-1] for line in lines_of("nm", "-D", "--defined-only", file)]
    assert exported
    assert [symbol for symbol in exported if not symbol.startswith(own)] == []


@pytest.mark.skipif(not OBJECTS.exists(), reason="needs the objects of an in-place build")
@pytest.mark.parametrize("level", ["v3", "v4"])
def test_no_code_is_shared_between_simd_levels(level):
    """Whatever an object of a level defines weakly must be of that level's namespace: the linker keeps one copy of what
    several objects define, and a copy compiled for AVX-512 would crash a machine without it."""
    if level not in build_info().simd_levels:
        pytest.skip("not a level of this machine")
    shared = []
    for file in sorted(OBJECTS.glob(f"csrc__cpu__*.{level}.o")):
        for line in lines_of("nm", "--defined-only", file):
            kind, name = line.split()[-2:]
            own = f"2bk3cpu2{level}" in name or name.startswith("DW.ref.")  # the latter are pointers, not code
            if kind in "WwVvu" and not own:
                shared.append(f"{file.name}: {name}")
    assert shared == []
