# SPDX-License-Identifier: Apache-2.0
"""What the tests of int8 share: nets, their quantized programs, the simulation of those in numpy, files."""

from __future__ import annotations

from exporting import EXPORTED, write
from nets import UNITS

from edgelearn.export import Calibration, Precision, onnx, tflite
from edgelearn.export.affine import absorb_scaling
from edgelearn.export.lower import lower
from edgelearn.export.passes import fold_batchnorm
from edgelearn.export.quantize import simulate

FORMATS = {".onnx": onnx, ".tflite": tflite}
CALIBRATED = {**EXPORTED, **{name: net for name, net in UNITS.items() if name != "tokens"}}
"""Samples here are no whole numbers, as tokens are."""

STEPS = 4
"""Of an output's int8 scale that a runtime may be away from the simulation: kernels round halves their own way."""


def prepared(module, net, flat):
    return module.prepare(absorb_scaling(fold_batchnorm(lower(net, flat))))


def simulated(quantized, x):
    """The whole net by the numbers of its report."""
    y = quantized.values[0].real(quantized.values[0].quantized(x))
    kept = []
    for index in range(len(quantized.program.steps)):
        y = simulate(quantized, index, y, kept)
    return y


def int8(samples, method="minmax", io="int8"):
    return Precision("int8", Calibration(samples, method), io)


def write_int8(path, net, flat, samples, io="int8", **changes):
    return write(path, net, flat, precision=int8(samples, io=io), samples=samples, **changes)
