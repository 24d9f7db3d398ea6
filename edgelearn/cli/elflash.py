# SPDX-License-Identifier: Apache-2.0
"""The `elflash` command: models, adapters and runtimes onto a board over a serial line. It never imports numpy.

exit codes: 0 done, 1 internal error, 2 usage (files of this machine included), 3 no board, 4 port busy or denied,
5 line lost (the same command goes on where it stopped), 6 for another board, architecture or ABI, 7 signature, key or
downgrade, 8 verification failed, 9 the board refused (space, heat, busy), 10 not healthy and rolled back, 11 nothing
to do, 12 restart needed, 130 interrupted (the same command goes on).
"""

from __future__ import annotations

import argparse
import os
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from typing import Any

from edgelearn import __version__
from edgelearn.cli import EXIT_INTERNAL, EXIT_INTERRUPTED, Parser
from edgelearn.errors import EdgelearnError, FlashError, OutputError, UsageError

VERBS = ("elflash_files", "elflash_board", "elflash_write", "elflash_trials", "elflash_machine", "elflash_virtual")
"""Modules of this package with `add(verbs)`; a new verb is an entry in one of them, or one more name and file."""

ENVIRONMENT = {"port": "ELFLASH_PORT", "baud": "ELFLASH_BAUD", "board": "ELFLASH_BOARD", "trace": "ELFLASH_TRACE"}
DEFAULTS: dict[str, Any] = {
    "port": "auto",
    "baud": "auto",
    "board": "auto",
    "framing": "auto",
    "port_filter": "",
    "connect_attempts": 7,
    "timeout_scale": 1.0,
    "reconnect": 10.0,
    "trace": "",
}
"""Of flags that a configuration file and the environment may set too."""
FRAMINGS = ("auto", "console", "cobs")

EPILOG = """ports: a name (/dev/ttyUSB0, COM3, a pseudo-terminal), socket://HOST:PORT, rfc2217://HOST:PORT, or auto

example:
  elflash bundle model.safetensors --key key.pem -o model.elb
  elflash write model.elb --activate

Defaults come from ELFLASH_PORT, ELFLASH_BAUD, ELFLASH_BOARD, ELFLASH_TRACE, then from the file of --config, of
ELFLASH_CONFIG, ./elflash.toml or ~/.config/edgelearn/elflash.toml (port = "...", baud = 921600, ...).

"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    assert __doc__
    top = Parser(
        prog="elflash",
        description="Write models, adapters and runtimes onto a board over a serial line.",
        epilog=EPILOG + __doc__.split("\n\n", 1)[1],
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_globals(top)
    verbs = top.add_subparsers(dest="verb", metavar="VERB", required=True, parser_class=Parser)
    for name in VERBS:
        import_module(f"edgelearn.cli.{name}").add(verbs)
    return top


def _add_globals(top: argparse.ArgumentParser) -> None:
    add = top.add_argument
    add("-p", "--port", metavar="PORT", help="where the board is (auto: ask all ports)")
    add("-b", "--baud", metavar="N", help="rate to go up to (auto: as the line carries), and to look for the board at")
    add("--board", metavar="NAME", help="refuse any other board")
    add("--framing", choices=FRAMINGS, help="how bytes travel: console may carry other text too")
    add("--port-filter", metavar="F", help="only ports with vid=, pid=, name= or serial=, joined by commas")
    add("--connect-attempts", type=int, metavar="N", help="times that a board is asked whether it is there (7)")
    add("--timeout-scale", type=float, metavar="X", help="wait so many times longer than usual")
    add("--reconnect", type=float, metavar="S", help="seconds that a lost line is waited for (10)")
    add("-v", "--verbose", action="count", default=0, help="say more; twice: errors with where they come from")
    add("-s", "--silent", action="store_true", help="say nothing but errors")
    add("-t", "--trace", metavar="FILE", help="write every byte of the line to FILE; - is stderr")
    add("--json", action="store_true", help="one JSON object per line on stdout, the result last")
    add("--no-progress", action="store_true", help="no progress")
    add("--color", choices=("auto", "always", "never"), default="auto", help="NO_COLOR means never")
    add("--config", metavar="FILE", help="defaults of these flags, as TOML")
    add("--version", action="version", version=f"elflash {__version__}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; returns the exit code."""
    verbose = 0
    try:
        arguments = _parsed(argv)
        verbose = arguments.verbose
        _settle(arguments)
        return int(arguments.run(arguments))
    except EdgelearnError as error:
        if verbose > 1:
            traceback.print_exc()
        print(f"elflash: {_colored(str(error), argv)}", file=sys.stderr)
        return _code(error)
    except KeyboardInterrupt:
        print("elflash: interrupted; the same command goes on where it was", file=sys.stderr)
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_INTERRUPTED
    except Exception as error:  # a bug: the sentence says how to see where
        if verbose > 1:
            raise
        print(f"elflash: internal error ({type(error).__name__}: {error}): run it with -vv", file=sys.stderr)
        return EXIT_INTERNAL


