# SPDX-License-Identifier: Apache-2.0
"""TFLite's own metadata, and weights as float16."""

from __future__ import annotations

import zipfile

import numpy as np
import pytest
from exporting import EXPORTED, evaluate, samples_of, small, write

import edgelearn as el
from edgelearn.errors import ModelError, UsageError
from edgelearn.export import Precision, runtimes, tflite_metadata, tflite_schema
from edgelearn.export.tflite_schema import _follow, _place, _tables, read_constants
from edgelearn.layers import BatchNormalization, Conv2D, Dense

HALF = Precision("float16")


def about(path):
    """The bytes of the metadata table of a file."""
    data = path.read_bytes()
    start = data.index(tflite_schema.METADATA_IDENTIFIER) - 4
    return data[start:]


def text(table, at, name, key):
    return tflite_schema._bytes(table, _place(table, at, name, key)).decode()


def test_a_phone_finds_the_labels_and_needs_no_normalisation(tmp_path):
    net, flat = small(layers=[Conv2D(4, 2), Dense(3)], input_shape=(5, 4, 3))
    write(tmp_path / "net.tflite", net, flat, classes=["dog", "cat", "ä bird"])
    with zipfile.ZipFile(tmp_path / "net.tflite") as archive:
        assert archive.namelist() == [tflite_metadata.LABELS]
        assert archive.read(tflite_metadata.LABELS).decode().split("\n") == ["dog", "cat", "ä bird"]
    table = about(tmp_path / "net.tflite")
    (part,) = _tables(table, _follow(table, 0), "ModelMetadata", "subgraphs")
    (source,) = _tables(table, part, "SubGraphMetadata", "inputs")
    (output,) = _tables(table, part, "SubGraphMetadata", "outputs")
    assert (text(table, source, "TensorMetadata", "name"), text(table, output, "TensorMetadata", "name")) == (
        "input",
        "output",
    )
    (labels,) = _tables(table, output, "TensorMetadata", "associated_files")
    assert text(table, labels, "AssociatedFile", "name") == tflite_metadata.LABELS
    (unit,) = _tables(table, source, "TensorMetadata", "process_units")
    options = _follow(table, _place(table, unit, "ProcessUnit", "options"))
    for key, value in (("mean", 0), ("std", 1)):
        numbers = tflite_schema._bytes(table, _place(table, options, "NormalizationOptions", key), 4)
        assert np.frombuffer(numbers, "<f4").tolist() == [value]
    content = _follow(table, _place(table, source, "TensorMetadata", "content"))
    image = _follow(table, _place(table, content, "Content", "properties"))
    assert table[_place(table, image, "ImageProperties", "color_space")] == 1  # RGB


def test_a_file_without_names_has_no_labels_but_still_describes_itself(tmp_path):
    net, flat = small()
    write(tmp_path / "net.tflite", net, flat)
    assert not zipfile.is_zipfile(tmp_path / "net.tflite")
    table = about(tmp_path / "net.tflite")
    assert text(table, _follow(table, 0), "ModelMetadata", "min_parser_version") == "1.0.0"
    assert runtimes.load(tmp_path / "net.tflite").metadata == {}


@pytest.mark.parametrize("name", EXPORTED)
def test_float16_weights_give_almost_the_same_answers(tmp_path, name):
    layers, shape = EXPORTED[name]
    net, flat = small(layers=layers, input_shape=shape, rescale=1)
    x = samples_of(net, 40)
    report = write(tmp_path / "net.tflite", net, flat, samples=x, precision=HALF)
    assert report.dtype == "float16"
    for count in (1, 7, 1):
        answers = runtimes.load(tmp_path / "net.tflite").run(x[:count])
        np.testing.assert_allclose(answers, evaluate(net, flat, x[:count]), atol=5e-3)


def test_a_float16_file_is_half_as_large_and_holds_no_float32_weights(tmp_path):
    net, flat = small(layers=[Dense(128), Dense(128), Dense(3)], input_shape=(64,))
    for name, precision in (("float", None), ("half", HALF)):
        write(tmp_path / f"{name}.tflite", net, flat, precision=precision)
    sizes = [(tmp_path / f"{name}.tflite").stat().st_size for name in ("float", "half")]
    assert sizes[1] <= 0.55 * sizes[0]
    held = read_constants((tmp_path / "half.tflite").read_bytes()).values()
    assert {a.dtype.name for a in held if a.ndim == 2} == {"float16"}
    assert {a.dtype.name for a in held if a.ndim == 1} <= {"float32", "int32"}


def test_a_float16_file_is_read_back_as_exactly_as_it_holds_the_weights(tmp_path):
    net = el.Net([Conv2D(4, 2), BatchNormalization(), Dense(3)], seed=3, input=el.Input(shape=(4, 4, 1), scale=1.0))
    x = np.random.default_rng(0).normal(0, 1, (9, 4, 4, 1)).astype(np.float32)
    net.export(tmp_path / "net.tflite", dtype="float16", samples=x)
    back = el.load(tmp_path / "net.tflite")
    np.testing.assert_allclose(back.flat, net.flat, rtol=2e-3, atol=1e-6)


def test_float16_is_refused_where_it_cannot_be(tmp_path):
    net, flat = small()
    for suffix in (".onnx", ".h"):
        with pytest.raises(UsageError, match="not float16: choose another"):
            write(tmp_path / f"net{suffix}", net, flat, precision=HALF)
    flat[0] = 1e6
    with pytest.raises(ModelError, match="beyond the range of float16: export it as float32"):
        write(tmp_path / "net.tflite", net, flat, precision=HALF)
    assert not list(tmp_path.iterdir())
