# SPDX-License-Identifier: Apache-2.0
"""A line of bytes to a board: what the rest needs of it, and pyserial, which opens `/dev/tty*`, pseudo-terminals, COM
ports, `socket://HOST:PORT` and `rfc2217://HOST:PORT`."""

from __future__ import annotations

import os
import select
import stat
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from edgelearn.errors import LinkError, NoBoardError, PortError, UsageError

if TYPE_CHECKING:
    from serial import SerialBase

_GONE: tuple[type[Exception], ...] = (OSError, TypeError, ValueError)
"""What pyserial raises when a port goes; on POSIX an error of termios too, which is no OSError."""
with suppress(ImportError):
    import termios

    _GONE = (*_GONE, termios.error)
SLICE = 0.02
"""Seconds that a line without a file descriptor is waited on at once."""
STUCK = 60.0
"""Seconds after which a line that takes no bytes is lost."""


class LineGoneError(LinkError):
    """Not only silent: the port itself has gone."""


class Link(Protocol):
    """A line. Losing it raises LineGoneError from any of these."""

    name: str
    baud: int
    has_baud: bool
    """Whether the rate can be set: not on a socket, where `baud` is what time-outs reckon with."""

    def read(self, timeout: float) -> bytes:
        """What has arrived, at the latest after `timeout` seconds; maybe nothing."""

    def write(self, data: bytes) -> None:
        """Hand bytes over, all of them."""

    def set_baud(self, baud: int) -> None:
        """Change the rate, for what comes from now on."""

    def close(self) -> None:
        """Give the line back."""


class SerialLink:
    """A line that pyserial opened, for us alone."""

    def __init__(self, port: SerialBase, name: str) -> None:
        self.name, self._port, self.baud = name, port, int(port.baudrate)
        self.has_baud = "socket://" not in name
        self._handle: int | None = None
        with suppress(Exception):  # rfc2217 has none, and says so in its own way
            self._handle = port.fileno()

    def read(self, timeout: float) -> bytes:
        """What has arrived, at the latest after `timeout` seconds."""
        try:
            if self._handle is not None:
                if not select.select([self._handle], [], [], max(0.0, timeout))[0]:
                    return b""
                return bytes(self._port.read(self._port.in_waiting or 1))
            return self._poll(timeout)
        except _GONE as error:
            raise self._lost(error) from error

    def _poll(self, timeout: float) -> bytes:
        end = time.monotonic() + timeout
        while not (waiting := self._port.in_waiting) and time.monotonic() < end:
            time.sleep(min(SLICE, max(0.0, end - time.monotonic())))
        return bytes(self._port.read(waiting)) if waiting else b""

    def write(self, data: bytes) -> None:
        """All of the bytes."""
        try:
            self._port.write(data)
        except _GONE as error:
            raise self._lost(error) from error

    def set_baud(self, baud: int) -> None:
        """Change the rate once what was written has gone."""
        try:
            if self.has_baud:
                self._port.flush()
                self._port.baudrate = baud
            self.baud = baud
        except _GONE as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> LinkError:
        reason = getattr(error, "strerror", None) or type(error).__name__
        return LineGoneError(f"the line {self.name} was lost ({reason}): plug it in and give the same command again")

    def close(self) -> None:
        """Close the port; one that has gone cannot complain."""
        with suppress(Exception):
            self._port.close()


def _pyserial() -> Any:
    try:
        import serial
    except ImportError as error:
        raise UsageError("lines need the package pyserial: pip install 'edgelearn[serial]'") from error
    return serial


def open_link(url: str, baud: int) -> SerialLink:
    """Open a port by its name or URL.

    Raises:
        NoBoardError: there is no such port.
        PortError: somebody else holds it, or it is not ours to open.
    """
    from edgelearn.flash import ports

    serial = _pyserial()
    try:
        port = serial.serial_for_url(url, do_not_open=True, baudrate=baud, timeout=0.2)
        if "://" not in url:  # others have neither, and rfc2217 refuses to open with a time-out of writes
            port.exclusive, port.write_timeout = True, STUCK
        port.open()
    except (OSError, ValueError) as error:
        raise _not_open(url, error) from error
    if "://" not in url and (holders := ports.holders(url)):
        port.close()
        raise PortError(f"{url} is in use by {', '.join(holders)}: end that program, then try again")
    return SerialLink(port, url)


def _not_open(url: str, error: Exception) -> NoBoardError | PortError:
    """Why a port does not open, by looking at it rather than at the words of the error."""
    from edgelearn.flash import ports

    if "://" in url:
        scheme = "it is no URL that pyserial knows" if isinstance(error, ValueError) else "nobody listens there"
        return NoBoardError(f"{url} cannot be opened ({scheme}): check host and port")
    if not os.path.exists(url):
        return NoBoardError(f"{url} is not there: plug the board in, 'elflash ports' lists what is")
    if not _is_terminal(url):
        return NoBoardError(f"{url} is no serial port: 'elflash ports' lists those that are")
    return PortError(ports.refusal(url) or f"{url} does not open ({error}): 'elflash doctor' looks further")


def _is_terminal(path: str) -> bool:
    """Whether it is a line at all, as far as it can be opened to see."""
    if not stat.S_ISCHR(os.stat(path).st_mode):
        return False
    try:
        handle = os.open(path, os.O_RDWR | os.O_NOCTTY | os.O_NONBLOCK)
    except OSError:
        return True
    try:
        return os.isatty(handle)
    finally:
        os.close(handle)
