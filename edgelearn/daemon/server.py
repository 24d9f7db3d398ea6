# SPDX-License-Identifier: Apache-2.0
"""Listening: unix sockets and TCP, how many at once, and an end that lets running requests finish."""

from __future__ import annotations

import asyncio
import os
import socket
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from edgelearn.daemon.access import peer_of
from edgelearn.daemon.connection import Connection, Handler
from edgelearn.daemon.limits import Limits, Room
from edgelearn.errors import OutputError, UsageError

_BUSY = b'{"error":"too many connections are open: try again when some are done"}'
_BUSY_HEAD = (
    "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 1\r\nConnection: close\r\n"
    f"Content-Type: application/json\r\nContent-Length: {len(_BUSY)}\r\n\r\n"
)

_GRACE_SECONDS = 5.0


def check_address(address: str) -> None:
    """Refuse what is neither `unix:PATH` nor `HOST:PORT`.

    Raises:
        UsageError: it is neither.
    """
    _, colon, port = address.rpartition(":")
    if not address.startswith("unix:") and not (colon and port.isdigit() and int(port) <= 65535):
        raise UsageError(f"cannot listen on {address}: write unix:PATH or HOST:PORT")


def _bound(path: str) -> socket.socket:
    """A socket at a path for owner and group, before anybody can connect. The umask would do that, too, but it is that
    of the whole process: of other threads, and of a training process that starts meanwhile."""
    with suppress(FileNotFoundError):
        if stat.S_ISSOCK(os.stat(path).st_mode):
            os.unlink(path)
    line = socket.socket(socket.AF_UNIX)
    try:
        line.bind(path)
        os.chmod(path, 0o660)
    except OSError:
        line.close()
        raise
    return line


class Server:
    """Sockets and the connections on them. `limit_of` says of a method and target how many bytes its body may have and
    whether they are held in memory."""

    def __init__(self, handler: Handler, limits: Limits, limit_of: Callable[[str, str], tuple[int, bool]]) -> None:
        self._handler, self._limits, self._limit_of = handler, limits, limit_of
        self._room = Room(limits.held_bytes)
        self._servers: list[asyncio.Server] = []
        self._open: dict[asyncio.Task[None], Connection] = {}
        self.addresses: list[str] = []

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    async def listen(self, address: str) -> str:
        """Listen on `unix:PATH` or `HOST:PORT`; returns the address, with the port that was taken for port 0.

        Raises:
            UsageError: neither of them.
            OutputError: the address is taken or not allowed.
        """
        try:
            server = await (self._unix(address[5:]) if address.startswith("unix:") else self._tcp(address))
        except OutputError:
            raise
        except OSError as error:
            number = error.errno or 0
            reason = os.strerror(number) if number > 0 else error.strerror or error  # asyncio says it at length
            raise OutputError(f"cannot listen on {address} ({reason}): choose another with --listen") from error
        self._servers.append(server)
        if not address.startswith("unix:"):
            address = f"{address.rpartition(':')[0]}:{server.sockets[0].getsockname()[1]}"
        self.addresses.append(address)
        return address

    async def _unix(self, path: str) -> asyncio.Server:
        """A socket for owner and group. One that a killed daemon left is taken over; one that answers is not."""
        with suppress(FileNotFoundError, ConnectionRefusedError), socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(1.0)
            probe.connect(path)
            raise OutputError(f"another daemon listens on {path}: stop it, or choose another path with --listen")
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return await asyncio.start_unix_server(self._connected, sock=_bound(path))

    async def _tcp(self, address: str) -> asyncio.Server:
        check_address(address)
        host, _, port = address.rpartition(":")
        return await asyncio.start_server(self._connected, host.strip("[]"), int(port))

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or not self._has_room():
            writer.write(_BUSY_HEAD.encode() + _BUSY)
            writer.close()
            return
        peer = peer_of(writer.get_extra_info("socket"))
        connection = Connection(reader, writer, peer, self._limits, self._room, self._limit_of)
        self._open[task] = connection
        try:
            await connection.serve(self._handler)
        except asyncio.CancelledError:
            pass  # the end of the daemon, see close
        finally:
            del self._open[task]

    def _has_room(self) -> bool:
        """Whether one more may be open; the one that has been idle longest makes place for it."""
        if len(self._open) < self._limits.connections:
            return True
        for task, connection in self._open.items():
            if connection.is_idle:
                connection.is_idle = False
                task.cancel()
                return True
        return False

    async def close(self) -> None:
        """Take no more; end idle connections at once, busy ones after their answer or some seconds."""
        for server in self._servers:
            server.close()
        for address in self.addresses:
            if address.startswith("unix:"):
                with suppress(OSError):
                    os.unlink(address[5:])
        deadline = asyncio.get_running_loop().time() + _GRACE_SECONDS
        while self._open and asyncio.get_running_loop().time() < deadline:
            for task, connection in list(self._open.items()):
                if not connection.is_busy:
                    task.cancel()
            await asyncio.sleep(0.02)
        for task in list(self._open):
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)
