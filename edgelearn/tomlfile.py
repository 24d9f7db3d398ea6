# SPDX-License-Identifier: Apache-2.0
"""TOML files, by the standard library where it reads them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from edgelearn.errors import ModelError


def parse(path: Path) -> dict[str, Any]:
    """The tables of a file.

    Raises:
        OSError: it cannot be read.
        ValueError: it is no TOML, no UTF-8, or nested beyond reason.
    """
    if sys.version_info >= (3, 11):
        import tomllib
    else:
        import tomli as tomllib
    try:
        content: dict[str, Any] = tomllib.loads(path.read_text("utf-8"))
    except RecursionError as error:
        raise ValueError("nested too deep") from error
    return content


def described(path: Path) -> dict[str, Any]:
    """The tables of a file that describes a model or a board.

    Raises:
        ModelError: it cannot be read, or is no TOML.
    """
    try:
        return parse(path)
    except OSError as error:
        raise ModelError(f"cannot read {path} ({error.strerror}): check the path") from error
    except ValueError as error:
        raise ModelError(f"{path} is not TOML ({error}): correct it") from error
