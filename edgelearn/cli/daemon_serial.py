# SPDX-License-Identifier: Apache-2.0
"""`edgelearnd --serial PORT`: the daemon's board side of elflash. What is flashed is a version of the daemon's store,
proved by its canary before it answers."""

from __future__ import annotations

import asyncio
import platform
from pathlib import Path
from typing import Any

from edgelearn.daemon import log
from edgelearn.daemon.governor import UNDER_VOLTAGE
from edgelearn.errors import EdgelearnError
from edgelearn.flash import keys
from edgelearn.flash.board import Board, Identity, Policy
from edgelearn.flash.health import Probe
from edgelearn.flash.link import open_link
from edgelearn.flash.serving import SerialBoard

SECONDS = 60.0
"""How long the daemon may take to prove a model and answer by it."""


class Promoting(Probe):
    """Models run in the daemon; for other images a look at the file has to do."""

    def __init__(self, daemon: Any) -> None:
        super().__init__()
        self._daemon, self._loop = daemon, asyncio.get_running_loop()

    def start(self, image: str, path: Path) -> str:
        """Let the daemon answer by this version."""
        wrong = super().start(image, path)
        if image != "model" or wrong:
            return wrong
        try:
            change = self._daemon.versions.promote(path.stem)
            asyncio.run_coroutine_threadsafe(change, self._loop).result(SECONDS)
        except (EdgelearnError, TimeoutError, RuntimeError) as error:  # RuntimeError: the daemon ends
            wrong = str(error) or f"it did not answer in {SECONDS:g} s"
        return wrong

    def health(self, image: str) -> str:
        """Whether the daemon answers by what is live in its store."""
        store, live = self._daemon.versions.store, self._daemon.serving.live
        wanted = store.current() if image == "model" else None
        if wanted is not None and (live is None or live.version.id != wanted.id):
            return "the daemon does not answer by it"
        return super().health(image)


def busy(daemon: Any) -> str:
    """Why nothing should be written now: heat, or a supply that is too weak for it. By the governor's last look."""
    reading, most = daemon.jobs.reading, daemon.jobs.governor.govern.temperature
    if reading.temperature is not None and reading.temperature >= most:
        return f"{reading.temperature:.0f} degrees are too hot, {most:.0f} are the limit"
    return "the power supply is too weak (under-voltage)" if (reading.throttled or 0) & UNDER_VOLTAGE else ""


def serve(daemon: Any, port: str) -> SerialBoard:
    """Answer on a port, at 115,200 baud to begin with; bundles of the keys in DIR/flash/keys/*.pub are taken.

    Raises:
        FlashError: the port cannot be opened.
    """
    folder = daemon.folder / "flash"
    identity = Identity(platform.node() or "edgelearn")
    policy = Policy(keys.trusted(sorted((folder / "keys").glob("*.pub"))), busy=lambda: busy(daemon))
    board = Board(folder, identity, policy, Promoting(daemon), {"model": daemon.versions.store})
    serving = SerialBoard(board, lambda: open_link(port, identity.baud), lambda text: log.line(log.NOTICE, text))
    serving.start()
    log.line(log.NOTICE, f"elflash is answered on {port}; trusted keys: {', '.join(policy.trusted) or 'none'}")
    return serving