def _parsed(argv: Sequence[str] | None) -> argparse.Namespace:
    top = parser()
    arguments, rest = top.parse_known_args(argv)
    if rest and any(rest[0].split("=")[0] in action.option_strings for action in top._actions):
        raise UsageError(f"{rest[0]} is for all verbs: put it before '{arguments.verb}'")
    if rest:
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    return arguments


def _code(error: EdgelearnError) -> int:
    """The exit code; errors of other commands have numbers that mean something else here."""
    if isinstance(error, OutputError):
        return UsageError.exit_code
    return error.exit_code if isinstance(error, (FlashError, UsageError)) else EXIT_INTERNAL


def _colored(text: str, argv: Sequence[str] | None) -> str:
    """Red on a terminal, unless somebody wants none."""
    words = list(sys.argv[1:] if argv is None else argv)
    chosen = words[words.index("--color") + 1] if "--color" in words[:-1] else "auto"
    wanted = chosen == "always" or (chosen == "auto" and sys.stderr.isatty() and "NO_COLOR" not in os.environ)
    return f"\033[31m{text}\033[0m" if wanted else text


def _settle(arguments: argparse.Namespace) -> None:
    """Flags win over the environment, that over the file, that over the defaults."""
    said = _file(arguments.config)
    for name, default in DEFAULTS.items():
        if getattr(arguments, name) is None:
            value = os.environ.get(ENVIRONMENT.get(name, "")) or said.get(name, default)
            setattr(arguments, name, value)
    if arguments.baud != "auto":
        arguments.baud = _rate(arguments.baud)
    for flag, fits, words in (
        ("--connect-attempts", arguments.connect_attempts >= 1, "a number from 1 up"),
        ("--timeout-scale", 0 < arguments.timeout_scale <= 100, "a number above 0, up to 100"),
        ("--reconnect", arguments.reconnect >= 0, "seconds from 0 up"),
    ):
        if not fits:
            raise UsageError(f"{flag}: write {words}, or leave it out to get the usual")


def _rate(text: Any) -> int:
    try:
        rate = int(text)
    except ValueError as error:
        raise UsageError(f"--baud {text}: write a number such as 115200, or auto") from error
    if not 1200 <= rate <= 12_000_000:
        raise UsageError(f"--baud {rate}: write 1200 to 12000000, or auto")
    return rate


def _file(chosen: str | None) -> dict[str, Any]:
    """The settings of the configuration file, if there is one."""
    named = chosen or os.environ.get("ELFLASH_CONFIG")
    home = os.path.expanduser("~/.config/edgelearn/elflash.toml")
    path = named or next((place for place in ("elflash.toml", home) if os.path.isfile(place)), None)
    if path is None:
        return {}
    from pathlib import Path

    from edgelearn import tomlfile

    try:
        table = {key.replace("-", "_"): value for key, value in tomlfile.parse(Path(path)).items()}
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f'cannot read {path} ({reason}): write lines such as port = "/dev/ttyUSB0"') from error
    if unknown := set(table) - set(DEFAULTS):
        raise UsageError(f"{path} has {', '.join(sorted(unknown))}: known are {', '.join(DEFAULTS)}")
    for key, value in table.items():
        if not _fits(key, value):
            raise UsageError(f"{path} has {key} = {value!r}: write it as in {key} = {DEFAULTS[key]!r}")
    return table


def _fits(key: str, value: Any) -> bool:
    """Whether a setting of a file is of the kind that its flag takes."""
    if key == "framing":
        return value in FRAMINGS
    kinds = {"baud": (str, int), "timeout_scale": (int, float), "reconnect": (int, float)}
    return isinstance(value, kinds.get(key, type(DEFAULTS[key]))) and not isinstance(value, bool)


if __name__ == "__main__":
    sys.exit(main())
