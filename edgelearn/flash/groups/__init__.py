# SPDX-License-Identifier: Apache-2.0
"""The groups of commands that a board answers: a new one is a class with a `table` in a file here, and an entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from edgelearn.flash.groups.files import Files
from edgelearn.flash.groups.images import Images
from edgelearn.flash.groups.system import System
from edgelearn.flash.groups.transfers import Transfers
from edgelearn.flash.smp import Group, Op

if TYPE_CHECKING:
    from edgelearn.flash.board import Board, Handler


class Commands(Protocol):
    """A group: made for a board, it has a method for each operation and command."""

    table: dict[tuple[Op, int], Handler]

    def __init__(self, board: Board) -> None: ...


GROUPS: dict[Group, type[Commands]] = {
    Group.OS: System,
    Group.IMAGE: Images,
    Group.FILE: Files,
    Group.EDGELEARN: Transfers,
}
