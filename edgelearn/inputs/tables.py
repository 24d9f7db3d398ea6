# SPDX-License-Identifier: Apache-2.0
"""Records, which are frozen dataclasses, from the tables of a .toml or a model file, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any, TypeVar

from edgelearn.errors import ModelError

Record = TypeVar("Record")


def record(kind: type[Record], where: str, config: Any) -> Record:
    """A record of a kind from its table, which messages call `where`.

    Raises:
        ModelError: no table, an unknown key, or a value that the record refuses.
    """
    if not isinstance(config, Mapping):
        raise ModelError(f"{where} must be a table, not {config!r}: write {where} above its settings")
    known = [f.name for f in fields(kind)]  # type: ignore[arg-type]
    for key in config:
        if key not in known:
            raise ModelError(f"{where} has no key '{key}': it takes {', '.join(known)}")
    return kind(**config)


def table(of: Any) -> dict[str, Any]:
    """The table that a record is read from, for JSON; what is unset is left out."""
    pairs = ((f.name, getattr(of, f.name)) for f in fields(of))
    return {name: _plain(value) for name, value in pairs if value is not None}


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        return table(value)
    return list(value) if isinstance(value, tuple) else value
