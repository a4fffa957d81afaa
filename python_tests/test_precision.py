"""Whether the library hears torch's switch for tf32 (what it does then: test_cuda_large.py, precision_test.cpp)."""

import ctypes
from collections.abc import Iterator

import pytest
import torch

from benign_kernels._build_info import _native

MATMUL = torch.backends.cuda.matmul


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    before = MATMUL.fp32_precision
    yield
    torch.backends.fp32_precision = "none"
    torch.set_float32_matmul_precision("highest")
    MATMUL.fp32_precision = before


def allows_tf32() -> bool:
    function = _native().benign_kernels_allows_tf32
    function.restype = ctypes.c_bool
    allowed: bool = function()
    return allowed


def test_the_switch_of_one_backend() -> None:
    for precision in ("tf32", "ieee", "tf32", "none"):
        MATMUL.fp32_precision = precision
        assert allows_tf32() == (precision == "tf32")


def test_the_older_switch() -> None:
    for allow in (True, False):
        MATMUL.allow_tf32 = allow
        assert allows_tf32() == allow


def test_the_switch_of_all_matrix_products() -> None:
    for precision, allowed in {"high": True, "medium": True, "highest": False}.items():
        torch.set_float32_matmul_precision(precision)
        assert allows_tf32() == allowed


def test_the_switch_of_all_backends() -> None:
    MATMUL.fp32_precision = "none"
    for precision in ("tf32", "ieee"):
        torch.backends.fp32_precision = precision
        assert allows_tf32() == (precision == "tf32")
