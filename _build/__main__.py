"""`python -m _build` builds in place, for the Python that runs it; needs torch and ninja, but no setuptools."""

import sys

from .native import BUILD_ERRORS, ROOT, build_into

try:
    build_into(ROOT / "benign_kernels")
except BUILD_ERRORS as error:
    sys.exit(f"benign_kernels: {error}")
