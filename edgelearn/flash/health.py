# SPDX-License-Identifier: Apache-2.0
"""Whether content could run at all, without numpy: what a board that has no trainer asks before a trial."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Protocol

HEAD_LIMIT = 64 << 20
"""Bytes of a safetensors header; the format allows 100 MB, no model of a board comes near."""
_BLANK, _DIGEST_KEY = b"0" * 64, b'"sha256":"'


class Runner(Protocol):
    """What a board runs its images in. Both answer what is wrong, or an empty string."""

    def start(self, image: str, path: Path) -> str:
        """Load content and let it answer."""

    def health(self, image: str) -> str:
        """How what was started does now."""


class Probe:
    """Looks at a model file: its header, its lengths, its digest where it has one. Others only must not be empty."""

    def __init__(self) -> None:
        self._wrong: dict[str, str] = {}

    def start(self, image: str, path: Path) -> str:
        """What is wrong with the file; a safetensors file is known by its first bytes."""
        self._wrong[image] = model(path) if image == "model" else "" if path.stat().st_size else "it is empty"
        return self._wrong[image]

    def health(self, image: str) -> str:
        """What was found at the start."""
        return self._wrong.get(image, "")


def model(path: Path) -> str:
    """What is wrong with a model file, or an empty string."""
    with path.open("rb") as stream:
        start = stream.read(9)
        length = int.from_bytes(start[:8], "little")
        if start[8:] != b"{":  # an .onnx, a .tflite: their runtimes judge
            return "" if start.strip(b"\0") else "it is empty"
        head = stream.read(length - 1) if length <= HEAD_LIMIT else b""
        return _checked(path, b"{" + head, length)


def _checked(path: Path, head: bytes, length: int) -> str:
    try:
        table = json.loads(head)
        ends = [int(entry["data_offsets"][1]) for name, entry in table.items() if name != "__metadata__"]
        about = table.get("__metadata__", {})
        said = about.get("sha256") if about.get("format") == "edgelearn" else None
    except (ValueError, KeyError, TypeError, AttributeError):
        return "its header cannot be read"
    if len(head) != length or 8 + length + max(ends, default=0) != path.stat().st_size:
        return "it is cut short or too long"
    if isinstance(said, str) and _digest(path, head, length) != said:
        return "its content does not match its digest"
    return ""


def _digest(path: Path, head: bytes, length: int) -> str:
    """Of all of the file, with the digest itself blanked out."""
    at = head.find(_DIGEST_KEY) + len(_DIGEST_KEY)
    found = hashlib.sha256(length.to_bytes(8, "little") + head[:at] + _BLANK + head[at + 64 :])
    with path.open("rb") as stream:
        stream.seek(8 + length)
        while piece := stream.read(1 << 18):
            found.update(piece)
    return found.hexdigest()
