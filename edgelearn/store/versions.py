# SPDX-License-Identifier: Apache-2.0
"""What is known of a version of a model, and small tables as JSON under their own digest, so that a flipped bit is
noticed."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from edgelearn.errors import ModelError, UsageError

FORMAT = 1


@dataclass(frozen=True)
class Version:
    """A model that a store holds or held.

    `id` is the SHA-256 of its bytes in hexadecimal, `number` counts commits from 1 up, `parent` is the id that it
    learned from, `created` is in seconds since 1970 by the board's clock, which may be wrong, `size` is in bytes.
    """

    id: str
    parent: str | None = None
    note: str = ""
    metrics: Mapping[str, Any] = field(default_factory=dict, hash=False)
    created: float = 0.0
    size: int = 0
    number: int = 0

    def __post_init__(self) -> None:
        """The metrics as what nobody changes any more."""
        object.__setattr__(self, "metrics", MappingProxyType(dict(self.metrics)))

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values."""
        plain = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {**plain, "metrics": dict(self.metrics)}


def seal(table: Mapping[str, Any]) -> bytes:
    """A table as JSON with its digest.

    Raises:
        UsageError: a value is no plain value, or not finite.
    """
    try:
        text = json.dumps(table, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise UsageError(f"{error}: pass plain finite numbers, strings, lists and dictionaries") from error
    return json.dumps({"format": FORMAT, "sha256": digest([text.encode()]), "table": text}).encode()


def unseal(content: bytes) -> dict[str, Any]:
    """The table in what `seal` made.

    Raises:
        ModelError: a byte of it is not what was written.
    """
    try:
        outer = json.loads(content)
        whole = outer["format"] == FORMAT and outer["sha256"] == digest([outer["table"].encode()])
        table = json.loads(outer["table"]) if whole else None
    except (ValueError, TypeError, KeyError, AttributeError):
        table = None
    if not isinstance(table, dict):
        raise ModelError("it is damaged or of another version of edgelearn: commit the model again")
    return table


def digest(parts: Iterable[bytes | memoryview]) -> str:
    """SHA-256 in hexadecimal; hashlib brings memory that whoever does not store can do without."""
    import hashlib

    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()
