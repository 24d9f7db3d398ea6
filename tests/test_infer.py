# SPDX-License-Identifier: Apache-2.0
"""`edgelearn bench infer`: a row for each file in each runtime, the core beside them."""

from __future__ import annotations

import json

import numpy as np
import pytest

import edgelearn as el
from edgelearn.cli import main

QUICK = ["--seconds", "0.03", "--json"]


@pytest.fixture
def net(tmp_path, monkeypatch):
    """A net whose files lie in the working folder."""
    monkeypatch.chdir(tmp_path)
    made = el.Net([el.Dense(16, "relu"), el.Dense(3)], input=el.Input(shape=(8,), scale=1.0))
    made.save("net.safetensors")
    return made


def timed(capsys, *files):
    assert main(["bench", "infer", *files, *QUICK]) == 0
    said = capsys.readouterr().out.splitlines()
    return json.loads(said[-1])["models"], said


def test_files_are_timed_in_their_runtime_and_in_the_core(net, capsys):
    x = np.random.default_rng(0).normal(0, 1, (40, 8)).astype(np.float32)
    net.export("net.onnx", samples=x)
    net.export("int8.tflite", dtype="int8", calibration=x, max_disagreement=1.0)
    net.export("net.h", samples=x)
    rows, said = timed(capsys, "net.safetensors", "net.onnx", "int8.tflite", "net.h")
    assert [(row["file"], row["runtime"]) for row in rows] == [
        ("net.safetensors", "core"),
        ("net.onnx", "onnxruntime"),
        ("net.onnx", "core"),
        ("int8.tflite", "LiteRT"),
        ("net.h", "core"),
    ]
    for row, line in zip(rows, said[1:], strict=False):
        assert 0 < row["ms"] <= row["ms_p99"]
        assert row["memory_bytes"] >= 0
        assert row["file_bytes"] > 100
        assert line.startswith(row["file"])
    assert rows[0]["macs"] == rows[2]["macs"] == 8 * 16 + 16 * 3
    assert rows[1]["memory_bytes"] > 100_000


@pytest.mark.parametrize(
    ("line", "code", "says"),
    [
        (["missing.onnx"], 5, "missing.onnx cannot be read"),
        (["net.safetensors", "--threads", "0"], 2, "at least 1 of --threads"),
        (["net.safetensors", "--seconds", "0"], 2, "positive number of --seconds"),
        (["nowhere"], 5, "nowhere"),
    ],
)
def test_what_cannot_be_timed_is_one_sentence(net, capsys, line, code, says):
    assert main(["bench", "infer", *line]) == code
    (said,) = capsys.readouterr().err.splitlines()
    assert says in said
