# SPDX-License-Identifier: Apache-2.0
"""`edgelearn export FILE -o X.onnx`."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from edgelearn.cli import options

EXAMPLE = "edgelearn export out/model.safetensors -o model.tflite"


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = options.command(
        commands, "export", "write a model for onnxruntime or LiteRT and check its answers", EXAMPLE
    )
    parser.add_argument("file", metavar="FILE", help="a trained .safetensors")
    parser.add_argument("-o", "--output", required=True, metavar="X.onnx|X.tflite", help="the suffix is the format")
    parser.add_argument("--dtype", choices=("float32",), default="float32", help="of weights and activations")
    parser.add_argument("--calibration", metavar="DATA", help="samples to compare on; default: those in the model file")
    options.add_data(parser)
    parser.add_argument("--unverified", action="store_true", help="write without running; the file says so")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Lower, write, run, compare, rename."""
    from edgelearn import loading

    net = loading.load(arguments.file)
    given = arguments.calibration
    samples = options.load_data(arguments, given, net.input, held_out=True).x_test[:1000] if given else None
    report = net.export(arguments.output, samples=samples, verify=not arguments.unverified)
    size = Path(arguments.output).stat().st_size
    result = {"file": arguments.output, "bytes": size, "verified": report is not None}
    if report is not None:
        result |= asdict(report)
    compared = report or "not run in any runtime, and the file says so"
    options.say(arguments, f"wrote {arguments.output}, {size:,} bytes; {compared}", result)
    return 0
