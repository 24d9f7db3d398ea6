# SPDX-License-Identifier: Apache-2.0
"""The board's side of SMP: requests in, answers out, and what a start does. It knows no line and no clock of the day.

Each group of commands is a class with a table from operation and command to a method; a new group is one of those and
its entry in GROUPS.
"""

from __future__ import annotations

import os
import platform
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgelearn import __version__
from edgelearn.durable import DISK, Disk
from edgelearn.errors import BudgetError, EdgelearnError, FlashError, OutputError, RefusedError, TrustError
from edgelearn.flash import condition, keys, manifest
from edgelearn.flash.health import Probe, Runner
from edgelearn.flash.manifest import Manifest
from edgelearn.flash.slots import Slots
from edgelearn.flash.smp import Group, Message, Op, Rc, Why
from edgelearn.flash.staging import Staging
from edgelearn.store import Store

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

RESERVE = 4 << 20
"""Bytes of the disk that a transfer leaves free: the board must go on writing its state."""

Answer = dict[str, Any]
Handler = Callable[[Message], "Answer | Message"]


@dataclass(frozen=True)
class Identity:
    """What a board says it is, and what it has room for.

    `buffer` is the largest message that it takes, in bytes; `capacity` the largest payload when unpacked; `baud` the
    rate it listens at after a start, `baud_max` the highest it may be asked for.
    """

    board: str = "virtual"
    arch: str = field(default_factory=platform.machine)
    abi: int = manifest.ABI
    buffer: int = 33_000
    capacity: int = 256 << 20
    baud: int = 115_200
    baud_max: int = 3_000_000
    framings: tuple[str, ...] = ("console", "cobs")


@dataclass(frozen=True)
class Policy:
    """Whom a board trusts, by key id. `unsigned` lets content in that nobody signed, when the host asks for that too;
    `busy` says why nothing may be written now: heat, a job that must not be disturbed."""

    trusted: Mapping[str, Ed25519PublicKey] = field(default_factory=dict)
    unsigned: bool = False
    busy: Callable[[], str] = lambda: ""


class Board:
    """A board that keeps its state in `folder`: slots, transfers, stores, logs that may be read. `stores` are those of
    a daemon, by image."""

    def __init__(
        self,
        folder: Path,
        identity: Identity | None = None,
        policy: Policy | None = None,
        runner: Runner | None = None,
        stores: Mapping[str, Store] | None = None,
        disk: Disk = DISK,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        from edgelearn.flash.groups import GROUPS

        self.folder, self.disk = folder, disk
        self.identity, self.policy = identity or Identity(), policy or Policy()
        self.runner: Runner = runner or Probe()
        self.slots = Slots(folder, stores, disk, self.identity.capacity)
        self.staging = Staging(folder / "incoming", disk, clock)
        self.boot_id = b""
        self.restarting = False
        self._tables: dict[int, dict[tuple[Op, int], Handler]] = {
            int(number): group(self).table for number, group in GROUPS.items()
        }

    def boot(self) -> None:
        """Start: go on with trials, load what runs. A disk that takes no writes does not keep it from starting."""
        self.boot_id, self.restarting = os.urandom(8), False
        self.slots.boot(self.runner.start)

    def answer(self, request: Message) -> Message:
        """The answer to a request; every error is one too."""
        handler = self._tables.get(request.group, {}).get((request.op, request.command))
        if handler is None:
            return request.refusal(Rc.NOT_SUPPORTED)
        try:
            answer = handler(request)
            return answer if isinstance(answer, Message) else request.answer(answer)
        except (KeyError, TypeError, ValueError) as error:  # a field that is missing or of another kind
            if isinstance(error, EdgelearnError):
                return self._refusal(request, error)
            return self._refused(request, Rc.INVALID, Why.INVALID, f"{error} is missing or wrong: update elflash")
        except EdgelearnError as error:
            return self._refusal(request, error)
        except OSError as error:
            return self._refused(request, Rc.NO_MEMORY, Why.REFUSED, f"the board's disk: {error.strerror or error}")

    def _refusal(self, request: Message, error: EdgelearnError) -> Message:
        why = error.exit_code if isinstance(error, FlashError) else Why.REFUSED
        busy = Rc.NO_MEMORY if isinstance(error, (OutputError, BudgetError)) else Rc.BAD_STATE
        return self._refused(request, busy, why, str(error))

    def _refused(self, request: Message, rc: int, why: int, reason: str) -> Message:
        if request.group == Group.EDGELEARN:
            return request.refusal(why, Group.EDGELEARN, reason[:200])
        return request.refusal(rc)

    def admit(self, raw: bytes, signature: bytes, wants_unsigned: bool = True) -> Manifest:
        """A manifest that this board takes.

        Raises:
            TrustError, MismatchError, IncompatibleError: it does not.
        """
        content = manifest.decode(raw)
        if signature or not (self.policy.unsigned and wants_unsigned):
            keys.check(raw, signature, content.key, dict(self.policy.trusted))
        content.check_board(self.identity.board, self.identity.arch, self.identity.abi)
        return content

    def require_unsigned(self) -> None:
        """Whether content without any manifest may come in.

        Raises:
            TrustError: it may not.
        """
        if not self.policy.unsigned:
            raise TrustError("the board takes signed bundles only: make one with 'elflash bundle --key'")

    def require_room(self, image: str, size: int, on_the_line: int) -> None:
        """Whether there is room, time and peace for a payload of `size` bytes that is `on_the_line` when packed.

        Raises:
            RefusedError: there is not.
        """
        most = min(self.identity.capacity, self.slots.stores[image].keep_bytes)
        if size > most:
            raise RefusedError(f"{size:,} bytes, a slot takes {most:,}: write a smaller one")
        if busy := self.policy.busy():
            raise RefusedError(f"the board cannot now ({busy}): try again later")
        need = on_the_line + 2 * size + RESERVE  # put together, and then in the store
        if self._free() < need:
            self.staging.sweep()
            self.slots.make_room()
        if (free := self._free()) < need:
            raise RefusedError(f"{need:,} bytes are needed, {free:,} are free: make room on the board's disk")

    def _free(self) -> int:
        folder = next(f for f in (self.folder, *self.folder.parents) if f.is_dir())
        return shutil.disk_usage(folder).free

    def info(self) -> dict[str, Any]:
        """What the board says of itself."""
        who = self.identity
        return {
            "board": who.board,
            "arch": who.arch,
            "abi": who.abi,
            "edgelearn": __version__,
            "boot_id": self.boot_id,
            "max_chunk": who.buffer - 200,
            "capacity": who.capacity,
            "free": self._free(),
            "baud": who.baud,
            "baud_max": who.baud_max,
            "framings": list(who.framings),
            "unsigned": self.policy.unsigned,
            "trusted": sorted(self.policy.trusted)[:16],
            "busy": self.policy.busy(),
            "warnings": condition.warnings(),
        }
