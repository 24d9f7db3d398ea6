# SPDX-License-Identifier: Apache-2.0
"""Data sets of texts as tokens: an .npz with the bytes of each text, built once from the one with the texts."""

from __future__ import annotations

from pathlib import Path

import numpy as np

LENGTH = 64
"""Bytes of a text, as models/text-tiny.toml declares them."""


def as_bytes(path: Path, into: Path) -> Path:
    """The file with x_train and x_test of `path` as bytes, written where it is not there yet."""
    import edgelearn as el

    if not into.is_file():
        into.parent.mkdir(parents=True, exist_ok=True)
        with np.load(path, allow_pickle=False) as file:
            tokens = {name: el.byte_tokens(file[name].tolist(), LENGTH) for name in ("x_train", "x_test")}
            np.savez(into, **tokens, y_train=file["y_train"], y_test=file["y_test"])
    return into
