"""The command line ``benign``.

A command is one module of ``benign_kernels/_commands`` and its row in the table below. The module has
``add_arguments(parser)`` and ``main(arguments) -> exit status``, and its docstring is its help; it is imported only
when the command is called.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from types import ModuleType

from . import __version__
from ._commands import UsageError

_COMMANDS = {
    "info": "how the library was built, and what of it this machine uses",
    "list": "the ops, activations, algorithms and experiments there are",
    "demo": "train adversarially on noisy labels: where that overfitting is benign, and claims about it",
    "bench": "time the ops against what they replace",
    "run": "run a paper's experiment; it can be stopped and goes on where it was",
    "verify": "test the claims of an experiment: 1 if one fails",
    "report": "one HTML page of an experiment's figures and claims",
    "export": "an experiment's records and figures as files",
}

_EXAMPLES = """\
examples:
  benign info              what was built, and which devices it can use
  benign list activations  every activation with its parameters
  benign report chen21     run a paper's experiments and write a page about them
  benign demo --help       the options of one command
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command; returns its exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.

    A command where 1 means something else has the status of its failures as ``ERROR_STATUS``.
    """
    arguments = _parser().parse_args(argv)
    failed = 1
    try:
        command = importlib.import_module(f"benign_kernels._commands.{arguments.command}")
        failed = getattr(command, "ERROR_STATUS", 1)
        status = _run(command, arguments.command, arguments.rest)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        return _fail("interrupted", 130)
    except BrokenPipeError:
        # The reader (head, less) has gone; without this the interpreter would complain once more on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except ModuleNotFoundError as error:
        return _fail(f"'benign {arguments.command}' needs the module {error.name}, which is not installed", failed)
    except UsageError as error:
        return _fail(f"{error}; `benign {arguments.command} --help` has examples", 2)
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        if os.environ.get("BENIGN_TRACEBACK") == "1":
            raise
        return _fail(f"{error} (BENIGN_TRACEBACK=1 shows where)", failed)


def _parser() -> argparse.ArgumentParser:
    commands = "\n".join(f"  {name:6} {summary}" for name, summary in _COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog="benign",
        usage="benign [--help] [--version] command ...",
        description=f"Adversarial attacks on two-layer networks, as fused torch ops.\n\ncommands:\n{commands}",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"benign_kernels {__version__}")
    parser.add_argument("command", choices=_COMMANDS, metavar="command", help="one of the commands above")
    parser.add_argument("rest", nargs=argparse.REMAINDER, metavar="...", help="its arguments; --help lists them")
    return parser


def _run(command: ModuleType, name: str, rest: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog=f"benign {name}", description=command.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    command.add_arguments(parser)
    status: int = command.main(parser.parse_args(rest))
    return status


def _fail(message: str, status: int) -> int:
    print(f"benign: {message}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
