"""The facts of the build, and the choice of the SIMD level."""

import os
import re
import subprocess
import sys

import pytest

from benign_kernels._build_info import BuildInfo, build_info, set_simd_level, simd_level


@pytest.fixture
def restore_level():
    level = simd_level()
    yield
    set_simd_level(level)


def test_tells_every_fact():
    info = build_info()
    assert isinstance(info, BuildInfo)
    assert info.torch_target == "2.11"
    assert re.match(r"2\.\d+", info.torch_built)
    assert (info.nvcc == "none") == (info.architectures == ())
    assert info.simd_levels[-1] == "base"
    assert info.simd_level in info.simd_levels
    assert re.fullmatch(r"[0-9a-f]{12}(-dirty)?|unknown", info.revision)
    assert info.compiler


def test_level_can_be_set_and_read(restore_level):
    set_simd_level("base")
    assert simd_level() == build_info().simd_level == "base"


@pytest.mark.parametrize("level", ["v5", "", "avx"])
def test_unknown_level_is_named_and_changes_nothing(level):
    before = simd_level()
    with pytest.raises(ValueError, match=f"level: got '{level}', expected"):
        set_simd_level(level)
    assert simd_level() == before


def run_with_level(level, *program):
    environment = {**os.environ, "BENIGN_KERNELS_SIMD": level}
    return subprocess.run([sys.executable, *program], env=environment, capture_output=True, text=True)


@pytest.mark.parametrize("level", ["base", ""])
def test_environment_forces_the_level(level, restore_level):
    program = "from benign_kernels._build_info import simd_level; print(simd_level())"
    assert run_with_level(level, "-c", program).stdout.strip() == (level or best_level())


def best_level():
    for level in ("amx", "v4", "v3"):
        try:
            set_simd_level(level)
        except ValueError:
            continue
        return level
    return "base"


WRONG_LEVEL = r"BENIGN_KERNELS_SIMD: got 'avx9', expected a level of this machine: (amx, )?(v4, )?(v3, )?base"


def test_a_wrong_level_in_the_environment_is_refused_by_every_op():
    program = """
import torch, benign_kernels as bk
for attempt in range(2):
    try:
        bk.two_layer(torch.ones(2, 3), torch.ones(4, 3), torch.ones(4))
    except ValueError as error:
        print(error)
bk._build_info.set_simd_level("base")
print(bk.two_layer(torch.ones(2, 3), torch.ones(4, 3), torch.ones(4)).sum().item())
"""
    done = run_with_level("avx9", "-c", "import benign_kernels._build_info" + program)
    assert re.fullmatch(f"({WRONG_LEVEL}\n){{2}}24.0\n", done.stdout), done


def test_a_wrong_level_in_the_environment_is_told_by_the_command():
    done = run_with_level("avx9", "-m", "benign_kernels.cli", "info")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.match(f"benign: {WRONG_LEVEL} ", done.stderr), done
