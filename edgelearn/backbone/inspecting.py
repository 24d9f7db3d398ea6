# SPDX-License-Identifier: Apache-2.0
"""Lists the nodes of a file, by the kind of file that it is."""

from __future__ import annotations

from pathlib import Path

from edgelearn.backbone.listing import Listing
from edgelearn.errors import ModelError, UsageError


def listing(path: str | Path) -> Listing:
    """The nodes of an .onnx or a .tflite file.

    Raises:
        UsageError: a file of another kind.
        ModelError: it cannot be read, be a backbone or be run, or a package is missing.
    """
    suffix, name = Path(path).suffix.lower(), Path(path).name
    if suffix not in (".onnx", ".tflite"):
        raise UsageError(f"doctor lists the nodes of .onnx and .tflite files, not of '{name}': give one, or nothing")
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror}): check the path") from error
    try:
        if suffix == ".tflite":
            from edgelearn.backbone.tflite_listing import of_tflite

            return of_tflite(data, name)
        from edgelearn.backbone.onnx_listing import of_onnx

        return of_onnx(data, name)
    except ImportError as error:
        raise ModelError(f"reading {name} needs a package ({error}): pip install 'edgelearn[{suffix[1:]}]'") from error
