"""The examples in the documentation run and say what they print."""

import doctest
import importlib

import numpy as np
import pytest
import torch

import benign_kernels as bk


@pytest.mark.parametrize("module", ["activation", "ops", "attack"])
def test_examples_run(module):
    result = doctest.testmod(
        importlib.import_module(f"benign_kernels.{module}"), extraglobs={"bk": bk, "torch": torch, "np": np}
    )
    assert result.failed == 0
    assert result.attempted > 0
