# SPDX-License-Identifier: Apache-2.0
"""The rate of a line: upward step by step as long as what is said comes back, and back to what worked. A rate that
failed is tried again, ever more seldom: a line that had a bad minute does not stay slow, and one that cannot carry it
loses little."""

from __future__ import annotations

import time

from edgelearn.errors import LinkError
from edgelearn.flash.client import Client, NotSupportedError
from edgelearn.flash.endpoint import PATIENCE, QUIET
from edgelearn.flash.smp import El, Group, Op, Os

STEPS = (230_400, 460_800, 921_600, 1_500_000, 2_000_000, 3_000_000)
PATTERN = "U*" * 240
"""Text whose bits change as often as can be, and long enough for a clock that is a little off."""
ROUNDS = 3
"""Echoes at a new rate before it is trusted."""
SETTLE = 0.02
"""Seconds that the other side has to change its rate after its answer has left."""
ASKED = 3
"""Times that a rate is asked for while the answers get lost."""
WORTH = 4.0
"""Seconds that a transfer must take before a higher rate is worth a try, doubled by each time that it failed."""
ALONE = 5.0
"""Seconds for which a rate that failed is left alone, doubled by each time that it did."""


def change(client: Client, baud: int, framing: str) -> bool:
    """Ask for a rate and a framing, and try them. False: both sides are back at what they had.

    Raises:
        LinkError: the line is lost, at the old rate too.
    """
    if (baud, framing) == (client.link.baud, client.framing):
        return True
    for _ in range(ASKED):
        before = client.link.baud
        try:
            client.request(Op.WRITE, Group.EDGELEARN, El.SET_BAUD, {"baud": baud, "framing": framing}, tries=1)
        except NotSupportedError:
            return False
        except LinkError:  # asked in vain, or the answer was lost and the board waits at the new rate for a second
            _back(client, before)
            continue
        time.sleep(SETTLE)
        client.link.set_baud(baud)
        client.use(framing)
        if all(client.echo(PATTERN, tries=2) for _ in range(ROUNDS)):
            return True
        _back(client, before)
        return False
    return False


def _back(client: Client, before: int) -> None:
    """To what worked, in the framing that is always heard. If the board had heard an echo, only noise brings it back,
    and then to the rate of its start."""
    time.sleep(PATIENCE)
    for baud, patience in ((before, 0.0), (client.base, 2 * QUIET)):
        client.link.set_baud(baud)
        client.use("console")
        client.drain()
        try:
            client.request(Op.WRITE, Group.OS, Os.ECHO, {"d": "back"}, timeout=patience)
            return
        except LinkError:
            if patience:
                raise


class Ladder:
    """The rates of one line, up to `highest`; none before that is set."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.highest, self.framing = 0, client.framing
        self._failures: dict[int, int] = {}
        self._until: dict[int, float] = {}
        self._since = 0.0

    def due(self, bytes_left: int) -> int:
        """The next rate, if it is worth a try now, or 0: never while there is little to send or it failed just now."""
        link = self._client.link
        baud = next((step for step in STEPS if link.baud < step <= self.highest), 0)
        worth = bytes_left * 10 / link.baud > WORTH * 2 ** self._failures.get(baud, 0)
        return baud if link.has_baud and worth and time.monotonic() >= self._until.get(baud, 0.0) else 0

    def climb(self, bytes_left: int) -> None:
        """Up to the highest rate that is due and carries, in the framing that was chosen.

        Raises:
            LinkError: the line is lost, at the first rate too.
        """
        while baud := self.due(bytes_left):
            self._step(baud)
        change(self._client, self._client.link.baud, self.framing)

    def _step(self, baud: int) -> None:
        carries = False
        try:
            carries = change(self._client, baud, self._client.framing)
        finally:
            if carries:
                self._since = time.monotonic()
            else:
                self._failed(baud, 0.0)

    def lost(self) -> None:
        """The line fell silent. A rate above the first one is to blame, if only for a while."""
        if (baud := self._client.link.baud) != self._client.base:
            self._failed(baud, time.monotonic() - self._since)

    def _failed(self, baud: int, held: float) -> None:
        """Leave a rate alone, from anew if it carried for longer than that."""
        before = self._failures.get(baud, 0)
        self._failures[baud] = 1 if held > ALONE * 2**before else before + 1
        self._until[baud] = time.monotonic() + ALONE * 2 ** self._failures[baud]
