# SPDX-License-Identifier: Apache-2.0
"""An export that fails says why, leaves an older file as it was and nothing else in the folder."""

from __future__ import annotations

import os
import subprocess
import sys
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import pytest
from exporting import evaluate, samples_of, small, write

from edgelearn import export
from edgelearn.errors import DataError, ModelError, OutputError, VerificationError
from edgelearn.export import runtimes
from edgelearn.layers import Dense

SUFFIXES = (".onnx", ".tflite")


@contextmanager
def unchanged(folder):
    """The folder ends with the files and the bytes it began with."""
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    yield
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before


@pytest.fixture(params=SUFFIXES)
def older(request, tmp_path):
    """A file that an earlier export left behind."""
    path = tmp_path / f"net{request.param}"
    path.write_bytes(b"an older export")
    return path


def constant(value):
    """A core that gives every sample the same answer."""
    return lambda x: np.tile(np.asarray(value, np.float64), (len(x), 1))


def test_a_core_with_other_weights_is_refused(older):
    net, flat = small()
    with unchanged(older.parent), pytest.raises(VerificationError, match="away from the core"):
        write(older, net, flat, forward=lambda x: evaluate(net, flat * np.float32(1.01), x))


def test_weights_that_are_not_numbers_are_refused(older):
    net, flat = small()
    flat[:] = np.nan
    with unchanged(older.parent), pytest.raises(VerificationError):
        write(older, net, flat)


def test_another_number_of_outputs_is_refused(older):
    net, flat = small()
    with unchanged(older.parent), pytest.raises(VerificationError, match="shape"):
        write(older, net, flat, forward=constant([0.5, 0.5]))


def test_another_label_is_refused_even_when_all_outputs_are_close(older):
    net, flat = small(layers=[Dense(2)])
    with unchanged(older.parent), pytest.raises(VerificationError, match="another label"):
        write(older, net, 0 * flat, forward=constant([0.5 - 0.8e-4, 0.5 + 0.8e-4]))


def test_a_tie_of_two_labels_is_accepted_and_reported(older):
    net, flat = small(layers=[Dense(2)])
    report = write(older, net, 0 * flat, forward=constant([0.5 - 0.4e-4, 0.5 + 0.4e-4]))
    assert report.label_agreement == 0
    assert report.max_abs_diff == pytest.approx(0.4e-4, rel=1e-3)


@pytest.mark.parametrize(("size", "wrong"), [(1.0, 1.5e-4), (1000.0, 0.15)])
def test_regression_is_held_to_a_share_of_large_outputs(older, size, wrong):
    net, flat = small(layers=[Dense(1)], softmax=False)
    flat = 0 * flat
    flat[-1] = size
    assert write(older, net, flat, forward=constant([size + wrong / 3])).label_agreement is None
    with unchanged(older.parent), pytest.raises(VerificationError, match="allowed"):
        write(older, net, flat, forward=constant([size + wrong]))


def test_no_samples_to_check_on_is_an_error(older):
    net, flat = small()
    with unchanged(older.parent), pytest.raises(DataError, match="at least one"):
        write(older, net, flat, samples=samples_of(net)[:0])


def test_an_interrupt_leaves_nothing(older):
    def interrupted(x):
        raise KeyboardInterrupt

    net, flat = small()
    with unchanged(older.parent), pytest.raises(KeyboardInterrupt):
        write(older, net, flat, forward=interrupted)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_folder_that_does_not_exist_or_is_a_file_is_an_output_error(tmp_path, suffix):
    net, flat = small()
    (tmp_path / "file").write_bytes(b"")
    for folder in ("missing", "file"):
        with unchanged(tmp_path), pytest.raises(OutputError, match="choose a writable folder"):
            write(tmp_path / folder / f"net{suffix}", net, flat)


