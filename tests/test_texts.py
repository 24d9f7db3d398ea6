# SPDX-License-Identifier: Apache-2.0
"""Texts as bytes that an Embedding reads."""

from __future__ import annotations

import numpy as np
import pytest

import edgelearn as el


def test_texts_are_cut_or_filled_up_to_one_length():
    tokens = el.byte_tokens(["ab", "abcdef"], 4)
    assert tokens.dtype == np.uint8
    assert tokens.tolist() == [[97, 98, 0, 0], [97, 98, 99, 100]]


def test_letters_beyond_ascii_take_several_bytes_and_half_pairs_are_taken_too():
    assert el.byte_tokens(["\u00e9"], 3).tolist() == [[0xC3, 0xA9, 0]]
    assert el.byte_tokens(["\ud800"], 2).tolist() == [[ord("?"), 0]]


def test_what_numpy_holds_of_texts_is_taken():
    assert el.byte_tokens(np.array(["no", "yes"]), 3).tolist() == [[110, 111, 0], [121, 101, 115]]


@pytest.mark.parametrize(
    ("texts", "length", "said"),
    [
        ([], 4, "a list of texts"),
        ("abc", 4, "a list of texts"),
        (["abc"], 0, "length of at least 1"),
        (["abc", ""], 4, "text 1 is ''"),
        (["abc", 7], 4, "text 1 is 7"),
    ],
)
def test_what_is_no_text_is_refused(texts, length, said):
    with pytest.raises(el.DataError, match=said):
        el.byte_tokens(texts, length)
