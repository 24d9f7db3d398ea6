# SPDX-License-Identifier: Apache-2.0
"""`elflash serve-virtual`: a board without hardware."""

from __future__ import annotations

import argparse
import fcntl
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgelearn.cli.elflash_output import Verbs, say, tell, verb
from edgelearn.errors import OutputError, UsageError

if TYPE_CHECKING:
    from edgelearn.flash.virtual import Virtual
    from edgelearn.flash.wires import Wire

EXAMPLE = "elflash serve-virtual --pty --link board --trust key.pub --faults drop=1%,flip=0.5%,stall=2s,cut@37"


def add(verbs: Verbs) -> None:
    """Declare the verb."""
    parser = verb(verbs, "serve-virtual", "be a board, to try this without one", EXAMPLE, serve)
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--pty", action="store_true", help="on a pseudo-terminal (the usual)")
    where.add_argument("--tcp", type=int, nargs="?", const=0, metavar="PORT", help="on a TCP port of this machine")
    add = parser.add_argument
    add("--link", metavar="PATH", help="a name for the pseudo-terminal")
    add("--baud", dest="line_baud", type=int, default=115_200, metavar="N", help="rate after a start (115200)")
    add("--baud-max", type=int, default=3_000_000, metavar="N", help="the highest that it can be asked for (3000000)")
    add("--unpaced", action="store_true", help="as fast as this machine can, whatever the rate")
    add("--latency", type=float, default=0.0, metavar="MS", help="milliseconds that each answer takes (0; FTDI: 16)")
    faults = "drop=1%%, flip=0.5%%, dup=1%%, noise=10%%, stall=2s, health=TEXT, cut@37, kill@37"
    add("--faults", default="", metavar="F", help=f"what goes wrong, joined by commas: {faults}")
    add("--seed", type=int, default=0, metavar="N", help="which frames the faults strike")
    add("--data-dir", default="virtual-board", metavar="DIR", help="its disk (virtual-board)")
    add("--name", default="virtual", metavar="NAME", help="what board it says it is")
    add("--trust", action="append", default=[], metavar="FILE", help="a .pub whose bundles it takes; may be repeated")
    add("--unsigned", action="store_true", help="take content that nobody signed, if the host asks for that too")


def serve(arguments: argparse.Namespace) -> int:
    """Serve until interrupted."""
    _check(arguments)
    with _alone(Path(arguments.data_dir)):
        return _run(arguments)


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """The board's disk for this process: two boards would write over each other.

    Raises:
        OutputError: there can be no such folder.
        UsageError: another board has it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OutputError(f"cannot write {folder} ({error.strerror}): choose another --data-dir") from error
    try:
        _lock(handle, folder)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, folder: Path) -> None:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise UsageError(f"another virtual board runs on {folder}: end it, or choose another --data-dir") from error


def _run(arguments: argparse.Namespace) -> int:
    board = _made(arguments)
    name = board.wire.name
    say(arguments, f"a virtual board is on {name}: 'elflash -p {name} info' asks it", port=name)
    signal.signal(signal.SIGTERM, lambda *_: board.stop())
    try:
        board.run()
    except KeyboardInterrupt:
        board.stop()
    return 0


def _check(arguments: argparse.Namespace) -> None:
    if not 1200 <= arguments.line_baud <= arguments.baud_max:
        raise UsageError(f"--baud {arguments.line_baud}: write 1200 to {arguments.baud_max}, which is --baud-max")
    if not 0 <= (arguments.tcp or 0) < 1 << 16 or not 0 <= arguments.latency <= 10_000:
        raise UsageError("--tcp takes a port from 0 to 65535, --latency 0 to 10000 ms: write one of these")


def _made(arguments: argparse.Namespace) -> Virtual:
    """The board on its wire, with the faults asked for."""
    from edgelearn.flash import faults, keys
    from edgelearn.flash.board import Identity, Policy
    from edgelearn.flash.virtual import Virtual

    folder, struck = Path(arguments.data_dir), faults.read(arguments.faults)
    trusted = keys.trusted([*map(Path, arguments.trust), *sorted((folder / "keys").glob("*.pub"))])
    return Virtual(
        _wire(arguments),
        folder,
        Identity(arguments.name, baud=arguments.line_baud, baud_max=arguments.baud_max),
        Policy(trusted, arguments.unsigned),
        struck,
        paced=not arguments.unpaced,
        latency=arguments.latency / 1000,
        seed=arguments.seed,
        told=lambda text: tell(arguments, text),
    )


def _wire(arguments: argparse.Namespace) -> Wire:
    from edgelearn.flash.wires import Pty, Tcp

    try:
        if arguments.tcp is not None:
            return Tcp(arguments.tcp)
        return Pty(Path(arguments.link) if arguments.link else None)
    except OSError as error:
        raise OutputError(f"cannot serve there ({error.strerror}): choose another --link or --tcp") from error
