# SPDX-License-Identifier: Apache-2.0
"""What is said of an int8 file: the layer that it costs most, accuracies, and why it is refused."""

from __future__ import annotations

import numpy as np
import pytest
from exporting import core, samples_of, small, write
from quantizing import FORMATS, int8, prepared

from edgelearn import export
from edgelearn.errors import DataError, UsageError, VerificationError
from edgelearn.export import Calibration, Precision, onnx, runtimes
from edgelearn.export.layer_errors import layer_errors, worst
from edgelearn.export.quantize import quantize
from edgelearn.layers import (
    Dense,
)


def test_the_report_names_the_layer_that_int8_costs_most():
    """A weight that is never used, and so large that the others of its unit are nothing beside it."""
    layers = [Dense(8, "relu", name="first"), Dense(8, "relu", name="wide"), Dense(3, name="last")]
    net, flat = small(layers=layers, softmax=False)
    views = {p.name: p.view(flat) for p in net.parameters}
    views["first.bias"][0], views["wide.weight"][0] = -100, 1000
    calibration = Calibration(samples_of(net, 30))
    errors = layer_errors(quantize(prepared(onnx, net, flat), calibration), calibration)
    assert [e.layer for e in errors] == ["input", "first", "wide", "last"]
    assert worst(errors) == errors[2]
    assert errors[2].own > 0.3
    assert all(e.own < 0.05 for e in errors if e.layer != "wide")
    assert errors[3].total > 0.3


BAD = {
    "none": (np.zeros((0, 4), np.float32), "there are none: pass some of the training samples"),
    "constant": (np.full((5, 4), 3.0, np.float32), "all calibration values are 3, so that no range follows"),
    "not a number": (np.full((5, 4), np.nan, np.float32), "NaN or infinity"),
}


@pytest.mark.parametrize("name", BAD)
def test_samples_without_a_range_are_refused(name):
    samples, says = BAD[name]
    with pytest.raises(DataError, match=says):
        Calibration(samples)


def test_samples_of_another_shape_and_unknown_words_are_refused(tmp_path):
    net, flat = small()
    with pytest.raises(DataError, match=r"calibration samples of shape \(5,\) do not fit the net's input \(4,\)"):
        write(tmp_path / "net.onnx", net, flat, precision=int8(np.eye(5, dtype=np.float32)))
    with pytest.raises(UsageError, match="unknown calibration method 'mean': choose one of minmax"):
        Calibration(samples_of(net), "mean")
    with pytest.raises(UsageError, match="unknown dtype 'int4': choose"):
        Precision("int4")
    with pytest.raises(UsageError, match="unknown io 'uint8': choose int8 or float32"):
        Precision("int8", Calibration(samples_of(net)), "uint8")
    with pytest.raises(DataError, match="int8 needs samples to calibrate on"):
        Precision("int8")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", FORMATS)
def test_a_file_that_gives_too_many_other_labels_is_refused(tmp_path, suffix):
    net, flat = small(layers=[Dense(8, "relu"), Dense(3)])
    x = samples_of(net, 100)
    narrow = int8(0.05 * x)  # ranges that real samples leave far behind
    wanted = {"precision": narrow, "samples": x}
    with pytest.raises(VerificationError, match=r"of 100 samples another label than the core \(5 allowed\)"):
        write(tmp_path / f"net{suffix}", net, flat, **wanted)
    assert not list(tmp_path.iterdir())
    assert write(tmp_path / f"net{suffix}", net, flat, **wanted, max_disagreement=1.0).label_agreement < 0.95


def test_a_regression_file_that_is_far_away_is_refused(tmp_path):
    net, flat = small(layers=[Dense(8, "relu"), Dense(2)], softmax=False)
    x = samples_of(net, 50)
    assert write(tmp_path / "net.onnx", net, flat, precision=int8(x), samples=x).label_agreement is None
    with pytest.raises(VerificationError, match=r"of the spread of its outputs \(10% is allowed\)"):
        write(tmp_path / "far.onnx", net, flat, precision=int8(0.05 * x), samples=x)


def test_accuracies_of_core_and_file_stand_in_the_report(tmp_path):
    net, flat = small(layers=[Dense(3)])
    x = samples_of(net, 60)
    labels = core(net, flat, x).argmax(axis=1)
    labels[:6] = (labels[:6] + 1) % 3
    report = write(tmp_path / "net.tflite", net, flat, precision=int8(x), samples=x, labels=labels)
    assert report.accuracy == 0.9
    assert report.rows[0].accuracy == pytest.approx(0.9, abs=0.05)
    assert {"runtime", "samples", "max_abs_diff", "label_agreement", "accuracy", "worst_layer"} <= set(report.summary())
    lines = str(report).splitlines()
    assert "90.00%" in lines[1]
    assert lines[2].startswith("LiteRT, int8")
    assert lines[3].startswith("worst layer: ")


def test_an_unverified_int8_file_says_so(tmp_path):
    net, flat = small()
    assert write(tmp_path / "net.tflite", net, flat, precision=int8(samples_of(net)), verify=False) is None
    assert runtimes.load(tmp_path / "net.tflite").metadata["unverified"] == "true"
    assert export.DTYPES[0] == "float32"
