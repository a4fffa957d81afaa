"""csrc/sources.txt against the tree, and the flags that it gives each source."""

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from _build.cuda import find_cuda
from _build.native import ROOT, TORCH_TARGET, Tools, ninja_text
from _build.sources import read_lines, read_sources

# Compiled for the tests alone, by csrc/tests/CMakeLists.txt.
TEST_FOLDERS = ("csrc/simt/", "csrc/tests/")


def library_sources_in_the_tree():
    files = [path.relative_to(ROOT).as_posix() for path in (ROOT / "csrc").rglob("*") if path.suffix in (".cpp", ".cu")]
    return sorted(name for name in files if not name.startswith(TEST_FOLDERS))


def test_every_source_is_listed_exactly_once():
    listed = [source for sources in read_sources(ROOT).values() for source in sources]
    assert sorted(listed) == library_sources_in_the_tree()


def test_every_line_matches_something_and_every_exception_exists():
    for _, pattern, excluded in read_lines(ROOT):
        assert list(ROOT.glob(pattern)), f"csrc/sources.txt lists {pattern}, which matches nothing"
        for name in excluded:
            assert (ROOT / name).exists(), f"csrc/sources.txt excepts {name}, which does not exist"


@pytest.mark.parametrize("line", ["host", "hots a.cpp", "host a.cpp b.cpp", "host a.cpp but"])
def test_a_malformed_line_is_named(tmp_path, line):
    (tmp_path / "csrc").mkdir()
    (tmp_path / "csrc" / "sources.txt").write_text(f"# comment\n{line}\n")
    with pytest.raises(ValueError, match="line 2"):
        read_sources(tmp_path)


def test_simd_sources_are_compiled_once_per_level(tmp_path):
    tools = Tools(cxx="g++", torch=Path("/opt/torch"), cuda=None, ninja="ninja")
    text, outputs = ninja_text(ROOT, tmp_path, tools, module=False)
    for source in read_sources(ROOT)["simd"]:
        for level in tools.levels:
            assert f"  name = {source} [{level}]" in text
    assert "-march=native" not in text
    assert list(outputs) == ["libbenign_kernels.so"]


def test_only_ops_see_torch(tmp_path):
    tools = Tools(cxx="g++", torch=Path("/opt/torch"), cuda=None, ninja="ninja")
    text, _ = ninja_text(ROOT, tmp_path, tools, module=False)
    for edge in text.split("\nbuild ")[1:]:
        if "/opt/torch/include" in edge:
            assert "/csrc/ops/" in edge.splitlines()[0]
    for name in library_sources_in_the_tree():
        if not name.startswith("csrc/ops/"):
            assert "#include <torch/" not in (ROOT / name).read_text(), f"{name} includes torch"


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake")
def test_cmake_compiles_the_same_sources_as_often_for_the_same_targets(tmp_path):
    command = [
        "cmake",
        "-S",
        ROOT,
        "-B",
        tmp_path,
        f"-DPython3_EXECUTABLE={sys.executable}",
        "-DBENIGN_KERNELS_TESTS=OFF",
    ]
    subprocess.run(command, check=True, capture_output=True)
    entries = json.loads((tmp_path / "compile_commands.json").read_text())
    commands = {Path(entry["file"]).relative_to(ROOT).as_posix(): entry["command"] for entry in entries}
    compiled = Counter(Path(entry["file"]).relative_to(ROOT).as_posix() for entry in entries)
    levels = len(Tools(cxx="", torch=Path(), cuda=None, ninja="").levels)
    expected = Counter()
    for kind, sources in read_sources(ROOT).items():
        if kind != "module" and (kind != "cuda" or shutil.which("nvcc")):
            expected.update(dict.fromkeys(sources, levels if kind == "simd" else 1))
    assert compiled == expected
    major, minor = TORCH_TARGET
    (version,) = re.findall(r"-DTORCH_TARGET_VERSION=(\w+)", commands["csrc/ops/pgd.cpp"])
    assert int(version, 16) == major << 56 | minor << 48
    cuda, _ = find_cuda()
    if cuda:
        assert re.findall(r"-gencode=\S+", commands["csrc/cuda/pgd.cu"]) == cuda.gencode
