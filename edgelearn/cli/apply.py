# SPDX-License-Identifier: Apache-2.0
"""`edgelearn apply BACKBONE ADAPTER -o FILE`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from edgelearn.cli import options

EXAMPLE = "edgelearn apply backbone.onnx user.safetensors -o adapted.onnx"


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = options.command(commands, "apply", "put an adapter and the backbone it was made for together", EXAMPLE)
    parser.add_argument("backbone", metavar="BACKBONE", help="the .safetensors, .onnx or .tflite that was adapted")
    parser.add_argument("adapter", metavar="ADAPTER", help="what 'edgelearn adapt ... -o X.safetensors' wrote")
    parser.add_argument("--taps", metavar="A,B", help="of an .onnx, as they were given to adapt")
    parser.add_argument("--rank", type=int, metavar="R", help="use the first R ranks of a lora, trained with --nested")
    parser.add_argument("--truncate", action="store_true", help="cut to a rank that was not trained alone all the same")
    parser.add_argument("--merged", action="store_true", help="in an .onnx one product per adapter, no branch")
    parser.add_argument(
        "-o", "--output", required=True, metavar="FILE", help=".onnx, .tflite, or .safetensors (a net with new weights)"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Load both, join, write, compare on noise."""
    from edgelearn import backbone
    from edgelearn.adaptation import adapted, exporting, merging
    from edgelearn.cli import adapt

    exporting.check(arguments.output, Path(arguments.backbone).suffix)
    options.writable_folder(str(Path(arguments.output).parent))
    taps = adapt.names_of(arguments.taps) if Path(arguments.backbone).suffix.lower() == ".onnx" else ()
    frozen = backbone.load(arguments.backbone, taps)
    found = adapted.load(arguments.adapter, frozen)
    if arguments.rank is not None:
        found = found.submodel(arguments.rank, truncate=arguments.truncate)
    if Path(arguments.output).suffix == ".safetensors":
        difference = None
        merging.merged(found).save(arguments.output)
    else:
        difference = exporting.export_adapted(found, arguments.output, _noise(frozen.input), arguments.merged)
    size = Path(arguments.output).stat().st_size
    result = {"file": arguments.output, "bytes": size, "max_abs_diff": difference, "way": found.about.get("way")}
    compared = "" if difference is None else f"; its answers within {difference:.1e}"
    options.say(arguments, f"wrote {arguments.output}, {size:,} bytes{compared}", result)
    return 0


def _noise(input: Any) -> Any:
    """Whole numbers (16, *shape) over what samples hold: 0 to 255 for bytes, 0 and 1 where no scale is known."""
    import numpy as np

    most = int(input.scale) if isinstance(input.scale, int | float) and input.scale > 1 else 1
    return np.random.default_rng(0).integers(0, most + 1, (16, *input.shape)).astype(np.float32)
