# SPDX-License-Identifier: Apache-2.0
"""An adaptation as a file: alone in kilobytes, or inside the model that it was made for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from edgelearn.adaptation.adapted import Adapted
from edgelearn.adaptation.merging import merged as merged_net
from edgelearn.backbone import LOADERS
from edgelearn.backbone.own import OwnBackbone
from edgelearn.errors import UsageError

FORMATS = (".safetensors", ".onnx", ".tflite")


def check(path: str | Path, kind: str) -> None:
    """Whether an adapted backbone of a kind of file, a suffix, can be written under a name.

    Raises:
        UsageError: it cannot.
    """
    suffix, kind = Path(path).suffix, kind.lower()
    if kind not in LOADERS:
        raise UsageError(f"a backbone has trained weights: give a file that ends in {', '.join(LOADERS)}")
    if suffix not in FORMATS:
        raise UsageError(f"'{path}' names no format: end it in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    if suffix != ".safetensors" and kind not in (".safetensors", suffix):
        raise UsageError(f"an adapted {kind} backbone is written as {kind} or .safetensors: change the file's name")


def export_adapted(adapted: Adapted, path: str | Path, samples: ArrayLike, merged: bool = False) -> float | None:
    """Write what was learned, and return the largest difference of the file's answers on `samples` (n, *shape) as the
    data holds them, in its runtime, from those of the adaptation; None where nothing runs.

    `.safetensors`: the adaptation alone. `.onnx`, `.tflite`: the whole model; of a net of ours with the adaptation in
    its weights, of other files as a graft, each adapter a branch or, with `merged`, one product.

    Raises:
        UsageError: a suffix that the backbone cannot be written as.
        ModelError: an adapter that has no place in such a file.
        VerificationError: the runtime gives other answers; nothing was written.
        OutputError: the file cannot be written.
    """
    suffix, own = Path(path).suffix, isinstance(adapted.backbone, OwnBackbone)
    check(path, ".safetensors" if own else Path(adapted.backbone.name).suffix)
    if suffix == ".safetensors":
        adapted.save(path)
        return None
    if own:
        report = merged_net(adapted).export(path, samples=samples)
        return report.max_abs_diff if report else None
    rows = np.asarray(samples)
    if suffix == ".tflite":
        from edgelearn.adaptation import tflite_grafting

        return tflite_grafting.write(path, adapted, rows)
    from edgelearn.adaptation import grafting

    return grafting.write(path, adapted, rows, merged)
