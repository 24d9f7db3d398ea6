# SPDX-License-Identifier: Apache-2.0
"""TFLite's own metadata (metadata_schema.fbs 1.0), by which phones show class names: a table inside the file, and the
labels as a file in an archive behind it."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Mapping

import numpy as np

from edgelearn.export.tflite_schema import METADATA_IDENTIFIER, Writer

ENTRY = "TFLITE_METADATA"
LABELS = "labels.txt"

_AXIS_LABELS = 2
_CONTENT = {"FeatureProperties": 1, "ImageProperties": 2}
_COLORS = {3: 1, 1: 2}
_NORMALIZATION = 1

_START_OF_TIME = (1980, 1, 1, 0, 0, 0)
"""Of files in the archive: equal nets give equal bytes."""


def table(shape: tuple[int, ...], metadata: Mapping[str, str], description: str) -> bytes:
    """What goes into samples of this shape, and what comes out. Scaling is inside the net, so that normalisation by
    the caller is none: mean 0, std 1."""
    write = Writer()
    part = write.table(
        "SubGraphMetadata",
        inputs=write.vector([_input(write, shape)]),
        outputs=write.vector([_output(write, "classes" in metadata)]),
    )
    texts = {"name": "edgelearn", "description": description, "min_parser_version": "1.0.0"}
    children = {key: write.text(value) for key, value in texts.items()}
    return write.finish(write.table("ModelMetadata", subgraphs=write.vector([part]), **children), METADATA_IDENTIFIER)


def _input(write: Writer, shape: tuple[int, ...]) -> int:
    colors = _COLORS.get(shape[-1], 0) if len(shape) == 3 else 0
    kind = "ImageProperties" if colors else "FeatureProperties"
    properties = write.table(kind, color_space=colors) if colors else write.table(kind)
    ends = {"mean": write.numbers(np.zeros(1, np.float32)), "std": write.numbers(np.ones(1, np.float32))}
    unit = write.table("ProcessUnit", options_type=_NORMALIZATION, options=write.table("NormalizationOptions", **ends))
    return write.table(
        "TensorMetadata",
        name=write.text("input"),
        content=write.table("Content", properties_type=_CONTENT[kind], properties=properties),
        process_units=write.vector([unit]),
    )


def _output(write: Writer, is_labelled: bool) -> int:
    properties = write.table("FeatureProperties")
    children = {
        "name": write.text("output"),
        "content": write.table("Content", properties_type=_CONTENT["FeatureProperties"], properties=properties),
    }
    if is_labelled:
        labels = write.table("AssociatedFile", name=write.text(LABELS), type=_AXIS_LABELS)
        children["associated_files"] = write.vector([labels])
    return write.table("TensorMetadata", **children)


def with_labels(file: bytes, metadata: Mapping[str, str]) -> bytes:
    """The file with its labels in an archive behind it, one a line, where it has any."""
    if "classes" not in metadata:
        return file
    whole = io.BytesIO(file)
    with zipfile.ZipFile(whole, "a") as archive:
        archive.writestr(zipfile.ZipInfo(LABELS, _START_OF_TIME), "\n".join(json.loads(metadata["classes"])))
    return whole.getvalue()
