# SPDX-License-Identifier: Apache-2.0
"""A board that is talked to: who is there, at which rate and in which framing, and how it is found again after a lost
line or a restart."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from edgelearn.errors import IncompatibleError, LinkError, NoBoardError, RestartError
from edgelearn.flash import baud
from edgelearn.flash.client import Client, NotSupportedError, Trace
from edgelearn.flash.link import LineGoneError, Link
from edgelearn.flash.smp import El, Group, Op, Os

SLOW = 10.0
"""Seconds that a board may take for what it does on its disk."""


@dataclass(frozen=True)
class Options:
    """How to talk: `baud` 0 looks for the highest rate; `framing` auto takes cobs where the board offers it;
    `patience` is how many seconds a lost line is waited for."""

    baud: int = 0
    framing: str = "auto"
    scale: float = 1.0
    attempts: int = 7
    patience: float = 10.0
    trace: Trace | None = None
    connect: Callable[[], Link] | None = None


class Session:
    """A board at the other end of a link. `info` is its answer to hello, empty for one that speaks plain SMP."""

    def __init__(self, link: Link, options: Options | None = None) -> None:
        self.options = options or Options()
        self.client = Client(link, self.options.trace, self.options.scale)
        self.base = link.baud
        self.ladder = baud.Ladder(self.client)
        self.info: dict[str, Any] = {}
        self.left = 0

    def hello(self, seconds: float = 0.0) -> dict[str, Any]:
        """Find out who is there. `seconds`: how long to go on asking, beside the attempts.

        Raises:
            NoBoardError: nobody speaks SMP.
        """
        end, attempt = time.monotonic() + seconds, 0
        while attempt < self.options.attempts or time.monotonic() < end:
            attempt += 1
            try:
                self.info = self.client.request(Op.READ, Group.EDGELEARN, El.HELLO, {}, tries=1)
                if not self.client.link.has_baud:  # a socket may lead to a slow line behind it
                    self.client.link.baud = int(self.info["baud"])
                return self.info
            except NotSupportedError:
                self.info = {}
                return {}
            except LineGoneError:
                raise
            except LinkError:
                self.client.drain()
        name = self.client.link.name
        raise NoBoardError(
            f"nobody on {name} speaks SMP at {self.base} baud: check that it runs, -b names another rate"
        )

    def read(self, command: El, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """Ask group 64."""
        return self.client.request(Op.READ, Group.EDGELEARN, command, body or {})

    def do(self, command: El, body: dict[str, Any], timeout: float = SLOW) -> dict[str, Any]:
        """Have group 64 do something that may take the board a while."""
        return self.client.request(Op.WRITE, Group.EDGELEARN, command, body, timeout)

    def prepare_line(self, to_send: int) -> None:
        """Choose rate and framing for so many bytes."""
        self.left = to_send
        offered = self.info.get("framings", ["console"])
        wanted = self.options.framing
        framing = ("cobs" if "cobs" in offered else "console") if wanted == "auto" else wanted
        if framing not in offered:
            raise IncompatibleError(f"the board does not speak {framing}: use --framing console")
        self.ladder.highest = self.options.baud or int(self.info.get("baud_max", self.base))
        self.ladder.framing = framing
        self.ladder.climb(to_send)

    def leave_line(self) -> None:
        """Put rate and framing back to where the next caller looks for the board."""
        baud.change(self.client, self.base, "console")

    def reconnect(self) -> None:
        """Wait for the line and the board to come back, at the rate and in the framing of a start.

        Raises:
            LinkError: they did not, in `patience` seconds.
        """
        end = time.monotonic() + self.options.patience
        self.ladder.lost()
        while not self._is_back():
            if time.monotonic() >= end:
                raise LinkError(f"{self.client.link.name} is gone: give the same command again, it goes on there")
            self._reopen()

    def _is_back(self) -> bool:
        try:
            if self.client.link.baud != self.base:
                self.client.link.set_baud(self.base)
            self.client.use("console")
            self.hello()
            self.prepare_line(self.left)
            return True
        except (LinkError, NoBoardError):
            return False

    def _reopen(self) -> None:
        """Open the line anew if it is one that can be; another port will do if the board is there."""
        if self.options.connect is None:
            return
        self.client.link.close()
        try:
            self.client.link = self.options.connect()
        except (NoBoardError, LinkError):
            time.sleep(0.3)

    def reset(self, wait: float = 30.0) -> None:
        """Restart the board and wait until it is back.

        Raises:
            RestartError: it did not come back in `wait` seconds.
        """
        before = self.info.get("boot_id")
        self.leave_line()
        self.client.request(Op.WRITE, Group.OS, Os.RESET, {})
        end = time.monotonic() + wait
        while not self._restarted(before):
            if time.monotonic() >= end:
                raise RestartError(f"the board was not back after {wait:g} s: look at it, then 'elflash info'")
            time.sleep(0.05)

    def _restarted(self, before: bytes | None) -> bool:
        try:
            return self.hello().get("boot_id") != before or before is None
        except (LinkError, NoBoardError):
            self._reopen()
            return False