def test_a_target_that_is_a_folder_is_an_output_error(tmp_path):
    net, flat = small()
    (tmp_path / "net.onnx").mkdir()
    with pytest.raises(OutputError):
        write(tmp_path / "net.onnx", net, flat)
    assert [p.name for p in tmp_path.iterdir()] == ["net.onnx"]


def test_a_folder_without_permission_is_an_output_error(older):
    net, flat = small()
    write(older.with_stem("first"), net, flat)
    root = os.geteuid() == 0
    older.parent.chmod(0o500)
    try:
        if root:  # root may write anywhere: be nobody for a moment
            os.seteuid(65534)
        with pytest.raises(OutputError, match="Permission denied"):
            write(older, net, flat)
    finally:
        if root:
            os.seteuid(0)
        older.parent.chmod(0o700)
    assert older.read_bytes() == b"an older export"


FULL_DISK = """
import resource, sys
sys.path.insert(0, sys.argv[2])
from exporting import small, write
from edgelearn.errors import OutputError
from edgelearn.layers import Dense
net, flat = small(layers=[Dense(64), Dense(64)])
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
try:
    write(sys.argv[1], net, flat)
except OutputError as error:
    print(error)
"""


def test_a_full_disk_is_an_output_error(older):
    command = [sys.executable, "-c", FULL_DISK, str(older), os.path.dirname(__file__)]
    with unchanged(older.parent):
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "(File too large): choose a writable folder" in done.stdout


def test_an_unknown_suffix_names_those_that_exist(tmp_path):
    net, flat = small()
    with unchanged(tmp_path), pytest.raises(ModelError, match=r"end its name in \.onnx, \.tflite or \.h"):
        write(tmp_path / "net.pb", net, flat)


@pytest.mark.parametrize(
    ("suffix", "package", "extra"), [(".onnx", "onnx", "onnx"), (".tflite", "flatbuffers", "tflite")]
)
def test_a_missing_package_names_the_extra_that_brings_it(tmp_path, monkeypatch, suffix, package, extra):
    net, flat = small()
    monkeypatch.setitem(sys.modules, package, None)
    monkeypatch.delitem(sys.modules, f"edgelearn.export.{package}", raising=False)
    with unchanged(tmp_path), pytest.raises(ModelError, match=rf"edgelearn\[{extra}\]"):
        write(tmp_path / f"net{suffix}", net, flat)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_unverified_file_needs_no_runtime_and_says_so(tmp_path, monkeypatch, suffix):
    net, flat = small()
    path = tmp_path / f"net{suffix}"
    with monkeypatch.context() as missing:
        for package in ("onnxruntime", "ai_edge_litert.interpreter", "tflite_runtime.interpreter"):
            missing.setitem(sys.modules, package, None)
        assert write(path, net, flat, verify=False) is None
        with unchanged(tmp_path), pytest.raises(ModelError, match=r"pip install 'edgelearn\["):
            write(path, net, flat)
    assert runtimes.load(path).metadata == {"unverified": "true"}


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("op", 99, r"layer 'dense_1' \(operation 99\) has no export: leave it out"),
        ("input", (-1, -1), "layer 'dense_1' does not read the one before it"),
        ("fan_in_active", 2, "do not join"),
    ],
)
def test_records_that_cannot_be_lowered_are_refused(tmp_path, field, value, says):
    net, flat = small()
    records = net.records.copy()
    records[field][2] = value
    with unchanged(tmp_path), pytest.raises(ModelError, match=says):
        write(tmp_path / "net.onnx", replace(net, records=records), flat)


def test_a_new_format_is_one_entry(tmp_path, monkeypatch):
    net, flat = small()
    monkeypatch.setitem(export.FORMATS, ".again", export.Format("edgelearn.export.onnx", "onnx"))
    write(tmp_path / "net.again", net, flat, verify=False)
    write(tmp_path / "net.onnx", net, flat, verify=False)
    assert (tmp_path / "net.again").read_bytes() == (tmp_path / "net.onnx").read_bytes()
