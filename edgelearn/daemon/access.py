# SPDX-License-Identifier: Apache-2.0
"""Who may ask: on a unix socket whom the kernel names, on TCP who has the token."""

from __future__ import annotations

import os
import secrets
import socket
import struct
from dataclasses import dataclass
from pathlib import Path

from edgelearn.daemon.http import HttpError, Peer, Request
from edgelearn.durable import DISK, replacing
from edgelearn.errors import OutputError

_PEERGROUPS = 59
"""SO_PEERGROUPS of Linux 4.13, which the socket module does not name."""
_GROUPS_BYTES = 1024
"""The most that Python asks for; of a user in over 256 groups only the first group counts."""

TOKEN_FILE = "token"


def peer_of(connection: socket.socket) -> Peer:
    """Who connected, by the kernel's word; of TCP it says nothing."""
    if connection.family != socket.AF_UNIX:
        return Peer()
    pid, uid, gid = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    try:
        packed = connection.getsockopt(socket.SOL_SOCKET, _PEERGROUPS, _GROUPS_BYTES)
    except OSError:
        packed = b""
    return Peer(pid, uid, (gid, *struct.unpack(f"{len(packed) // 4}I", packed)))


@dataclass(frozen=True)
class Access:
    """The rule: root, the daemon's own user and members of its group over the unix socket; over TCP the token."""

    token: str
    uid: int
    gid: int

    @classmethod
    def of(cls, folder: Path) -> Access:
        """For this process, with the token in `folder`, which is made where there is none.

        Raises:
            OutputError: the token cannot be read or written.
        """
        return cls(_token(folder / TOKEN_FILE), os.getuid(), os.getgid())

    def check(self, request: Request) -> None:
        """Let a request pass.

        Raises:
            HttpError: 401 without the token on TCP, 403 for another user on a unix socket.
        """
        peer = request.peer
        if peer.is_local:
            if peer.uid not in (0, self.uid) and self.gid not in peer.groups:
                raise HttpError(403, f"user {peer.uid} is not in the daemon's group {self.gid}: add them to it")
            return
        scheme, _, given = request.headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not secrets.compare_digest(given.strip().encode(), self.token.encode()):
            message = (
                f"the token in the file {TOKEN_FILE} of the data folder is needed over TCP: send it as "
                "'Authorization: Bearer TOKEN', or with --token or EDGELEARN_TOKEN"
            )
            raise HttpError(401, message, {"WWW-Authenticate": 'Bearer realm="edgelearn"'})


def _token(path: Path) -> str:
    """What the file holds. An empty one, as a power cut may leave it, would let everybody in: it counts as none."""
    try:
        token = path.read_text().strip() if path.exists() else ""
        if not token:
            token = secrets.token_hex(32)  # no dash in front, which command lines take for an option
            with replacing(path) as partial:
                os.close(os.open(partial, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                with DISK.extend(partial) as stream:
                    DISK.write(stream, token.encode())
                    DISK.sync(stream)
        return token
    except OSError as error:
        raise OutputError(f"cannot read or write {path} ({error.strerror}): choose another --data-dir") from error
