"""What the CUDA compiler made of the kernels: the instructions that are meant. Needs cuobjdump, but no GPU."""

import os
import re
import shutil
import subprocess
import sysconfig

import pytest

from benign_kernels._build_info import build_info
from benign_kernels._library import PATH

pytestmark = pytest.mark.slow  # a dozen seconds of disassembling
BFLOAT16_PRODUCT, DOUBLE_PRODUCT, MATRICES = r"HMMA\.16816\.F32\.BF16", r"\bDFMA\b", r"LDSM\.16\.M88\.4"


def _disassemble(architecture: str) -> dict[str, str]:
    """Mangled name of a kernel -> its instructions."""
    toolkit = os.path.join(os.environ.get("CUDA_HOME", "/usr/local/cuda"), "bin")
    from_wheel = os.path.join(sysconfig.get_path("purelib"), "nvidia", "cu13", "bin")
    search = os.pathsep.join([os.environ.get("PATH", ""), toolkit, from_wheel])
    tool = shutil.which("cuobjdump", path=search)
    if tool is None or architecture not in build_info().architectures:
        pytest.skip(f"needs cuobjdump and a build for {architecture}")
    command = [tool, "-sass", "-arch", architecture, str(PATH)]
    text = subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | {"PATH": search}).stdout
    functions = re.split(r"^\s*Function : (\S+)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(functions[::2], functions[1::2], strict=True))


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
def test_products_use_the_units_that_are_meant(architecture):
    code = _disassemble(architecture)
    products = {name: text for name, text in code.items() if re.search("product_kernel|hidden_kernel", name)}
    assert products
    for name, text in products.items():
        if re.search(r"product_kernelId|hidden_kernelId", name):
            assert re.search(DOUBLE_PRODUCT, text), name
            continue
        assert re.search(BFLOAT16_PRODUCT, text), name
        assert re.search(MATRICES, text), name
        assert not re.search(r"\bSTL\b|\bLDL\b", text), f"{name} uses local memory"
        if re.search(r"product_kernelIffL.*PrecisionE0ELi128E", name):  # 16 fragments of the sum in a large tile
            assert len(re.findall(BFLOAT16_PRODUCT, text)) == 6 * 16, f"{name} is not six products of bfloat16"
