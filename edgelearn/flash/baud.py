# SPDX-License-Identifier: Apache-2.0
"""The rate of a line: upward step by step as long as what is said comes back, and back to what worked."""

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
"""Seconds that a transfer must take before it is worth looking for a higher rate."""


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


def climb(client: Client, highest: int, framing: str, bytes_left: int) -> int:
    """The highest rate that carries, up to `highest`; each step only while there is enough left to send."""
    change(client, client.link.baud, framing)
    for baud in (step for step in STEPS if client.link.baud < step <= highest):
        worth = bytes_left * 10 / client.link.baud > WORTH
        if not (client.link.has_baud and worth and change(client, baud, client.framing)):
            break
    change(client, client.link.baud, framing)
    return client.link.baud
