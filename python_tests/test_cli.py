"""The command line: what it prints, how it fails, and its exit status."""

import json
import subprocess
import sys

import pytest

from benign_kernels import cli
from benign_kernels._commands import info


def test_help_names_every_command_and_an_example(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for name in ("info", "list", "demo", "bench", "examples:"):
        assert name in text


@pytest.mark.parametrize("argv", [[], ["nonsense"], ["info", "--nonsense"], ["list", "nonsense"]])
def test_wrong_usage_exits_with_2(argv, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(argv)
    assert stop.value.code == 2
    assert "usage: benign" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["info", "list", "demo"])
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main([name, "--help"])
    assert stop.value.code == 0
    assert f"usage: benign {name}" in capsys.readouterr().out


def test_info_tells_the_build_torch_and_devices(capsys):
    assert cli.main(["info", "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["benign_kernels"]["torch_target"] == "2.11"
    assert facts["benign_kernels"]["simd_level"] in facts["benign_kernels"]["simd_levels"]
    assert {"version", "cuda", "threads"} <= facts["torch"].keys()
    assert "cpu" in facts["devices"]
    assert cli.main(["info"]) == 0
    assert "torch_target   2.11" in capsys.readouterr().out


ARCHITECTURES = ("sm_75", "sm_80", "sm_90a", "sm_100a", "compute_80")


@pytest.mark.parametrize(
    ("capability", "expected"),
    [
        ((7, 0), "not supported by this build (sm_75 sm_80 sm_90a sm_100a compute_80)"),
        ((7, 5), "runs sm_75"),
        ((8, 0), "runs sm_80"),
        ((8, 9), "runs sm_80"),
        ((9, 0), "runs sm_90a"),
        ((10, 0), "runs sm_100a"),
        ((10, 3), "compiles compute_80 on first use"),
        ((12, 0), "compiles compute_80 on first use"),
    ],
)
def test_info_says_which_code_a_card_runs(capability, expected):
    assert info.code_for(capability, ARCHITECTURES) == expected


def test_info_in_a_cpu_build():
    assert info.code_for((9, 0), ()) == "not supported by this build (CPU only)"


def test_list_is_complete(capsys):
    assert cli.main(["list"]) == 0
    text = capsys.readouterr().out
    for name in ("two_layer", "l2_pgd", "linf_pgd_step", "smoothed_relu", "LeakyReLU(slope=0.01)", "auto", "dense"):
        assert name in text
    assert cli.main(["list", "algorithms"]) == 0
    assert "two_layer" not in capsys.readouterr().out


def test_errors_are_one_line(monkeypatch, capsys):
    def fail(arguments):
        raise ValueError("radius: got -1, expected a number ≥ 0")

    monkeypatch.setattr(info, "main", fail)
    assert cli.main(["info"]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "benign: radius: got -1, expected a number ≥ 0 (BENIGN_TRACEBACK=1 shows where)"
    ]
    monkeypatch.setenv("BENIGN_TRACEBACK", "1")
    with pytest.raises(ValueError, match="radius"):
        cli.main(["info"])


def test_interrupt_exits_with_130(monkeypatch):
    def interrupt(arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(info, "main", interrupt)
    assert cli.main(["info"]) == 130


def test_a_reader_that_leaves_early_is_no_error():
    program = (
        f"{sys.executable} -c 'import sys; from benign_kernels.cli import main; sys.exit(main([\"list\"]))' | true"
    )
    result = subprocess.run(["bash", "-o", "pipefail", "-c", program], capture_output=True, text=True, timeout=120)
    assert result.returncode == 0
    assert result.stderr == ""
