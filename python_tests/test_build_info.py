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


def test_environment_forces_the_level():
    program = "from benign_kernels._build_info import simd_level; print(simd_level())"
    environment = {**os.environ, "BENIGN_KERNELS_SIMD": "base"}
    output = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True).stdout
    assert output.decode().strip() == "base"
