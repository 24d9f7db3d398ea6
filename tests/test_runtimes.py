# SPDX-License-Identifier: Apache-2.0
"""Files in onnxruntime and LiteRT: samples of any kind, damaged files, missing and broken runtimes."""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from exporting import evaluate, samples_of, small, write
from hypothesis import given, settings
from hypothesis import strategies as st

from edgelearn.errors import DataError, ModelError
from edgelearn.export import runtimes
from edgelearn.export.tflite_schema import read_metadata
from edgelearn.inputs.frontend import Input

NAMES = {".onnx": ["onnxruntime"], ".tflite": ["LiteRT", "tflite-runtime"]}
NET, FLAT = small(input_shape=(2, 3), rescale=3)


@pytest.fixture(params=NAMES)
def file(request, tmp_path):
    path = tmp_path / f"net{request.param}"
    write(path, NET, FLAT, classes=["a", "b", "c"])
    return path


def test_a_loaded_file_tells_what_it_is(file):
    runtime = runtimes.load(str(file))
    assert runtime.name in NAMES[file.suffix]
    assert runtime.input_shape == (2, 3)
    assert runtime.metadata == {"classes": '["a", "b", "c"]'}


@pytest.mark.parametrize("suffix", NAMES)
def test_a_file_tells_its_classes_and_how_files_become_its_samples(tmp_path, suffix):
    table = {"shape": [2, 3], "scale": 255.0, "image": {"size": [2, 3], "color": "grayscale", "resize": "pad"}}
    entries = {"input": json.dumps({**table, "shape": [2, 3, 1]})}
    write(tmp_path / f"net{suffix}", NET, FLAT, classes=["a", "b", "c"], metadata=entries)
    runtime = runtimes.load(tmp_path / f"net{suffix}")
    assert runtime.classes == ["a", "b", "c"]
    assert runtime.input == Input(shape=(2, 3, 1), scale=255.0, image=table["image"])


def test_a_file_of_another_tool_tells_neither(file):
    write(file, NET, FLAT)
    assert (runtimes.load(file).input, runtimes.load(file).classes) == (Input(), None)


@pytest.mark.parametrize("entry", ["{", "[1]", '{"shape": 3}', '{"new": 1}'])
def test_a_damaged_entry_is_a_bad_model(file, entry):
    write(file, NET, FLAT, metadata={"input": entry})
    with pytest.raises(ModelError, match=r"\[input\]|entry 'input' is damaged"):
        _ = runtimes.load(file).input


def test_more_samples_than_one_batch_are_all_answered_in_order(file):
    x = samples_of(NET, 2 * runtimes.BATCH + 88)
    answers = runtimes.load(file).run(x)
    assert answers.dtype == np.float32
    np.testing.assert_allclose(answers, evaluate(NET, FLAT, x), atol=1e-5)


def test_samples_may_be_flat_doubles_or_bytes(file):
    runtime = runtimes.load(file)
    x = np.arange(24, dtype=np.uint8).reshape(4, 2, 3)
    expected = runtime.run(x.astype(np.float32))
    for same in (x, x.reshape(4, 6), x.astype(np.float64), np.asfortranarray(x), x.tolist()):
        np.testing.assert_array_equal(runtime.run(same), expected)


@pytest.mark.parametrize("shape", [(0, 2, 3), (6,), (4, 5), ()])
def test_samples_of_another_shape_are_bad_data(file, shape):
    with pytest.raises(DataError, match="samples of shape"):
        runtimes.load(file).run(np.zeros(shape))


@pytest.mark.parametrize("keep", [0, 3, 20, 400])
def test_a_truncated_file_is_one_clear_sentence(file, keep):
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match="is damaged or of an unknown version") as caught:
        runtimes.load(file)
    assert "\n" not in str(caught.value)


def test_a_file_of_another_kind_is_damaged(file):
    file.write_bytes(np.random.default_rng(0).bytes(5000))
    with pytest.raises(ModelError, match=f"{file.name} is damaged"):
        runtimes.load(file)


def test_a_damaged_onnx_file_prints_nothing_of_its_own(tmp_path, capfd):
    write(tmp_path / "net.onnx", NET, FLAT)
    (tmp_path / "net.onnx").write_bytes((tmp_path / "net.onnx").read_bytes().replace(b"Gemm", b"\xff\xff\xff\xff"))
    with pytest.raises(ModelError, match="is damaged"):
        runtimes.load(tmp_path / "net.onnx")
    assert capfd.readouterr() == ("", "")


def test_a_missing_file_and_an_unknown_suffix_are_told_apart(tmp_path):
    with pytest.raises(ModelError, match=r"cannot be read \(No such file or directory\)"):
        runtimes.load(tmp_path / "net.onnx")
    with pytest.raises(ModelError, match=r"ends in \.onnx, \.tflite, \.h"):
        runtimes.load(tmp_path / "net.pb")


