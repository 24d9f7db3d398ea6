# SPDX-License-Identifier: Apache-2.0
"""Find the board: the port that was named, or all ports, asked one by one, with what speaks against each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

from edgelearn.errors import FlashError, IncompatibleError, NoBoardError, PortError, UsageError
from edgelearn.flash import ports
from edgelearn.flash.endpoint import QUIET
from edgelearn.flash.host import Remote
from edgelearn.flash.link import SerialLink, open_link
from edgelearn.flash.session import Options

BASE = 115_200
"""The rate at which boards listen after a start, unless they were told another."""
LEFT = QUIET + 1.0
"""Seconds that a board is asked at least: one that a killed host left at another rate comes back in less."""
QUICK = 2
"""Times that each of several ports is asked."""


def connect(port: str, wanted: dict[str, str], board: str, options: Options) -> Remote:
    """The board on a port, or, for `auto`, the only one that answers on any.

    Raises:
        NoBoardError: nobody answers; the message says why each port was refused.
        PortError: the only ports there are are busy or denied.
        UsageError: several answer.
        IncompatibleError: it is not the board that was asked for.
    """
    if port != "auto":
        return _named(_opened(port, options, LEFT), board)
    return _named(_searched(wanted, board, options), board)


def _opened(port: str, options: Options, seconds: float) -> Remote:
    """The board on a port, at the rate of a start, or else at the one that was named."""
    try:
        return _at(BASE, port, options, seconds)
    except NoBoardError:
        if options.baud in (0, BASE):
            raise
        return _at(options.baud, port, options, seconds)


def _at(rate: int, port: str, options: Options, seconds: float) -> Remote:
    again = partial(open_link, port, rate)
    remote = Remote(again(), replace(options, connect=again))
    try:
        remote.hello(seconds)
    except FlashError:
        remote.client.link.close()
        raise
    return remote


def _named(remote: Remote, board: str) -> Remote:
    found = str(remote.info.get("board", "plain SMP"))
    if board not in ("auto", found):
        raise IncompatibleError(f"{remote.client.link.name} is {found}, not {board}: choose another port with -p")
    return remote


def _searched(wanted: dict[str, str], board: str, options: Options) -> Remote:
    there = [port for port in ports.listed() if port.matches(wanted)]
    asked = [_asked(port, board, options, len(there) == 1) for port in there]
    found = [answer for answer in asked if isinstance(answer, Remote)]
    if len(found) == 1:
        found[0].options = replace(options, connect=_anywhere(found[0], wanted))
        return found[0]
    for remote in found:
        remote.client.link.close()
    if found:
        names = ", ".join(remote.client.link.name for remote in found)
        raise UsageError(f"boards answer on {names}: choose one with -p")
    raise _nobody([answer for answer in asked if isinstance(answer, FlashError)])


def _asked(port: ports.Port, board: str, options: Options, alone: bool) -> Remote | FlashError:
    """The board on a port, or why there is none. `alone`: it is the only port, and worth more patience."""
    if port.refused:
        return PortError(port.refused)
    try:
        remote = _opened(port.path, replace(options, attempts=QUICK), LEFT if alone else 0.0)
    except FlashError as error:
        return error
    if board in ("auto", remote.info.get("board")):
        return remote
    remote.client.link.close()
    return NoBoardError(f"{port.path} is {remote.info.get('board', 'plain SMP')}, not {board}")


def _anywhere(remote: Remote, wanted: dict[str, str]) -> Callable[[], SerialLink]:
    """Open the same board again, on whatever port it comes back."""

    def again() -> SerialLink:
        before = remote.client.link.name
        there = [port.path for port in ports.listed() if port.matches(wanted) and not port.refused]
        if not there:
            raise NoBoardError("the board's port is gone: plug it in and give the same command again")
        return open_link(before if before in there else there[0], remote.base)

    return again


def _nobody(refused: list[FlashError]) -> FlashError:
    if not refused:
        return NoBoardError("this machine has no serial port: plug the board in, or name its port with -p")
    grabbers = [f"{name} runs here, {advice}" for name, advice in ports.grabbers()]
    kind = PortError if all(isinstance(error, PortError) for error in refused) else NoBoardError
    return kind(f"no board found: {'; '.join([*map(str, refused), *grabbers])}")
