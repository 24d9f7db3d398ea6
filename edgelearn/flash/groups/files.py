# SPDX-License-Identifier: Apache-2.0
"""Group 8 of SMP, to read only: logs and reports in the board's folder."""

from __future__ import annotations

import hashlib
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

from edgelearn.flash.smp import File, Group, Message, Op

if TYPE_CHECKING:
    from edgelearn.flash.board import Answer, Board, Handler

FOLDERS = ("logs", "reports")
"""What may be read; a name is a path below one of these."""
_NOT_FOUND, _READ_FAILED, _BAD_OFFSET, _NO_SUCH_HASH, _READ_ONLY = 3, 7, 12, 13, 15
PIECE = 1 << 18


class Files:
    """Answers of group 8."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self.table: dict[tuple[Op, int], Handler] = {
            (Op.READ, File.DOWNLOAD): self.download,
            (Op.WRITE, File.DOWNLOAD): lambda request: request.refusal(_READ_ONLY, Group.FILE),
            (Op.READ, File.STATUS): self.status,
            (Op.READ, File.HASH): self.hash,
            (Op.READ, File.HASHES): lambda request: {
                "types": {"crc32": {"format": 0, "size": 4}, "sha256": {"format": 1, "size": 32}}
            },
            (Op.WRITE, File.CLOSE): lambda request: {},
        }

    def _find(self, request: Message) -> Path | None:
        """The file of that name, wherever links lead within the folders that may be read."""
        name = str(request.body["name"])
        if "\0" in name or len(name) > 512:
            return None
        path = (self._board.folder / name.lstrip("/")).resolve()
        roots = [(self._board.folder / folder).resolve() for folder in FOLDERS]
        return path if path.is_file() and any(root in path.parents for root in roots) else None

    def status(self, request: Message) -> Answer | Message:
        """Its length."""
        path = self._find(request)
        return {"len": path.stat().st_size} if path else request.refusal(_NOT_FOUND, Group.FILE)

    def download(self, request: Message) -> Answer | Message:
        """A piece of it, as long as the buffer of a message is."""
        path, off = self._find(request), int(request.body["off"])
        if path is None:
            return request.refusal(_NOT_FOUND, Group.FILE)
        size = path.stat().st_size
        if not 0 <= off <= size:
            return request.refusal(_BAD_OFFSET, Group.FILE)
        with path.open("rb") as stream:
            stream.seek(off)
            data = stream.read(min(self._board.identity.buffer - 100, 4096))
        return {"off": off, "data": data, **({"len": size} if not off else {})}

    def hash(self, request: Message) -> Answer | Message:
        """Its CRC32 or SHA-256, or that of a part of it."""
        path, kind = self._find(request), request.body.get("type", "sha256")
        if path is None:
            return request.refusal(_NOT_FOUND, Group.FILE)
        if kind not in ("crc32", "sha256"):
            return request.refusal(_NO_SUCH_HASH, Group.FILE)
        off, size = int(request.body.get("off", 0)), path.stat().st_size
        if not 0 <= off <= size:
            return request.refusal(_BAD_OFFSET, Group.FILE)
        left = done = min(size - off, int(request.body.get("len", size)))
        crc, digest = 0, hashlib.sha256()
        with path.open("rb") as stream:
            stream.seek(off)
            while left > 0 and (piece := stream.read(min(left, PIECE))):
                crc, left = zlib.crc32(piece, crc), left - len(piece)
                digest.update(piece)
        return {"type": kind, "off": off, "len": done, "output": crc if kind == "crc32" else digest.digest()}