def test_a_missing_runtime_names_the_extra(file, monkeypatch):
    for package in ("onnxruntime", "ai_edge_litert.interpreter", "tflite_runtime.interpreter"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModelError, match=rf"pip install 'edgelearn\[{file.suffix[1:]}\]'"):
        runtimes.load(file)


def test_a_tflite_runtime_that_dies_when_it_is_used_is_passed_over(tmp_path, monkeypatch):
    def dies(model_content):
        raise SystemError("returned a result with an exception set")

    interpreter = pytest.importorskip("ai_edge_litert.interpreter")
    write(tmp_path / "net.tflite", NET, FLAT)
    monkeypatch.setitem(sys.modules, "ai_edge_litert.interpreter", SimpleNamespace(Interpreter=dies))
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", interpreter)
    assert runtimes.load(tmp_path / "net.tflite").name == "tflite-runtime"
    monkeypatch.setitem(sys.modules, "tflite_runtime.interpreter", None)
    with pytest.raises(ModelError, match="LiteRT: returned a result with an exception set; tflite-runtime: "):
        runtimes.load(tmp_path / "net.tflite")


def foreign(path, kind, shape, inputs=1):
    """An ONNX file of another maker: its output is the sum of its inputs, as float."""
    names = [f"x{i}" for i in range(inputs)]
    casts = [onnx.helper.make_node("Cast", [n], [f"{n}f"], to=onnx.TensorProto.FLOAT) for n in names]
    total = onnx.helper.make_node("Sum", [f"{n}f" for n in names], ["y"])
    ends = [onnx.helper.make_tensor_value_info(n, kind, shape) for n in names]
    output = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, shape)
    body = onnx.helper.make_graph([*casts, total], "g", ends, [output])
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(body, ir_version=8, opset_imports=opset), path)
    return path


def test_an_integer_input_takes_whole_numbers_in_its_range_only(tmp_path):
    runtime = runtimes.load(foreign(tmp_path / "u8.onnx", onnx.TensorProto.UINT8, ["n", 2]))
    np.testing.assert_array_equal(runtime.run(np.array([[0.0, 255.0]])), [[0, 255]])
    for wrong in ([[0.5, 1]], [[-1.0, 0]], [[0, 256]], [[np.nan, 0]]):
        with pytest.raises(DataError, match="uint8"):
            runtimes.load(tmp_path / "u8.onnx").run(np.array(wrong))


def test_open_sides_and_fixed_batches_of_other_makers_run(tmp_path):
    still_open = runtimes.load(foreign(tmp_path / "open.onnx", onnx.TensorProto.FLOAT, ["n", "side", 2]))
    assert still_open.input_shape == (-1, 2)
    x = np.arange(12, dtype=np.float32).reshape(2, 3, 2)
    np.testing.assert_array_equal(still_open.run(x), x)
    single = runtimes.load(foreign(tmp_path / "one.onnx", onnx.TensorProto.FLOAT, [1, 3, 2]))
    np.testing.assert_array_equal(single.run(x), x)
    pair = runtimes.load(foreign(tmp_path / "two.onnx", onnx.TensorProto.FLOAT, [2, 3, 2]))
    with pytest.raises(ModelError, match="onnxruntime cannot run"):
        pair.run(x[:1])


def test_files_with_two_inputs_or_of_strings_or_scalars_are_refused(tmp_path):
    with pytest.raises(ModelError, match="2 inputs"):
        runtimes.load(foreign(tmp_path / "two.onnx", onnx.TensorProto.FLOAT, ["n", 2], inputs=2))
    with pytest.raises(ModelError, match=r"reads tensor\(string\)"):
        runtimes.load(foreign(tmp_path / "text.onnx", onnx.TensorProto.STRING, ["n", 2]))
    with pytest.raises(ModelError, match="batches of numbers"):
        runtimes.load(foreign(tmp_path / "scalar.onnx", onnx.TensorProto.FLOAT, []))


def tflite_bytes(folder):
    write(folder / "net.tflite", NET, FLAT, metadata={"rule": "tp-ce", "blob": "BLOB" * 4})
    return (folder / "net.tflite").read_bytes()


def test_binary_metadata_of_other_tools_is_passed_over(tmp_path):
    data = tflite_bytes(tmp_path)
    assert read_metadata(data.replace(b"BLOB" * 4, b"\xff" * 16)) == {"rule": "tp-ce"}


@pytest.fixture(scope="module")
def valid(tmp_path_factory):
    return tflite_bytes(tmp_path_factory.mktemp("valid"))


@settings(deadline=None)
@given(
    changes=st.lists(st.tuples(st.integers(0, 1999), st.integers(0, 255)), max_size=8),
    keep=st.integers(0, 2000),
)
def test_metadata_of_a_damaged_file_is_read_or_refused_but_never_crashes(valid, changes, keep):
    damaged = bytearray(valid[:keep])
    for place, value in changes:
        if place < len(damaged):
            damaged[place] = value
    with suppress(ValueError):
        assert all(isinstance(text, str) for text in read_metadata(bytes(damaged)).values())
