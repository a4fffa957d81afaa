"""The examples in the documentation run and say what they print; every public name has one."""

import doctest
import importlib
import re
from pathlib import Path

import numpy as np
import pytest
import torch

import benign_kernels as bk

README = Path(__file__).parent.parent / "README.md"
PACKAGE = Path(bk.__file__).parent
MODULES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in sorted(PACKAGE.rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
]
#: Those that only hold parameters or results: their examples are the functions that take or return them.
WITHOUT_EXAMPLE = {
    "Activation",
    "AttackResult",
    "Mixture",
    "Plan",
    "Progress",
    "ReducedMixture",
    "TrainingResult",
    *(type(phi).__name__ for phi in bk.activations()),
}


@pytest.mark.parametrize("module", MODULES)
def test_examples_run(module):
    names = {"bk": bk, "torch": torch, "np": np}
    result = doctest.testmod(importlib.import_module(module), extraglobs=names)
    assert result.failed == 0
    assert result.attempted > 0


def test_every_public_name_has_an_example():
    for name in set(bk.__all__) - WITHOUT_EXAMPLE:
        assert ">>>" in (getattr(bk, name).__doc__ or ""), name
    for name in WITHOUT_EXAMPLE:
        assert getattr(bk, name).__doc__, name


def test_the_readme_names_every_environment_variable():
    files = [path for folder in ("benign_kernels", "_build", "csrc") for path in (README.parent / folder).rglob("*.*")]
    sources = [path for path in files if path.suffix in (".py", ".cpp", ".cu")]
    read = r"""(?:getenv|environ(?:\.get)?)[(\[]["'](BENIGN_\w+)"""
    used = {name for path in sources for name in re.findall(read, path.read_text(encoding="utf-8"))}
    table = re.findall(r"^\| `(BENIGN_\w+)`", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert set(table) == used


def test_the_readme_runs(capsys):
    first, second, third = re.findall(r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL)
    exec(first, {})
    assert capsys.readouterr().out.startswith("torch.Size([100, 784])")
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    scope = {"model": model, "images": torch.rand(4, 3, 2, 2), "labels": torch.tensor([0, 1, 2, 0])}
    exec(second, scope)
    assert scope["adversarial"].shape == (4, 3, 2, 2)
    capsys.readouterr()
    exec(third, {})
    assert re.search(r"robust test error 0\.[0-3]\d\d, trained in 1\d\d dimensions", capsys.readouterr().out)
