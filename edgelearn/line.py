# SPDX-License-Identifier: Apache-2.0
"""The line from the client to a daemon: HTTP over a unix socket or TCP, and refusals as the errors that they were."""

from __future__ import annotations

import http.client
import json
import os
import select
import socket
from collections.abc import Generator, Mapping
from typing import Any

from edgelearn import errors
from edgelearn.errors import DaemonError, DataError, EdgelearnError, UsageError

USUAL = "unix:/run/edgelearn/api.sock"
"""Where the systemd unit of the system listens."""


class UnixConnection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Open it.

        Raises:
            OSError: nobody listens there.
        """
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Line:
    """A connection to the daemon at `unix:PATH` or `HOST:PORT`, opened with the first request and again where the
    daemon closed it. `timeout` is in seconds, for one request.

    Raises:
        UsageError: an address that cannot be meant.
    """

    def __init__(self, address: str, token: str | None, timeout: float) -> None:
        if not address.startswith("unix:") and not address.rpartition(":")[2].isdigit():
            raise UsageError(f"{address} is no address of a daemon: write unix:PATH or HOST:PORT")
        self.address, self._token, self._timeout = address, token, timeout
        self._connection = self._connect()

    def close(self) -> None:
        """End the connection."""
        self._connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        if self.address.startswith("unix:"):
            return UnixConnection(self.address[5:], self._timeout)
        host, _, port = self.address.rpartition(":")
        return http.client.HTTPConnection(host, int(port), timeout=self._timeout)

    def lines(self, path: str) -> Generator[bytes, None, None]:
        """Lines of an answer as they come, over a connection of their own; they end when the daemon does.

        Raises:
            EdgelearnError, DaemonError: as `exchange`.
        """
        connection = self._connect()
        try:
            response = self._send(connection, "GET", path, None, {})
            if response.status != 200:
                raise _refusal(response.status, response.read())
            yield from response
        except (OSError, http.client.HTTPException) as error:
            raise self._away(error) from error
        finally:
            connection.close()

    def exchange(
        self, method: str, path: str, content: Any, headers: Mapping[str, str]
    ) -> tuple[bytes, http.client.HTTPMessage]:
        """A request with a body of bytes or a file, and what is answered: its content and headers.

        Raises:
            EdgelearnError: what the daemon refused it with.
            DaemonError: it does not answer, or failed.
        """
        try:
            response = self._send(self._connection, method, path, content, headers)
            given = response.read()
        except (OSError, http.client.HTTPException) as error:
            self._connection.close()
            raise self._away(error) from error
        if response.status >= 400:
            raise _refusal(response.status, given)
        return given, response.headers

    def _send(
        self, connection: http.client.HTTPConnection, method: str, path: str, content: Any, headers: Mapping[str, str]
    ) -> http.client.HTTPResponse:
        """Send and wait for the head of the answer, on a new line where the daemon has closed the one there was."""
        if connection.sock is not None and select.select([connection.sock], [], [], 0)[0]:
            connection.close()
        token = {"Authorization": f"Bearer {self._token}"} if self._token else {}
        connection.request(method, path, content, {**headers, **token})
        return connection.getresponse()

    def _away(self, error: Exception) -> DaemonError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return DaemonError(f"no daemon answers at {self.address} ({reason}): start edgelearnd, or set EDGELEARN_DAEMON")


def usual_address() -> str:
    """Where a unit of one's own listens, if one does, or else that of the system."""
    own = f"{os.environ.get('XDG_RUNTIME_DIR') or f'/run/user/{os.getuid()}'}/edgelearn/api.sock"
    return f"unix:{own}" if os.path.exists(own) else USUAL


def _refusal(status: int, content: bytes) -> EdgelearnError:
    """The error that the daemon said, of its own class."""
    try:
        said = json.loads(content)
        message, kind = str(said["error"]), getattr(errors, str(said.get("kind")), None)
    except (ValueError, KeyError, TypeError):
        message, kind = f"the daemon answered {status}: see its log", None
    if isinstance(kind, type) and issubclass(kind, EdgelearnError):
        return kind(message)
    by_status = {**dict.fromkeys((400, 413, 415), DataError), **dict.fromkeys((404, 409), UsageError)}
    return by_status.get(status, DaemonError)(message)
