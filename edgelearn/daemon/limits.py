# SPDX-License-Identifier: Apache-2.0
"""What clients may cost: sizes, times, and the memory that all bodies share."""

from __future__ import annotations

from dataclasses import dataclass

from edgelearn.daemon.http import HttpError


@dataclass(frozen=True)
class Limits:
    """Of every connection. Seconds: `idle` between requests, `head` for a request line and headers, `body` at the
    start of a body, which must then come at `pace` bytes a second; `write` for a client that does not read. Bytes:
    `head_bytes`; `body_bytes` and `file_bytes` for what is held in memory and what goes to disk; `held_bytes` for all
    that is held at once."""

    connections: int = 64
    idle: float = 75.0
    head: float = 10.0
    body: float = 10.0
    write: float = 30.0
    pace: int = 16 << 10
    head_bytes: int = 16 << 10
    body_bytes: int = 4 << 20
    file_bytes: int = 256 << 20
    held_bytes: int = 24 << 20


class Room:
    """Bytes that all bodies in memory may take together."""

    def __init__(self, size: int) -> None:
        self.left = size

    def take(self, count: int) -> None:
        """Take some.

        Raises:
            HttpError: 503, there are not enough.
        """
        if count > self.left:
            raise HttpError(
                503, "too many bodies are being read: send this one again in a second", {"Retry-After": "1"}
            )
        self.left -= count

    def give(self, count: int) -> None:
        """Give them back."""
        self.left += count
