# SPDX-License-Identifier: Apache-2.0
"""The `edgelearn` command. Text for people, `--json` as last line for programs, errors as one sentence on stderr.

exit codes: 0 done, 1 internal error, 2 usage, 3 does not fit the budget, 4 bad data, 5 bad model or unsupported
layer, 6 verification failed, 7 learning failed, 8 cannot write, 130 interrupted (what was finished is kept).
"""

from __future__ import annotations

import argparse
import os
import sys
import warnings
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from edgelearn import __version__
from edgelearn.errors import EdgelearnError, UsageError

LOCAL = ("train", "eval", "plan", "submodel", "boards", "adapt", "apply", "export", "bench", "doctor", "demo")
DAEMON = ("push", "samples", "status", "watch", "history", "diff", "promote", "rollback", "cancel", "service")
COMMANDS = (*LOCAL, *DAEMON)
"""Each a module of this package with `add(subparsers)`; a new command is one name here and one file."""

EXIT_INTERNAL, EXIT_INTERRUPTED = 1, 130


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence and where to read on."""

    def error(self, message: str) -> NoReturn:
        """Raise what argparse would print.

        Raises:
            UsageError: always.
        """
        raise UsageError(f"{message}: see '{self.prog} --help'")


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    assert __doc__
    top = Parser(
        prog="edgelearn",
        description="Train neural networks on the board that uses them, with forward passes only.",
        epilog="example: edgelearn train mlp data.npz -o out\n\n" + __doc__.split("\n\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"edgelearn {__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", required=True, parser_class=Parser)
    for name in COMMANDS:
        import_module(f"edgelearn.cli.{name}").add(commands)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    try:
        arguments = parser().parse_args(argv)
        warnings.formatwarning = _in_a_line
        return int(arguments.run(arguments))
    except EdgelearnError as error:
        print(f"edgelearn: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("edgelearn: interrupted; nothing was written", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_INTERRUPTED


def _in_a_line(message: Warning | str, *_: object, **__: object) -> str:
    """A warning for people: without the place in the code."""
    return f"edgelearn: warning: {message}\n"
