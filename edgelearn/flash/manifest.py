# SPDX-License-Identifier: Apache-2.0
"""What a bundle says about itself, in CBOR, byte for byte what is signed: for which boards, which images, their sizes,
hashes and versions, and by whose key. There is no date in it: boards have no clock that could be believed."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgelearn.errors import IncompatibleError, MismatchError
from edgelearn.flash import cbor

FORMAT = 1
ABI = 1
"""Of what a board runs: the version of the model file, of which the core reads its own and older ones."""
IMAGES = ("model", "adapter", "runtime")
"""Numbered as SMP numbers images."""
ANY = "any"
MAX_SIZE = 4096
"""Bytes of a manifest. Three images take about 500."""
MAX_IMAGE = 2 << 30
"""Bytes of a payload when unpacked; a board usually has a lower limit of its own."""


@dataclass(frozen=True)
class Item:
    """One payload as it will be on the board, whatever form it travels in."""

    image: str
    version: int
    name: str
    size: int
    sha256: bytes


@dataclass(frozen=True)
class Manifest:
    """Boards by name, or `any`; architecture as `uname -m` says it, or `any`; the ABI it needs; the id of the key."""

    items: tuple[Item, ...]
    boards: tuple[str, ...] = (ANY,)
    arch: str = ANY
    abi: int = ABI
    key: str = ""

    def encode(self) -> bytes:
        """The bytes that are signed."""
        images = [
            {"image": i.image, "version": i.version, "name": i.name, "size": i.size, "sha256": i.sha256}
            for i in self.items
        ]
        head = {"format": FORMAT, "boards": list(self.boards), "arch": self.arch, "abi": self.abi, "key": self.key}
        return cbor.dumps({**head, "images": images})

    def check_board(self, board: str, arch: str, abi: int) -> None:
        """Whether it is for this board.

        Raises:
            IncompatibleError: it is for another board or architecture, or for an ABI that this board lacks.
        """
        if ANY not in self.boards and board not in self.boards:
            raise IncompatibleError(f"for {', '.join(self.boards)}, not for {board}: choose the bundle of this board")
        if self.arch not in (ANY, arch):
            raise IncompatibleError(f"for {self.arch}, not for {arch}: choose the bundle of this architecture")
        if self.abi > abi:
            raise IncompatibleError(f"needs ABI {self.abi}, the board has {abi}: update the board's runtime first")


def decode(data: bytes) -> Manifest:
    """The manifest in these bytes.

    Raises:
        MismatchError: no manifest of this format.
    """
    try:
        if len(data) > MAX_SIZE:
            raise ValueError(f"{len(data)} bytes")
        return _checked(cbor.loads(data))
    except (KeyError, TypeError, ValueError) as error:
        raise MismatchError(f"a manifest that cannot be read ({error}): make the bundle again") from error


def _checked(table: Any) -> Manifest:
    if table["format"] != FORMAT:
        raise ValueError(f"format {table['format']}, this edgelearn knows {FORMAT}")
    items = tuple(_item(entry) for entry in table["images"])
    kinds = [item.image for item in items]
    boards, arch, key = table["boards"], table["arch"], table["key"]
    if not items or len(set(kinds)) < len(kinds):
        raise ValueError("no image, or one twice")
    if not boards or not all(isinstance(text, str) for text in (*boards, arch, key)):
        raise ValueError("boards, arch and key are text")
    return Manifest(items, tuple(boards), arch, _number(table["abi"], 1 << 16), key)


def _item(entry: dict[str, Any]) -> Item:
    name, sha256 = entry["name"], entry["sha256"]
    if entry["image"] not in IMAGES or not isinstance(name, str) or len(name) > 128:
        raise ValueError("an image of another kind, or without a name")
    if not isinstance(sha256, bytes) or len(sha256) != 32:
        raise ValueError("a hash that is not of 32 bytes")
    size = _number(entry["size"], MAX_IMAGE)
    if not size:
        raise ValueError("an empty image")
    return Item(entry["image"], _number(entry["version"], 1 << 53), name, size, sha256)


def _number(value: Any, most: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= most:
        raise ValueError(f"a number {value!r} outside 0 to {most}")
    return value
