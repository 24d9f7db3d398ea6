# SPDX-License-Identifier: Apache-2.0
"""What systemd is told: ready, what goes on, and a watchdog that is fed only while everything that must work does.

The protocol of sd_notify(3): datagrams to the socket in NOTIFY_SOCKET.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from edgelearn.daemon import log

if TYPE_CHECKING:
    from edgelearn.daemon.app import Daemon

PROBE_SECONDS = 20.0
"""That the writer of samples may take to answer: a card that stalls for seconds is no reason to restart."""


def notify(*lines: str) -> None:
    """Tell systemd, if it started this."""
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.connect(address)
        line.sendall("\n".join(lines).encode())


def interval() -> float | None:
    """Seconds between two feedings of the watchdog, a third of its patience; None where there is none."""
    with suppress(KeyError, ValueError):
        if int(os.environ.get("WATCHDOG_PID", os.getpid())) == os.getpid():
            return int(os.environ["WATCHDOG_USEC"]) / 3e6
    return None


async def watch(daemon: Daemon) -> None:
    """Feed the watchdog while the loop runs, the writer of samples answers and answers come; say what is wrong
    otherwise, and let systemd restart."""
    pause = interval()
    while pause:
        await asyncio.sleep(pause)
        problem = await ill(daemon)
        if problem:
            log.error(problem)
        else:
            notify("WATCHDOG=1", f"STATUS={daemon.status()['state']}")


async def ill(daemon: Daemon) -> str:
    """What does not work, empty if all does."""
    if not await _responds(daemon.samples.probe()):
        return f"the writer of samples did not respond within {PROBE_SECONDS:g} s"
    if not await _responds(daemon.serving.probe()):
        return f"the thread that answers did not respond within {PROBE_SECONDS:g} s"
    return ""


async def _responds(probe: Coroutine[Any, Any, None]) -> bool:
    try:
        await asyncio.wait_for(probe, PROBE_SECONDS)
    except (TimeoutError, asyncio.TimeoutError):
        return False
    except OSError:
        pass  # a full disk is told elsewhere, and a restart frees nothing
    return True
