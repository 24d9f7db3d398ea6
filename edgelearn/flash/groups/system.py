# SPDX-License-Identifier: Apache-2.0
"""Group 0 of SMP: echo, reset, parameters, what system this is."""

from __future__ import annotations

import platform
from typing import TYPE_CHECKING

from edgelearn import __version__
from edgelearn.flash.smp import Group, Message, Op, Os

if TYPE_CHECKING:
    from edgelearn.flash.board import Answer, Board, Handler

DIRECT_XIP_WITH_REVERT = 5
"""MCUboot's number for two slots that both can run, with a trial."""
_QUERY_UNKNOWN, _FORMAT_UNKNOWN = 3, 2


class System:
    """Answers of group 0."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.table: dict[tuple[Op, int], Handler] = {
            (Op.READ, Os.ECHO): self.echo,
            (Op.WRITE, Os.ECHO): self.echo,
            (Op.WRITE, Os.RESET): self.reset,
            (Op.READ, Os.PARAMS): self.parameters,
            (Op.READ, Os.INFO): self.info,
            (Op.READ, Os.BOOTLOADER): self.bootloader,
        }

    def echo(self, request: Message) -> Answer:
        """The same text again."""
        return {"r": str(request.body["d"])}

    def reset(self, request: Message) -> Answer:
        """Start again, once the answer is on its way."""
        self._board.restarting = True
        return {}

    def parameters(self, request: Message) -> Answer:
        """The buffer for a message, with the length and CRC of its frame, and how many there are."""
        return {"buf_size": self._board.identity.buffer, "buf_count": 2}

    def info(self, request: Message) -> Answer | Message:
        """The fields that `format` asks for, in the order of `uname`."""
        who, wanted = self._board.identity, str(request.body.get("format", "s"))
        fields = {
            "s": platform.system(),
            "n": who.board,
            "r": platform.release(),
            "v": f"edgelearn {__version__}",
            "b": "unknown",
            "m": who.arch,
            "p": who.arch,
            "i": who.board,
            "o": "Linux" if platform.system() == "Linux" else platform.system(),
        }
        if not wanted or set(wanted) - set(fields) - {"a"}:
            return request.refusal(_FORMAT_UNKNOWN, Group.OS)
        return {"output": " ".join(text for letter, text in fields.items() if letter in wanted or "a" in wanted)}

    def bootloader(self, request: Message) -> Answer | Message:
        """Who starts the images, and in which of MCUboot's modes."""
        query = request.body.get("query")
        if query is None:
            return {"bootloader": "edgelearn"}
        if query == "mode":
            return {"mode": DIRECT_XIP_WITH_REVERT, "no-downgrade": True}
        return request.refusal(_QUERY_UNKNOWN, Group.OS)
