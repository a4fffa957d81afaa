"""The build's decisions: which torch, which CUDA, what is required of pip; and that what cannot work says so.

The installations themselves are run by scripts/check_install.sh, which CI calls.
"""

import importlib.util
import shutil
import site
import stat
import sysconfig
from pathlib import Path

import pytest

from _build import backend, cuda, native, torch_location

PACKAGE = Path(__file__).resolve().parent.parent / "benign_kernels"


def make_torch(folder: Path, version: str) -> Path:
    (folder / "include" / "torch" / "csrc" / "stable").mkdir(parents=True)
    (folder / "version.py").write_text(f"__version__ = '{version}'\ncuda = None\n")
    return folder


@pytest.fixture
def no_torch(monkeypatch, tmp_path):
    """An environment in which no torch can be found."""
    monkeypatch.delenv("BENIGN_KERNELS_TORCH", raising=False)
    monkeypatch.delenv("PIP_BUILD_TRACKER", raising=False)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(sysconfig, "get_path", lambda name, vars=None: str(tmp_path / "nowhere"))
    monkeypatch.setattr(site, "getusersitepackages", lambda: str(tmp_path / "user"))


def test_takes_the_torch_of_this_environment():
    import torch

    folder = torch_location.find_torch()
    assert folder == Path(torch.__file__).parent
    assert torch_location.torch_version(folder) == torch.__version__


def test_isolated_build_finds_the_torch_of_the_outer_environment(no_torch, monkeypatch, tmp_path):
    outer = make_torch(tmp_path / "nowhere" / "torch", "2.12.1+cu130")
    assert torch_location.find_torch() == outer
    assert torch_location.torch_version(outer) == "2.12.1+cu130"
    assert "torch>=2.11" not in backend.get_requires_for_build_wheel()


def test_user_site_is_looked_at_last(no_torch, monkeypatch, tmp_path):
    monkeypatch.setattr(site, "ENABLE_USER_SITE", True)
    user = make_torch(tmp_path / "user" / "torch", "2.13.0")
    assert torch_location.find_torch() == user


def test_named_torch_wins(monkeypatch, tmp_path):
    named = make_torch(tmp_path / "torch", "2.11.0")
    for value in (named, tmp_path):
        monkeypatch.setenv("BENIGN_KERNELS_TORCH", str(value))
        assert torch_location.find_torch() == named


def test_named_torch_must_exist(monkeypatch, tmp_path):
    monkeypatch.setenv("BENIGN_KERNELS_TORCH", str(tmp_path))
    with pytest.raises(torch_location.TorchError, match=r"BENIGN_KERNELS_TORCH: got .*expected"):
        torch_location.find_torch()
    with pytest.raises(SystemExit, match="BENIGN_KERNELS_TORCH: got"):
        backend.get_requires_for_build_wheel()


@pytest.mark.parametrize("version", ["1.13.1", "2.9.0", "2.10.1+cu126"])
def test_old_torch_is_refused_by_name(no_torch, tmp_path, version):
    make_torch(tmp_path / "nowhere" / "torch", version)
    with pytest.raises(SystemExit, match=r"needs torch >= 2\.11, and .* is torch " + version.replace("+", r"\+")):
        backend.get_requires_for_build_wheel()


def test_torch_is_required_only_where_pip_finds_none(no_torch, monkeypatch):
    monkeypatch.setenv("PIP_BUILD_TRACKER", "/tmp/tracker")
    assert "torch>=2.11" in backend.get_requires_for_build_wheel()
    assert "torch>=2.11" in backend.get_requires_for_build_editable()


def test_other_front_ends_stop_with_one_sentence(no_torch):
    with pytest.raises(SystemExit) as stop:
        backend.get_requires_for_build_wheel()
    assert "--no-build-isolation" in stop.value.code
    assert "\n" not in stop.value.code


def test_sdist_needs_no_torch(no_torch):
    assert not any("torch" in requirement for requirement in backend.get_requires_for_build_sdist())


def make_nvcc(home: Path, *, architectures: str, compiles: bool = True, version: str = "13.0, V13.0.88") -> Path:
    nvcc = home / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    failure = 'echo "error: -- unsupported GNU version! gcc later than 15 is not supported" >&2; exit 1'
    nvcc.write_text(
        f"""#!/bin/sh
case "$1" in
  --version) echo "Cuda compilation tools, release {version}" ;;
  --list-gpu-arch) printf '{architectures}' ;;
  --dryrun) echo "#$ TOP={home}" >&2 ;;
  *) {"exit 0" if compiles else failure} ;;
esac
"""
    )
    nvcc.chmod(nvcc.stat().st_mode | stat.S_IXUSR)
    return nvcc


