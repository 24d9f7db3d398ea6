# SPDX-License-Identifier: Apache-2.0
"""The nets of models/ on their own data: what is promised of their files. They are trained for seconds, since what
counts here is the distance between core and file, not how good they are; `make soak` takes the large ones."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

import numpy as np
import pytest

import edgelearn as el
from edgelearn.inputs import data

SUFFIXES = (".onnx", ".tflite")


@dataclass(frozen=True)
class Promise:
    """Data of a net, samples and epochs that it is trained with here, the points that int8 may lose, the formats whose
    int8 files are at most 0.30 of the float32 ones (in TFLite those of attention have too many small operators), and
    the share of labels that may change: of 77 classes, after so little training, many lie side by side."""

    data: str
    samples: int = 1500
    epochs: int = 2
    points: float = 1.0
    small: tuple[str, ...] = SUFFIXES
    disagreement: float = 0.05


PROMISES = {
    "mlp": Promise("fashion_mnist.npz"),
    "cnn-small": Promise("fashion_mnist.npz", 1000),
    "har-conv1d": Promise("har_hapt.npz", 4000, 3),
    "kws-conv1d": Promise("fsdd_logmel.npz", 2000, 3),
    "kws-gru": Promise("fsdd_logmel.npz", 2000, 3, 1.5),
    "har-gru": Promise("har_hapt.npz", 2000, 3),
    "text-tiny": Promise("banking77.npz", 3000, 3, 1.0, (".onnx",), 0.1),
    "vit-tiny": Promise("fashion_mnist.npz", 2000, 2, 1.5, (".onnx",)),
}
LARGE = {"vgg8": Promise("cifar10_16k.npz", 1500, 2, 1.5)}
LABELS, POINTS = 1000, 3000
"""Test samples whose every label float32 keeps, and those that the points of int8 are counted on: more, since one in a
hundred lies between two classes, and moves either way."""


def _loaded(path, folder):
    """Samples in an order of chance, texts as bytes."""
    with np.load(path, allow_pickle=False) as arrays:
        if arrays["x_train"].dtype.kind != "U":
            return data.load(path)
        order = np.random.default_rng(0).permutation(len(arrays["x_train"]))
        parts = {"x_train": arrays["x_train"][order], "x_test": arrays["x_test"]}
        tokens = {key: el.byte_tokens(texts, 64) for key, texts in parts.items()}
        np.savez(folder / "tokens.npz", **tokens, y_train=arrays["y_train"][order], y_test=arrays["y_test"])
    return data.load(folder / "tokens.npz")


def hold(name, promise, path, folder):
    """Train, then write both formats in both number types."""
    samples = _loaded(path, folder)
    net = el.load(name)
    net.adopt(samples)
    net.fit(samples.x_train[: promise.samples], samples.y_train[: promise.samples], epochs=promise.epochs, seed=0)
    exactly, roughly = (
        {"samples": samples.x_test[:count], "labels": samples.y_test[:count]} for count in (LABELS, POINTS)
    )
    for suffix in SUFFIXES:
        exact = net.export(folder / f"float{suffix}", **exactly)
        assert exact.samples == min(LABELS, len(samples.x_test))
        assert exact.label_agreement == 1
        assert exact.max_abs_diff <= 1e-4
        roughly["max_disagreement"] = promise.disagreement
        small = net.export(folder / f"int8{suffix}", dtype="int8", calibration=samples.x_train[::20][:200], **roughly)
        assert all(row.accuracy >= small.accuracy - promise.points / 100 for row in small.rows)
        sizes = [(folder / f"{kind}{suffix}").stat().st_size for kind in ("float", "int8")]
        assert suffix not in promise.small or sizes[0] <= 100_000 or sizes[1] <= 0.3 * sizes[0]


@pytest.mark.parametrize("name", PROMISES)
def test_files_of_a_model_keep_what_is_promised(tmp_path, real_data, name):
    hold(name, PROMISES[name], real_data(PROMISES[name].data), tmp_path)


@pytest.mark.soak
@pytest.mark.parametrize("name", LARGE)
def test_files_of_a_large_model_keep_what_is_promised(tmp_path, real_data, name):
    hold(name, LARGE[name], real_data(LARGE[name].data), tmp_path)


@pytest.mark.parametrize("more", [["--dtype", "float32"], ["--dtype", "int8", "--calibration"]], ids=["float", "int8"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_an_export_on_the_command_line_stays_under_150_megabytes(tmp_path, real_data, suffix, more):
    """All of Fashion-MNIST to calibrate on, too."""
    path = real_data("fashion_mnist.npz")
    net = el.load("cnn-small")
    net.adopt(data.load(path))
    net._keep_samples(data.load(path).x_train)
    net.save(tmp_path / "net.safetensors")
    line = ["export", str(tmp_path / "net.safetensors"), "-o", str(tmp_path / f"net{suffix}"), *more]
    line += [str(path)] if more[-1] == "--calibration" else []
    code = (
        f"import sys; from edgelearn.cli import main; code = main({[*line, '--max-disagreement', '1']})\n"
        "peak = open('/proc/self/status').read().split('VmHWM:')[1].split()[0]\n"
        "print(code, peak, *{'torch', 'tensorflow'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    said = done.stdout.splitlines()[-1].split()
    assert said[0] == "0", done.stderr
    assert int(said[1]) < 150 * 1024
    assert len(said) == 2
