# SPDX-License-Identifier: Apache-2.0
"""Files in the runtimes that boards already have: tflite-runtime 2.14 beside numpy 1, an onnxruntime of a year ago and
TFLite's own reader of metadata, in an environment of their own; and what LiteRT gives to XNNPACK."""

from __future__ import annotations

import json
import subprocess
import sys
import venv

import numpy as np
import pytest
from exporting import EXPORTED, evaluate, samples_of, small, write
from nets import CLASSES, UNITS

from edgelearn.export import Calibration, Precision
from edgelearn.layers import GRU, LSTM, Dense, LayerNormalization, SimpleRNN

PINS = ("numpy<2", "tflite-runtime==2.14.0", "onnxruntime==1.23.2", "tflite-support==0.4.4")

CALIBRATED_UNITS = {name: net for name, net in UNITS.items() if name != "tokens"}
"""Samples here are no whole numbers, as tokens are."""

RECURRENT = {
    "rnn": ([SimpleRNN(5, "relu", return_sequences=True), SimpleRNN(4), Dense(CLASSES)], (6, 3)),
    "gru": ([GRU(5, return_sequences=True), LayerNormalization(), GRU(4), Dense(CLASSES)], (6, 3)),
    "lstm": ([LSTM(5, return_sequences=True), LSTM(4), Dense(CLASSES)], (6, 3)),
}

RUN = """
import json, pathlib, sys
import numpy as np, onnxruntime
from tflite_runtime.interpreter import Interpreter

def tflite(path, x):
    net = Interpreter(str(path))
    source, output = net.get_input_details()[0], net.get_output_details()[0]
    net.resize_tensor_input(source["index"], x.shape)
    net.allocate_tensors()
    net.set_tensor(source["index"], entered(x, source["dtype"], *source["quantization"]))
    net.invoke()
    return left(net.get_tensor(output["index"]), *output["quantization"])

def onnx(path, x):
    net = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    ends = json.loads(net.get_modelmeta().custom_metadata_map.get("quantization", "{}"))
    scale = [(e["scale"], e["zero_point"]) for e in (ends.get("input"), ends.get("output")) if e] or [(0, 0), (0, 0)]
    kind = np.int8 if "int8" in net.get_inputs()[0].type else np.float32
    return left(net.run(None, {"input": entered(x, kind, *scale[0])})[0], *scale[1])

def entered(x, kind, scale, zero):
    return np.clip(np.rint(x / scale) + zero, -128, 127).astype(np.int8) if kind == np.int8 else x

def left(y, scale, zero):
    return (y.astype(np.float32) - zero) * np.float32(scale) if y.dtype == np.int8 else y

folder = pathlib.Path(sys.argv[1])
samples = np.load(folder / "samples.npz")
answers = {}
for path in sorted(folder.glob("*.tflite")) + sorted(folder.glob("*.onnx")):
    answers[path.name] = {".tflite": tflite, ".onnx": onnx}[path.suffix](path, samples[path.stem.split("-")[0]])
np.savez(folder / "answers.npz", **answers)
"""

READ = """
import json, sys
from tensorflow_lite_support.metadata.python.metadata import MetadataDisplayer

shown = MetadataDisplayer.with_model_file(sys.argv[1])
print(json.dumps([json.loads(shown.get_metadata_json()), shown.get_associated_file_buffer("labels.txt").decode()]))
"""


@pytest.fixture(scope="session")
def older(tmp_path_factory):
    """The interpreter of an environment with PINS."""
    if sys.version_info >= (3, 12):
        pytest.skip("tflite-runtime has wheels up to Python 3.11: run the tests on that")
    folder = tmp_path_factory.mktemp("older") / "env"
    venv.create(folder)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-compile", *PINS]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the older runtimes cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    return python


@pytest.mark.timeout(900)
def test_every_net_in_every_number_type_answers_in_the_older_runtimes(older, tmp_path):
    samples, expected = {}, {}
    for name, (layers, shape) in {**EXPORTED, **CALIBRATED_UNITS, **RECURRENT}.items():
        net, flat = small(layers=layers, input_shape=shape, rescale=1)
        x = samples[name] = samples_of(net, 12)
        int8 = Precision("int8", Calibration(samples_of(net, 40)))
        types = {"float32": None, "float16": Precision("float16"), "int8": int8}
        for dtype, precision in types.items():
            for suffix in (".tflite",) if dtype == "float16" else (".tflite", ".onnx"):
                path = tmp_path / f"{name}-{dtype}{suffix}"
                changes = {"precision": precision, "samples": x, "classes": ["a", "b", "c", "d"]}
                write(path, net, flat, **changes, max_disagreement=0.2)
                expected[path.name] = evaluate(net, flat, x)
    np.savez(tmp_path / "samples.npz", **samples)
    command = [str(older), "-c", RUN, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = np.load(tmp_path / "answers.npz")
    assert set(answers.files) == set(expected)
    for name in answers.files:
        allowed = 1e-4 if "float32" in name else 5e-3 if "float16" in name else 0.05
        np.testing.assert_allclose(answers[name], expected[name], atol=allowed, err_msg=name)


def test_tflites_own_reader_of_metadata_finds_the_labels(older, tmp_path):
    layers, shape = EXPORTED["plain"]
    net, flat = small(layers=layers, input_shape=shape, rescale=1)
    path = tmp_path / "plain.tflite"
    write(path, net, flat, samples=samples_of(net, 12), classes=["a", "b", "c", "d"])
    done = subprocess.run([str(older), "-c", READ, str(path)], capture_output=True, text=True, check=False)
    if "cannot open shared object file" in done.stderr:
        pytest.skip(f"the reader cannot be loaded here: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    table, labels = json.loads(done.stdout.splitlines()[-1])
    assert labels.split("\n") == ["a", "b", "c", "d"]
    (output,) = table["subgraph_metadata"][0]["output_tensor_metadata"]
    assert output["associated_files"] == [{"name": "labels.txt", "type": "TENSOR_AXIS_LABELS"}]


@pytest.mark.parametrize("dtype", ["float32", "float16", "int8"])
@pytest.mark.parametrize("name", ["plain", "strides", "depthwise", "sequence", "picture"])
def test_xnnpack_takes_the_whole_net(tmp_path, name, dtype):
    """In one piece, or in two around an operator that it does not have; of int8 without the softmax."""
    from ai_edge_litert.interpreter import Interpreter

    layers, shape = EXPORTED[name]
    net, flat = small(layers=layers, input_shape=shape)
    precision = Precision(dtype, Calibration(samples_of(net, 30)) if dtype == "int8" else None)
    write(tmp_path / "net.tflite", net, flat, precision=precision, max_disagreement=0.2)
    loaded = Interpreter(str(tmp_path / "net.tflite"))
    loaded.allocate_tensors()
    operators = loaded._get_ops_details()
    delegates = [o for o in operators if o["op_name"] == "DELEGATE"]
    assert loaded.get_input_details()[0]["index"] in delegates[0]["inputs"]
    taken = {index for delegate in delegates for index in delegate["outputs"]}
    (last,) = (o for o in operators if o["op_name"] == "SOFTMAX")
    assert {last["inputs"][0], last["outputs"][0]} & taken
    assert len(delegates) <= 2
