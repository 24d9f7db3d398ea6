# SPDX-License-Identifier: Apache-2.0
"""Finished measurements, a JSON line each in bench/results/: an interrupted command goes on where it was."""

from __future__ import annotations

import ast
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent / "results"


def digest(*parts: str | bytes) -> str:
    """Sixteen hex digits that change when a part changes."""
    whole = hashlib.sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        whole.update(len(data).to_bytes(8, "little") + data)
    return whole.hexdigest()[:16]


def digest_files(paths: Iterable[Path]) -> str:
    """Digest of the names and contents of files."""
    return digest(*(part for path in sorted(paths) for part in (path.name, path.read_bytes())))


def digest_code(paths: Iterable[Path]) -> str:
    """Digest of what files do: of Python neither comments nor docstrings count."""
    contents = ((path.name, path.read_bytes()) for path in sorted(paths))
    return digest(*(part for name, data in contents for part in (name, _bare(data) if name.endswith(".py") else data)))


def _bare(source: bytes) -> str:
    """A module's syntax tree without docstrings."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)) and ast.get_docstring(node) is not None:
            node.body = node.body[1:]
    return ast.dump(tree)


class Ledger:
    """Results by key, a key being everything that the result depends on."""

    def __init__(self, name: str, fresh: bool = False) -> None:
        self.path = FOLDER / f"{name}.jsonl"
        self.known: dict[str, dict[str, Any]] = {}
        if self.path.is_file() and not fresh:
            for line in self.path.read_text().splitlines():
                self._remember(line)

    def _remember(self, line: str) -> None:
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:
            return  # the line that was being written when a run was interrupted
        self.known[_text(entry["key"])] = entry["result"]

    def get(self, key: dict[str, Any]) -> dict[str, Any] | None:
        """The result of that key, if it was ever measured."""
        return self.known.get(_text(key))

    def add(self, key: dict[str, Any], result: dict[str, Any]) -> None:
        """Keep a result, on disk before this returns."""
        self.known[_text(key)] = result
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            file.write(json.dumps({"key": key, "result": result}) + "\n")


def _text(key: dict[str, Any]) -> str:
    return json.dumps(key, sort_keys=True)
