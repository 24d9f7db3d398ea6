# SPDX-License-Identifier: Apache-2.0
"""`edgelearnd`: the daemon's command line."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgelearn import __version__
from edgelearn.cli import EXIT_INTERNAL, EXIT_INTERRUPTED, Parser
from edgelearn.errors import EdgelearnError, ModelError

_EPILOG = """examples:
  edgelearnd --data-dir ~/edgelearn --model out/model.safetensors
  edgelearnd --data-dir ~/edgelearn --listen 0.0.0.0:8080 --listen unix:/run/edgelearn/api.sock

The page for people is at http://HOST:PORT/ where it listens on TCP; it asks for the token in DIR/token. Who may use the
unix socket: root, the daemon's own user, and members of its group. Files in DIR/drop/CLASS/ become samples.
'edgelearn service install' writes a systemd unit.

EDGELEARN_SYSROOT is where /sys, /proc and /var of the board are found, if not at /.

configuration, in DIR/config.toml (all of it may be left out):
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the daemon; returns the exit code."""
    try:
        arguments = _parser().parse_args(argv)
        return _run(arguments)
    except EdgelearnError as error:
        print(f"edgelearnd: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except ImportError as error:
        print(f"edgelearnd: {error.name} is missing: pip install 'edgelearn[daemon]'", file=sys.stderr)
        return EXIT_INTERNAL


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="edgelearnd",
        description="Serve a model, take samples, train on them beside it, and keep versions.",
        epilog=_EPILOG + _settings(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data-dir", required=True, metavar="DIR", help="for samples, versions, token and config.toml")
    parser.add_argument(
        "--listen",
        action="append",
        metavar="ADDRESS",
        help="unix:PATH or HOST:PORT, several times if need be (default unix:DIR/api.sock, under systemd "
        "unix:/run/edgelearn/api.sock); TCP needs the token",
    )
    parser.add_argument("--model", metavar="FILE", help="a model.safetensors to serve; live if none is yet")
    parser.add_argument("--serial", metavar="PORT", help="also answer elflash on this serial port")
    parser.add_argument("--version", action="version", version=f"edgelearnd {__version__}")
    return parser


def _settings() -> str:
    """Every key with its default, and what the sections say of themselves."""
    try:
        from edgelearn.daemon.config import explained
    except ImportError:
        return "  (install 'edgelearn[daemon]' to see it)"
    return explained()


def _run(arguments: argparse.Namespace) -> int:
    import asyncio

    from edgelearn.daemon import app

    folder = Path(arguments.data_dir).expanduser().absolute()
    listen = arguments.listen or [_usual(folder)]
    model = Path(arguments.model) if arguments.model else None
    if model is not None and not model.is_file():
        raise ModelError(f"cannot read {model}: give the path of a model.safetensors")
    board = Path(os.environ.get("EDGELEARN_SYSROOT", "/"))
    serial: list[Any] = []

    def ready(daemon: Any, addresses: list[str]) -> None:
        _say(daemon, addresses)
        if arguments.serial:
            from edgelearn.cli.daemon_serial import serve

            serial.append(serve(daemon, arguments.serial))

    try:
        asyncio.run(app.run(folder, listen, model, ready, board))
    finally:
        for line in serial:
            line.stop()
    return 0


def _usual(folder: Path) -> str:
    runtime = os.environ.get("RUNTIME_DIRECTORY")
    return f"unix:{runtime or folder}/api.sock"


def _say(daemon: Any, addresses: list[str]) -> None:
    """Where it listens, and where people look."""
    from edgelearn.daemon import log

    for address in addresses:
        page = "" if address.startswith("unix:") else f"; page: http://{address}/, its token: {daemon.folder}/token"
        log.line(log.NOTICE, f"listening on {address}{page}")


if __name__ == "__main__":
    sys.exit(main())
