# SPDX-License-Identifier: Apache-2.0
"""The configuration: one TOML file whose every key is known and checked; what is not set has a default.

Changes over HTTP are checked the same way and written back.
"""

from __future__ import annotations

import json
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from edgelearn import tomlfile
from edgelearn.daemon.sections import Govern, Keep, Mqtt, Serve, Train
from edgelearn.durable import replacing, write_through
from edgelearn.errors import UsageError

FILE = "config.toml"


@dataclass(frozen=True)
class Config:
    """All of it: the sections `[serve]`, `[keep]`, `[train]`, `[govern]` and `[mqtt]`.

    Raises:
        UsageError: a value that cannot be meant.
    """

    serve: Serve = field(default_factory=Serve)
    keep: Keep = field(default_factory=Keep)
    train: Train = field(default_factory=Train)
    govern: Govern = field(default_factory=Govern)
    mqtt: Mqtt = field(default_factory=Mqtt)

    def changed(self, tables: Any, where: str = "the configuration") -> Config:
        """This with some keys of some sections set anew.

        Raises:
            UsageError: an unknown section or key, or a value that cannot be meant.
        """
        sections = [f.name for f in fields(self)]
        parts = {name: _changed(getattr(self, name), name, table) for name, table in _items(tables, where, sections)}
        return replace(self, **parts)

    def to_table(self) -> dict[str, dict[str, Any]]:
        """Every key of every section, for JSON."""
        return {
            section.name: {f.name: _plain(getattr(getattr(self, section.name), f.name)) for f in fields(part)}
            for section in fields(self)
            for part in (getattr(self, section.name),)
        }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _items(table: Any, where: str, known: list[str]) -> list[tuple[str, Any]]:
    if not isinstance(table, Mapping):
        raise UsageError(f"{where} must be a table, not {str(table)[:40]}: write its keys as name = value")
    for key in table:
        if key not in known:
            raise UsageError(f"{where} has no '{str(key)[:40]}': it takes {', '.join(known)}")
    return list(table.items())


def _changed(section: Any, name: str, table: Any) -> Any:
    return replace(section, **dict(_items(table, f"[{name}]", [f.name for f in fields(section)])))


def read(folder: Path) -> Config:
    """The configuration in a data folder, all defaults where there is no file.

    Raises:
        UsageError: it is no TOML, or holds what cannot be meant.
    """
    path = folder / FILE
    try:
        return Config().changed(tomlfile.parse(path))
    except FileNotFoundError:
        return Config()
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
    except (OSError, ValueError) as error:
        raise UsageError(f"{path} cannot be read ({error}): correct it, or delete it for all defaults") from error


def write(folder: Path, config: Config) -> None:
    """Write what differs from the defaults; comments in the older file go with it.

    Raises:
        OutputError: it cannot be written.
    """
    lines, plain, usual = (
        ["# edgelearnd; every key and its meaning: edgelearnd --help"],
        config.to_table(),
        Config().to_table(),
    )
    for section, table in plain.items():
        changed = {key: value for key, value in table.items() if value != usual[section][key]}
        lines += (
            [f"\n[{section}]", *(f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in changed.items())]
            if changed
            else []
        )
    with replacing(folder / FILE) as partial:
        write_through(partial, ["\n".join([*lines, ""]).encode()])


def explained() -> str:
    """Every key with its default, for --help."""
    lines = []
    for section in fields(Config):
        part = getattr(Config(), section.name)
        about = " ".join((type(part).__doc__ or "").split()).replace("`[", "[").replace("]`", "]").replace("`", "'")
        lines += textwrap.wrap(about, 110, initial_indent="  ", subsequent_indent="  ")
        lines += [f"    {f.name} = {json.dumps(_plain(f.default))}" for f in fields(part)]
    return "\n".join(lines)
