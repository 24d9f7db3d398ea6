# SPDX-License-Identifier: Apache-2.0
"""Model files: what is written is read back, as the safetensors specification has it, or not written."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from modelfile_cases import FULL, classifier, forward, model_of, parts

from edgelearn import modelfile, records
from edgelearn.errors import ModelError, OutputError
from edgelearn.layers import Dense

GOLDEN = Path(__file__).parent / "golden" / "v1"


def assert_same(expected, actual):
    np.testing.assert_array_equal(actual.params, expected.params)
    np.testing.assert_array_equal(actual.graph.records, expected.graph.records)
    assert replace(actual.graph, records=None) == replace(expected.graph, records=None)
    for name in ("layers", "input", "train", "classes", "loss", "provenance", "state"):
        assert getattr(actual, name) == getattr(expected, name)


@pytest.mark.parametrize(
    "model",
    [
        classifier(),
        classifier(**FULL),
        classifier(state=b""),
        model_of([Dense(2, "tanh", use_bias=False), Dense(1)], softmax=False, loss="huber"),
        model_of([Dense(3, "softmax")], rescale=1),
        model_of([Dense(3, name="naïve")], classes=["a", "b", "c"]),
    ],
)
def test_what_is_written_is_read_back(tmp_path, model):
    modelfile.write(tmp_path / "m.safetensors", model)
    assert_same(model, modelfile.read(tmp_path / "m.safetensors"))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 9), min_size=1, max_size=4),
    rescale=st.sampled_from([0, 1, 6]),
    names=st.text(max_size=20),
    state=st.none() | st.binary(max_size=99),
)
def test_any_net_of_dense_layers_is_read_back(tmp_path, sizes, rescale, names, state):
    model = model_of(
        [Dense(n) for n in sizes],
        6,
        rescale,
        classes=[names] * sizes[-1],
        provenance={names: names},
        state=state,
    )
    modelfile.write(tmp_path / "m.safetensors", model)
    assert_same(model, modelfile.read(tmp_path / "m.safetensors"))


def test_the_weights_read_are_a_writable_copy(tmp_path):
    path = tmp_path / "m.safetensors"
    modelfile.write(path, classifier())
    modelfile.read(path).params[:] = 1
    assert_same(classifier(), modelfile.read(path))


def test_the_header_follows_the_safetensors_specification(tmp_path):
    path = tmp_path / "m.safetensors"
    modelfile.write(path, classifier(**FULL))
    content = path.read_bytes()
    header, data = parts(content)
    assert content[8:9] == b"{"
    assert (len(content) - len(data)) % 64 == 0
    assert {type(v) for v in header.pop("__metadata__").values()} == {str}
    end = 0
    for tensor in header.values():
        assert set(tensor) == {"dtype", "shape", "data_offsets"}
        size = int(np.prod(tensor["shape"])) * {"U8": 1, "F32": 4}[tensor["dtype"]]
        assert tensor["data_offsets"] == [end, end + size]
        end += size
    assert end == len(data)


def test_records_and_weights_are_found_without_reading_json(tmp_path):
    path, model = tmp_path / "m.safetensors", classifier(**FULL)
    modelfile.write(path, model)
    data = parts(path.read_bytes())[1]
    words = np.frombuffer(data, "<u4", 16)
    count = len(model.graph.records)
    assert data[:4] == b"ELNR"
    assert words.tolist() == [0x524E4C45, 1, count, model.graph.size, *[0] * 12]
    np.testing.assert_array_equal(np.frombuffer(data, records.RECORD, count, 64), model.graph.records)
    flat = np.frombuffer(data, "<f4", model.graph.size, 64 * (count + 1))
    np.testing.assert_array_equal(flat, model.params)


def test_the_digest_is_that_of_the_file_with_zeros_in_its_place(tmp_path):
    path = tmp_path / "m.safetensors"
    modelfile.write(path, classifier(**FULL))
    content = path.read_bytes()
    digest = parts(content)[0]["__metadata__"]["sha256"].encode()
    assert hashlib.sha256(content.replace(digest, b"0" * 64)).hexdigest().encode() == digest


def test_the_official_reader_agrees(tmp_path):
    safetensors = pytest.importorskip("safetensors.numpy")
    path, model = tmp_path / "m.safetensors", classifier(**FULL)
    modelfile.write(path, model)
    tensors = safetensors.load_file(path)
    for parameter in model.graph.parameters:
        np.testing.assert_array_equal(tensors[parameter.name], parameter.view(model.params))


@pytest.mark.parametrize("name", ["missing.safetensors", ".", "nul\0"])
def test_a_path_that_cannot_be_read_is_refused(tmp_path, name):
    with pytest.raises(ModelError, match="cannot read"):
        modelfile.read(tmp_path / name)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"params": np.zeros(3, np.float32)}, "as many finite floats"),
        ({"params": np.full(classifier().graph.size, np.nan, np.float32)}, "as many finite floats"),
        ({"layers": [{"type": "Dense", "units": 2}]}, "do not give the records"),
        ({"layers": [{"type": "Conv9"}]}, "unknown layer"),
        ({"classes": ["a"]}, "1 classes do not fit 2 outputs"),
        ({"classes": [1, 2]}, "list of names"),
        ({"classes": "ab"}, "list of names"),
        ({"loss": "l3"}, "unknown loss"),
        ({"input": [1]}, "must be tables"),
        ({"provenance": {"accuracy": np.float32(1)}}, "not JSON"),
        ({"train": {"lr": float("nan")}}, "not JSON"),
    ],
)
def test_a_model_whose_parts_do_not_fit_is_not_written(tmp_path, changes, words):
    with pytest.raises(ModelError, match=words):
        modelfile.write(tmp_path / "m.safetensors", replace(classifier(), **changes))
    assert list(tmp_path.iterdir()) == []


def test_a_given_name_is_never_given_again(tmp_path):
    model = model_of([Dense(2, name="dense_1"), Dense(2), Dense(2)])
    modelfile.write(tmp_path / "m.safetensors", model)
    names = [p.name for p in modelfile.read(tmp_path / "m.safetensors").graph.parameters]
    assert len(set(names)) == len(names)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    modelfile.write(path, classifier())
    before = path.read_bytes()

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OutputError, match="No space left on device"):
        modelfile.write(path, classifier(**FULL))
    assert (path.read_bytes(), list(tmp_path.iterdir())) == (before, [path])


def test_an_interrupted_write_leaves_nothing(tmp_path, monkeypatch):
    def interrupt(source, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        modelfile.write(tmp_path / "m.safetensors", classifier())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["no/folder/m.safetensors", "file/m.safetensors", "folder", "nul\0", "n" * 300])
def test_a_path_that_cannot_be_written_is_an_output_error(tmp_path, name):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match="choose a writable folder"):
        modelfile.write(tmp_path / name, classifier())
    assert sorted(tmp_path.iterdir()) == before


def test_a_file_keeps_the_permissions_of_an_ordinary_one(tmp_path):
    """A daemon under another user reads what a person trained."""
    modelfile.write(tmp_path / "m.safetensors", classifier())
    (tmp_path / "plain").write_bytes(b"")
    assert (tmp_path / "m.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


@pytest.mark.parametrize("name", ["classifier", "regressor"])
def test_golden_files_of_format_1_are_read_with_their_weights_and_answers(name):
    model = modelfile.read(GOLDEN / f"{name}.safetensors")
    with np.load(GOLDEN / f"{name}.npz") as golden:
        np.testing.assert_array_equal(model.params, golden["params"])
        np.testing.assert_allclose(forward(model.graph, model.params, golden["x"]), golden["y"], rtol=1e-12)