@pytest.fixture
def no_cuda(monkeypatch, tmp_path):
    for name in ("CUDA_HOME", "CUDA_PATH", "BENIGN_KERNELS_CUDA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(cuda, "_find_nvcc", lambda: None)


def test_no_nvcc_is_a_cpu_build_with_one_line(no_cuda, monkeypatch):
    found, line = cuda.find_cuda()
    assert found is None
    assert line == "CPU only: no nvcc (set CUDA_HOME to a CUDA toolkit to build the CUDA half)"
    monkeypatch.setenv("BENIGN_KERNELS_CUDA", "1")
    with pytest.raises(cuda.CudaError, match="no nvcc"):
        cuda.find_cuda()


def test_cuda_can_be_switched_off(monkeypatch):
    monkeypatch.setenv("BENIGN_KERNELS_CUDA", "0")
    assert cuda.find_cuda() == (None, "CPU only: BENIGN_KERNELS_CUDA=0")
    monkeypatch.setenv("BENIGN_KERNELS_CUDA", "yes")
    with pytest.raises(cuda.CudaError, match="BENIGN_KERNELS_CUDA: got 'yes', expected"):
        cuda.find_cuda()


def test_only_architectures_that_nvcc_knows_are_built(monkeypatch, tmp_path):
    make_nvcc(tmp_path, architectures="compute_70\\ncompute_75\\ncompute_80\\ncompute_90\\n", version="12.4, V12.4.131")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    found, line = cuda.find_cuda()
    assert found.architectures == ("sm_75", "sm_80", "sm_90a", "compute_80")
    assert found.gencode[-2:] == ["-gencode=arch=compute_90a,code=sm_90a", "-gencode=arch=compute_80,code=compute_80"]
    assert found.home == tmp_path
    assert line.startswith("CUDA 12.4.131 from ")


def test_wrong_cuda_home_is_named(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    _, line = cuda.find_cuda()
    assert line == f"CPU only: CUDA_HOME is {tmp_path}, which has no bin/nvcc"


def test_host_compiler_that_nvcc_refuses_is_one_sentence(monkeypatch, tmp_path):
    make_nvcc(tmp_path, architectures="compute_80\\n", compiles=False)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    monkeypatch.setenv("BENIGN_KERNELS_CUDA", "1")
    with pytest.raises(cuda.CudaError, match=r"cannot compile an empty kernel .*unsupported GNU"):
        cuda.find_cuda()


def test_ancient_nvcc_is_named(monkeypatch, tmp_path):
    make_nvcc(tmp_path, architectures="compute_35\\ncompute_50\\n", version="10.2, V10.2.89")
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    _, line = cuda.find_cuda()
    assert "CUDA 10.2.89) knows none of the architectures" in line


def test_build_config_is_c_and_tells_everything(tmp_path):
    tools = native.Tools("g++", make_torch(tmp_path / "torch", "2.13.0+cpu"), None, "ninja")
    text = native.build_config(tmp_path, tools)
    assert '#define BK_BUILD_TORCH_BUILT "2.13.0+cpu"' in text
    assert '#define BK_BUILD_NVCC "none"' in text
    assert '#define BK_BUILD_REVISION "unknown"' in text


def test_number_of_jobs_can_be_limited(monkeypatch):
    monkeypatch.setenv("MAX_JOBS", "1")
    assert native.jobs() == 1
    monkeypatch.delenv("MAX_JOBS")
    assert native.jobs() >= 1


@pytest.fixture
def small_tree(tmp_path):
    """A tree with one source, in a folder whose name needs quoting everywhere."""
    root = tmp_path / "a $mall tree"
    (root / "csrc" / "plan").mkdir(parents=True)
    (root / "csrc" / "sources.txt").write_text("host csrc/plan/*.cpp\n")
    shutil.copy(native.ROOT / "csrc" / "exports.map", root / "csrc")
    (root / "csrc" / "plan" / "plan.h").write_text("int plan();\n")
    (root / "csrc" / "plan" / "plan.cpp").write_text('#include "plan/plan.h"\nint plan() { return 1; }\n')
    return root


def test_builds_anywhere_and_only_what_changed(small_tree, capfd, monkeypatch):
    monkeypatch.setenv("BENIGN_KERNELS_CUDA", "0")
    outputs = native.build(small_tree, small_tree / "build", module=True)
    assert list(outputs) == [native.LIBRARY]
    assert outputs[native.LIBRARY].exists()
    assert "C++ csrc/plan/plan.cpp" in capfd.readouterr().out
    native.build(small_tree, small_tree / "build", module=True)
    assert "no work to do" in capfd.readouterr().out
    (small_tree / "csrc" / "plan" / "plan.h").write_text("int plan();\nint other();\n")
    native.build(small_tree, small_tree / "build", module=True)
    assert "C++ csrc/plan/plan.cpp" in capfd.readouterr().out


def test_a_failing_compiler_is_one_sentence(small_tree, monkeypatch):
    monkeypatch.setenv("BENIGN_KERNELS_CUDA", "0")
    (small_tree / "csrc" / "plan" / "plan.cpp").write_text("nonsense\n")
    with pytest.raises(native.BuildError, match="the compiler's first message"):
        native.build(small_tree, small_tree / "build", module=True)


def test_library_is_small_and_module_is_for_this_python():
    assert (PACKAGE / native.LIBRARY).stat().st_size <= 15 * 2**20
    assert (PACKAGE / native.MODULE).exists()
