# SPDX-License-Identifier: Apache-2.0
"""A board on a real serial port, in a thread of whatever program runs there: bytes in, answers out, the port opened
again when it goes and comes back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress

from edgelearn.errors import FlashError, LinkError
from edgelearn.flash.board import Board
from edgelearn.flash.endpoint import Endpoint
from edgelearn.flash.link import Link

IDLE = 0.05
"""Seconds after which a silent line lets the board look at its clock."""
AGAIN = 1.0
"""Seconds between two tries to open a port that has gone."""


class SerialBoard(threading.Thread):
    """Answers on the line that `connect` opens until `stop`. A reset starts the board anew, not the program; `told` is
    what goes into its log.

    Raises:
        FlashError: the port cannot be opened.
    """

    def __init__(self, board: Board, connect: Callable[[], Link], told: Callable[[str], None]) -> None:
        super().__init__(name="elflash", daemon=True)
        self._board, self._connect, self._told = board, connect, told
        self._ending = threading.Event()
        self._link = connect()
        self._endpoint = Endpoint(board)

    def stop(self) -> None:
        """End the thread and hang up."""
        self._ending.set()
        self.join()

    def run(self) -> None:
        """Start the board and serve, over losses of the port."""
        self._board.boot()
        while not self._ending.is_set():
            self._serve_until_lost()
        self._endpoint.tick()
        self._link.close()

    def _serve_until_lost(self) -> None:
        try:
            while not self._ending.is_set():
                self._serve()
        except LinkError as error:
            self._told(str(error))
            self._reopen()

    def _serve(self) -> None:
        data = self._link.read(IDLE)
        self._endpoint.tick(idle=not data)
        self._follow()
        for answer in self._endpoint.feed(data):
            self._link.write(answer)
            self._follow()
        if self._board.restarting:
            self._board.boot()
            self._endpoint.restart()
            self._follow()

    def _follow(self) -> None:
        """The line at the rate that the board wants."""
        if self._link.baud != self._endpoint.baud:
            self._link.set_baud(self._endpoint.baud)

    def _reopen(self) -> None:
        self._link.close()
        while not self._ending.wait(AGAIN):
            with suppress(FlashError):
                self._link = self._connect()
                self._endpoint.restart()
                return
