# SPDX-License-Identifier: Apache-2.0
"""`edgelearn export FILE -o X.onnx`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgelearn.cli import options

EXAMPLE = """edgelearn export out/model.safetensors -o model.tflite
  edgelearn export out/model.safetensors -o model.tflite --dtype int8 --calibration fashion_mnist.npz
  edgelearn export out/model.safetensors -o model.h"""

_COMPARED = 1000
"""Held-out samples that a file is compared on."""


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = options.command(
        commands, "export", "write a model for onnxruntime, LiteRT or C and check its answers", EXAMPLE
    )
    parser.add_argument("file", metavar="FILE", help="a trained .safetensors")
    parser.add_argument(
        "-o", "--output", required=True, metavar="X.onnx|X.tflite|X.h", help="the suffix is the format; .h: C arrays"
    )
    parser.add_argument(
        "--dtype",
        choices=("float32", "float16", "int8"),
        default="float32",
        help="of weights (default float32); int8 also computes in it",
    )
    parser.add_argument(
        "--calibration",
        metavar="DATA",
        help="int8 takes its ranges from its training samples, and any file is compared on up to 1,000 of its test "
        "samples; default for both: the few samples in the model file",
    )
    parser.add_argument(
        "--method",
        choices=("minmax", "percentile", "entropy"),
        default="minmax",
        help="int8: ranges hold all calibration values (minmax, default), all but one in 10,000 (percentile), or lose "
        "the least information (entropy)",
    )
    parser.add_argument(
        "--io", choices=("int8", "float32"), default="int8", help="int8: what the file takes and gives (default int8)"
    )
    parser.add_argument(
        "--max-disagreement",
        type=float,
        metavar="SHARE",
        help="refuse the file when more samples get another label than from the core (default 0; float16 0.01; int8 "
        "0.05)",
    )
    parser.add_argument("--width", metavar="W", help="of a submodel: one number, or one per hidden block, as 0.5,0.25")
    options.add_data(parser)
    parser.add_argument("--unverified", action="store_true", help="write without running; the file says so")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Lower, write, run, compare, rename."""
    from edgelearn import loading

    net = options.cut(loading.load(arguments.file), arguments.width)
    report = net.export(
        arguments.output,
        dtype=arguments.dtype,
        io=arguments.io,
        method=arguments.method,
        max_disagreement=arguments.max_disagreement,
        verify=not arguments.unverified,
        **_samples(arguments, net),
    )
    size = Path(arguments.output).stat().st_size
    result = {"file": arguments.output, "bytes": size, "dtype": arguments.dtype, "verified": report is not None}
    said = f"wrote {arguments.output}, {size:,} bytes"
    if report is None:
        options.say(arguments, f"{said}; not run in any runtime, and the file says so", result)
    else:
        options.say(arguments, f"{report}\n{said}", result | report.summary())
    return 0


def _samples(arguments: argparse.Namespace, net: Any) -> dict[str, Any]:
    """To calibrate on and to compare on, with labels; nothing where no data is given. Copies of the few that count, so
    that the others leave memory before a runtime comes."""
    from edgelearn.net import exporting

    if arguments.calibration is None:
        return {}
    is_float = arguments.dtype == "float32"
    dataset = options.load_data(arguments, arguments.calibration, net.input, held_out=is_float)
    calibration = {} if is_float else {"calibration": exporting.spread(dataset.x_train).copy()}
    labels = _labels(dataset, net)
    return {
        "samples": dataset.x_test[:_COMPARED].copy(),
        "labels": None if labels is None else labels[:_COMPARED],
        **calibration,
    }


def _labels(dataset: Any, net: Any) -> Any:
    """Of the test samples, where the data has the classes of the net: names where both have them."""
    y, names = dataset.y_test, dataset.classes
    if dataset.task != "classification" or net.loss != "cross_entropy":
        return None
    if names and net.classes:
        import numpy as np

        return np.array(names)[y] if set(names) <= set(net.classes) else None
    return y if y.max() < net.graph.outputs else None
