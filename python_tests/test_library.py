"""The call by which the CUDA engine lets torch make large products, on the CPU (which ones: arithmetic_test.cpp)."""

import ctypes

import pytest
import torch
from torch import Tensor

from benign_kernels._build_info import _native


class Matrix(ctypes.Structure):
    """``LibraryMatrix`` of csrc/cuda/library.h."""

    _fields_ = [
        ("data", ctypes.c_void_p),
        ("network_stride", ctypes.c_int64),
        ("row_stride", ctypes.c_int64),
        ("column_stride", ctypes.c_int64),
    ]


class Product(ctypes.Structure):
    """``LibraryProduct``."""

    _fields_ = [
        ("numbers", ctypes.c_int32),
        ("networks", ctypes.c_int64),
        ("rows", ctypes.c_int64),
        ("columns", ctypes.c_int64),
        ("terms", ctypes.c_int64),
        ("left", Matrix),
        ("right", Matrix),
        ("out", ctypes.c_void_p),
        ("out_network_stride", ctypes.c_int64),
        ("accumulate", ctypes.c_bool),
    ]


def multiply(left: Tensor, right: Tensor, out: Tensor, accumulate: bool) -> None:
    """out (networks, rows, columns) = left · right, each with any strides of which one is 1."""

    def matrix(tensor: Tensor) -> Matrix:
        return Matrix(tensor.data_ptr(), *tensor.stride())

    product = Product(
        (torch.float32, torch.float64).index(left.dtype),
        *out.shape,
        left.shape[2],
        matrix(left),
        matrix(right),
        out.data_ptr(),
        out.stride(0),
        accumulate,
    )
    assert _native().benign_kernels_multiply_by_torch(ctypes.byref(product)) == 0


def stored(numbers: Tensor, transposed: bool) -> Tensor:
    return numbers.mT.contiguous().mT if transposed else numbers


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("transposed", [(False, False), (False, True), (True, False), (True, True)])
@pytest.mark.parametrize("shape", [(1, 5, 7, 3), (3, 4, 6, 9), (2, 1, 1, 1), (1, 1, 70, 1)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_product(
    dtype: torch.dtype, shape: tuple[int, int, int, int], transposed: tuple[bool, bool], accumulate: bool
) -> None:
    networks, rows, columns, terms = shape
    left = torch.randn(networks, rows, terms, dtype=dtype)
    right = torch.randn(networks, terms, columns, dtype=dtype)
    everything = torch.randn(networks, rows + 2, columns, dtype=dtype)
    want = everything.clone()
    want[:, 1:-1] = left @ right + (everything[:, 1:-1] if accumulate else 0)
    if not accumulate:
        everything[:, 1:-1] = torch.nan
    multiply(stored(left, transposed[0]), stored(right, transposed[1]), everything[:, 1:-1], accumulate)
    torch.testing.assert_close(everything, want)


def test_points_that_all_networks_share() -> None:
    x, W = torch.randn(1, 5, 4).expand(3, 5, 4), torch.randn(3, 6, 4)
    out = torch.empty(3, 5, 6)
    multiply(x, W.mT, out, accumulate=False)
    torch.testing.assert_close(out, x @ W.mT)


def test_numbers_of_a_graph_are_not_touched() -> None:
    left, right = torch.randn(1, 3, 4), torch.randn(1, 4, 2)
    out = torch.empty(1, 3, 2)
    with torch.autocast("cpu", torch.bfloat16), torch.enable_grad():
        multiply(left, right, out, accumulate=False)
    torch.testing.assert_close(out, left @ right)
