# SPDX-License-Identifier: Apache-2.0
"""The board's end of a line that is not one: a pseudo-terminal, a TCP port, and the pace of a rate."""

from __future__ import annotations

import os
import select
import socket
import termios
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

PIECE = 2048
"""Bytes that a UART's driver hands over at once."""
RATES = {getattr(termios, name): int(name[1:]) for name in dir(termios) if name[:1] == "B" and name[1:].isdigit()}


class Pacer:
    """Lets bytes through at a rate. Bytes that were waiting continue where the line was; a sleep that was too long is
    made up for, a pause is not."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._free = clock, 0.0

    def wait(self, count: int, baud: int, waited: bool) -> None:
        """Return when `count` bytes would be through; `waited`: the line was idle before them."""
        now = self._clock()
        self._free = (max(now, self._free) if waited else max(now - 0.1, self._free)) + count * 10 / baud
        if (left := self._free - now) > 0:
            time.sleep(left)


class Wire(ABC):
    """The board's end of a line: bytes in and out, and the rate of the other end where it has one."""

    name = ""

    @abstractmethod
    def read(self, timeout: float) -> bytes:
        """What is there, at most a piece of it; nothing after `timeout` seconds."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """All of it; nobody there is nobody who misses it."""

    def rate(self) -> int | None:
        """The rate at which the other end is set, if that means anything."""
        return None

    @abstractmethod
    def close(self) -> None:
        """End it."""


class Pty(Wire):
    """A pseudo-terminal; `name` is what a host opens. The rate that it sets can be seen: a wrong one is garbage."""

    def __init__(self, link: Path | None = None) -> None:
        self._master, self._slave = os.openpty()
        settings = termios.tcgetattr(self._slave)
        settings[0] = settings[1] = settings[3] = 0
        termios.tcsetattr(self._slave, termios.TCSANOW, settings)
        os.set_blocking(self._master, False)
        self.name = self._terminal = os.ttyname(self._slave)
        self._link = link
        if link is not None:
            with suppress(FileNotFoundError):
                if link.is_symlink():
                    link.unlink()
            link.symlink_to(self.name)
            self.name = str(link)

    def read(self, timeout: float) -> bytes:
        """What the host wrote."""
        if not select.select([self._master], [], [], timeout)[0]:
            return b""
        with suppress(BlockingIOError):
            return os.read(self._master, PIECE)
        return b""

    def write(self, data: bytes) -> None:
        """To the host; what it does not read is lost after a while, as on a line without flow control."""
        view = memoryview(data)
        while view:
            if not select.select([], [self._master], [], 0.2)[1]:
                return
            with suppress(BlockingIOError):
                view = view[os.write(self._master, view) :]

    def rate(self) -> int | None:
        """What the host set."""
        return RATES.get(termios.tcgetattr(self._master)[5])

    def close(self) -> None:
        """Hang up."""
        for handle in (self._master, self._slave):
            with suppress(OSError):
                os.close(handle)
        with suppress(OSError):
            if self._link is not None and os.readlink(self._link) == self._terminal:  # else another board has the name
                self._link.unlink()


class Tcp(Wire):
    """A port on this machine; one host at a time, and the next one when that has gone."""

    def __init__(self, port: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(0.0)
        self.name = f"socket://127.0.0.1:{self._listener.getsockname()[1]}"
        self._host: socket.socket | None = None

    def read(self, timeout: float) -> bytes:
        """What the host sent."""
        if self._host is None:
            if select.select([self._listener], [], [], timeout)[0]:
                self._host = self._listener.accept()[0]
                self._host.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return b""
        if not select.select([self._host], [], [], timeout)[0]:
            return b""
        with suppress(OSError):
            if data := self._host.recv(PIECE):
                return data
        self._host.close()
        self._host = None
        return b""

    def write(self, data: bytes) -> None:
        """To the host, if there is one."""
        with suppress(OSError):
            if self._host is not None:
                self._host.settimeout(1.0)
                self._host.sendall(data)

    def close(self) -> None:
        """Hang up and listen no more."""
        for end in (self._host, self._listener):
            if end is not None:
                end.close()
