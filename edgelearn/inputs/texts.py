# SPDX-License-Identifier: Apache-2.0
"""Texts as tokens that an Embedding reads: their bytes, so that there is no vocabulary to build, ship or miss."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import DataError

BYTES = 256
"""Tokens that there are: `input_dim` of an Embedding that reads bytes. 0 stands behind the end of a text."""


def byte_tokens(texts: Iterable[str], length: int) -> NDArray[np.uint8]:
    """The UTF-8 bytes of each text: (texts, length) uint8, cut off after `length` bytes or filled up with zeros.

    Raises:
        DataError: no texts, something else among them, an empty one, or a length below 1.
    """
    rows = list(texts) if not isinstance(texts, str) else []
    if not rows or length < 1:
        raise DataError("byte_tokens needs a list of texts and a length of at least 1: pass both")
    tokens = np.zeros((len(rows), length), np.uint8)
    for place, text in enumerate(rows):
        if not isinstance(text, str) or not text:
            raise DataError(f"text {place} is {text!r}: pass texts of at least one letter, or leave it out")
        encoded = text.encode("utf-8", "replace")[:length]
        tokens[place, : len(encoded)] = np.frombuffer(encoded, np.uint8)
    return tokens
