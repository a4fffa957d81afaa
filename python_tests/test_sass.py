"""What the CUDA compiler made of the kernels: the instructions that are meant. Needs cuobjdump, but no GPU."""

import os
import re
import shutil
import subprocess

import pytest

from benign_kernels._build_info import build_info
from benign_kernels._library import PATH

BFLOAT16_PRODUCT, DOUBLE_PRODUCT = r"HMMA\.16816\.F32\.BF16", r"\bDFMA\b"


def _disassemble(architecture: str) -> dict[str, str]:
    """Mangled name of a kernel -> its instructions."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    tool = shutil.which("cuobjdump") or shutil.which("cuobjdump", path=os.path.join(home, "bin"))
    if tool is None or architecture not in build_info().architectures:
        pytest.skip(f"needs cuobjdump and a build for {architecture}")
    command = [tool, "-sass", "-arch", architecture, str(PATH)]
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    functions = re.split(r"^\s*Function : (\S+)$", text, flags=re.MULTILINE)[1:]
    return dict(zip(functions[::2], functions[1::2], strict=True))


@pytest.mark.parametrize("architecture", ["sm_80", "sm_90a"])
def test_products_use_the_units_that_are_meant(architecture):
    code = _disassemble(architecture)
    products = {name: text for name, text in code.items() if re.search("product_kernel|hidden_kernel", name)}
    assert products
    for name, text in products.items():
        is_double = re.search(r"product_kernelId|hidden_kernelId", name) is not None
        assert re.search(DOUBLE_PRODUCT if is_double else BFLOAT16_PRODUCT, text), name
        assert is_double or not re.search(r"\bSTL\b|\bLDL\b", text), f"{name} uses local memory"
