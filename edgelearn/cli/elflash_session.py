# SPDX-License-Identifier: Apache-2.0
"""A board for as long as a verb needs it, as the global flags say."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TextIO

from edgelearn.cli.elflash_output import tell
from edgelearn.errors import FlashError, NothingToDoError, OutputError, UsageError

if TYPE_CHECKING:
    from edgelearn.flash.host import Remote
    from edgelearn.flash.session import Options

IMAGES = ("model", "adapter", "runtime")


@contextmanager
def board(arguments: argparse.Namespace, ours: bool = True) -> Iterator[Remote]:
    """Connect, and hang up afterwards. `ours`: it must speak more than plain SMP.

    Raises:
        FlashError: nobody there, or not what was asked for.
    """
    from edgelearn.flash import find, ports
    from edgelearn.flash.client import NotSupportedError

    with _traced(arguments.trace) as trace:
        options, wanted = _options(arguments, trace), ports.filters(arguments.port_filter)
        remote = find.connect(arguments.port, wanted, arguments.board, options)
        try:
            if ours and not remote.info:
                raise NotSupportedError(
                    "this board speaks plain SMP only: info, slots, write, confirm, reset and erase work"
                )
            if arguments.verbose:
                tell(arguments, f"{remote.info.get('board', 'a board of plain SMP')} on {remote.client.link.name}")
            yield remote
            with suppress(FlashError):  # what was asked for is done
                remote.leave_line()
        finally:
            remote.client.link.close()


def _options(arguments: argparse.Namespace, trace: Any) -> Options:
    from edgelearn.flash.session import Options

    return Options(
        baud=0 if arguments.baud == "auto" else arguments.baud,
        framing=arguments.framing,
        scale=arguments.timeout_scale,
        attempts=arguments.connect_attempts,
        patience=arguments.reconnect,
        trace=trace,
    )


@contextmanager
def _traced(path: str) -> Iterator[Any]:
    """A function that writes what goes over the line, or None."""
    if not path:
        yield None
        return
    try:
        stream: TextIO = sys.stderr if path == "-" else open(path, "w")  # noqa: SIM115 - closed below
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror}): choose another file for --trace") from error
    start = time.monotonic()

    def trace(direction: str, data: bytes) -> None:
        stream.write(f"{time.monotonic() - start:9.4f} {direction} {len(data):5d} {data.hex()}\n")

    try:
        yield trace
    finally:
        if stream is not sys.stderr:
            stream.close()


def entry(state: dict[str, Any], sha256: str) -> dict[str, Any]:
    """The slot whose hash begins so.

    Raises:
        NothingToDoError: none does.
        UsageError: both do.
    """
    slots = [slot for slot in state["slots"] if slot and sha256 and slot["sha256"].hex().startswith(sha256.lower())]
    if not slots:
        raise NothingToDoError(f"no {state['image']} slot holds {sha256}: see 'elflash slots'")
    if len(slots) > 1:
        raise UsageError(f"two slots begin with {sha256}: give more of the hash")
    found: dict[str, Any] = slots[0]
    return found


def running(state: dict[str, Any]) -> dict[str, Any]:
    """The slot that runs.

    Raises:
        NothingToDoError: none does.
    """
    if state["running"] is None:
        raise NothingToDoError(f"no {state['image']} runs on the board: write one first")
    found: dict[str, Any] = state["slots"][state["running"]]
    return found


def add_image(parser: Any) -> None:
    """Which of the board's images is meant."""
    parser.add_argument("--image", choices=IMAGES, default="model", help="which image is meant (model)")
