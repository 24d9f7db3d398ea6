# SPDX-License-Identifier: Apache-2.0
"""Damaged and foreign model files: each is refused with a ModelError, none is read as another model."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modelfile_cases import FULL, classifier, parts, sealed

from edgelearn import modelfile
from edgelearn.errors import ModelError


def assert_refused(path, content, words=None):
    path.write_bytes(content)
    with pytest.raises(ModelError, match=words) as caught:
        modelfile.read(path)
    assert path.name in str(caught.value)


def test_every_truncation_is_refused(tmp_path):
    modelfile.write(tmp_path / "m.safetensors", classifier(**FULL))
    content = (tmp_path / "m.safetensors").read_bytes()
    for length in range(len(content)):
        assert_refused(tmp_path / "cut.safetensors", content[:length])


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_every_flipped_bit_is_refused(tmp_path, place, bit):
    modelfile.write(tmp_path / "m.safetensors", classifier(**FULL))
    content = bytearray((tmp_path / "m.safetensors").read_bytes())
    content[int(place * len(content))] ^= 1 << bit
    assert_refused(tmp_path / "flipped.safetensors", bytes(content))


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=300), json_first=st.booleans())
def test_arbitrary_bytes_are_refused(tmp_path, content, json_first):
    header = b'{"__metadata__":{"format":"edgelearn"}}' if json_first else b""
    prefix = len(header).to_bytes(8, "little") + header if json_first else b""
    assert_refused(tmp_path / "noise.safetensors", prefix + content)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
KEYS = ["graph", "layers", "input", "train", "classes", "loss", "provenance"]


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(key=st.sampled_from(["input_shape", "rescale", "softmax", "layer", "other", *KEYS]), value=JSON)
def test_a_header_with_a_right_digest_gives_a_model_or_is_refused(tmp_path, key, value):
    modelfile.write(tmp_path / "m.safetensors", classifier(**FULL))
    header, data = parts((tmp_path / "m.safetensors").read_bytes())
    about = json.loads(header["__metadata__"]["edgelearn"])
    place = about["graph"] if key in about["graph"] else about["layers"] if key == "layer" else about
    place[0 if key == "layer" else key] = value
    header["__metadata__"]["edgelearn"] = json.dumps(about)
    (tmp_path / "odd.safetensors").write_bytes(sealed(header, data))
    try:
        model = modelfile.read(tmp_path / "odd.safetensors")
    except ModelError:
        return
    np.testing.assert_array_equal(model.params, classifier().params)
    np.testing.assert_array_equal(model.graph.records, classifier().graph.records)


def no_records(header, data):
    header.pop("records")
    return header, data


def renamed(header, data):
    header["other.weight"] = header.pop("first.weight")
    return header, data


def of_others(header, data):
    header["__metadata__"]["format"] = "pt"
    return header, data


def newer(header, data):
    return header, data[:4] + (2).to_bytes(4, "little") + data[8:]


def other_record(header, data):
    return header, data[:68] + b"\x01" + data[69:]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (no_records, "do not match"),
        (renamed, "do not match"),
        (other_record, "do not match"),
        (of_others, "not written by edgelearn"),
        (newer, "format 2 is newer .* update edgelearn"),
    ],
)
def test_a_whole_file_that_is_not_ours_is_refused_with_its_reason(tmp_path, change, words):
    modelfile.write(tmp_path / "m.safetensors", classifier())
    assert_refused(
        tmp_path / "odd.safetensors",
        sealed(*change(*parts((tmp_path / "m.safetensors").read_bytes()))),
        words,
    )
