# SPDX-License-Identifier: Apache-2.0
"""Linear read-outs of a backbone's taps, fitted on the domain that it comes from and shipped frozen beside it.

They tell an adapter on the device what its features mean to the layers behind it, without those layers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn import tensorfile
from edgelearn.adapters import lowrank
from edgelearn.adapters.local import FloatArray, Labels, Readout, batches, cells, pooled, softmax
from edgelearn.backbone.taps import Backbone
from edgelearn.errors import DataError, ModelError

MOST_SAMPLES = 5000
"""Of the source domain: a linear read-out of a thousand features wants no more."""

EPOCHS, LEAST_STEPS, BATCH, RATE, DECAY = 15, 150, 128, 3e-3, 1e-4

_CHUNK = 64
_ENTRY = "edgelearn_readouts"

Tick = Callable[[str], None]


@dataclass(frozen=True, eq=False)
class Readouts:
    """Read-outs by tap, for one backbone and its classes."""

    digest: str
    classes: int
    at: dict[str, Readout] = field(default_factory=dict)

    def save(self, path: str | Path) -> None:
        """Write them as safetensors.

        Raises:
            OutputError: the file cannot be written.
        """
        arrays: dict[str, FloatArray] = {}
        for tap, readout in self.at.items():
            arrays |= {f"{tap}.weight": readout.weight, f"{tap}.bias": readout.bias}
        about = {"backbone_sha256": self.digest, "classes": self.classes}
        tensorfile.write(path, arrays, {_ENTRY: json.dumps(about)})


def load(path: str | Path, backbone: Backbone) -> Readouts:
    """Read-outs from a file.

    Raises:
        ModelError: no such file, damaged, or the read-outs of another backbone.
    """
    arrays, metadata = tensorfile.read(path)
    if _ENTRY not in metadata:
        raise ModelError(f"{path} holds no read-outs: give data of the source domain, or fit them with --readouts")
    try:
        about = json.loads(metadata[_ENTRY])
        names = {name.rpartition(".")[0] for name in arrays}
        found = {name: Readout(arrays[f"{name}.weight"], arrays[f"{name}.bias"]) for name in names}
        known = Readouts(str(about["backbone_sha256"]), int(about["classes"]), found)
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"the read-outs in {path} are damaged: fit them again") from error
    if known.digest != backbone.digest:
        raise ModelError(f"{path} was fitted on another backbone than {backbone.name}: fit it again on this one")
    cell_counts = {tap.name: len(cells(tap.sides)) * tap.channels for tap in backbone.taps}
    for name, readout in found.items():
        shape = (cell_counts.get(name, len(readout.weight)), known.classes)
        if readout.weight.shape != shape or readout.bias.shape != shape[1:]:
            raise ModelError(f"the read-out of {name} in {path} does not fit its tap: fit them again")
    return known


def fit(
    backbone: Backbone,
    x: NDArray[Any],
    y: Labels,
    classes: int,
    seed: int = 0,
    tick: Tick = lambda line: None,
) -> Readouts:
    """Read-outs of every tap from samples of the source domain as the data holds them, at most MOST_SAMPLES, drawn
    alike by `seed`; features go through in small batches and only their averages are kept.

    Raises:
        DataError: samples that do not fit, or labels that are not one of `classes` each.
    """
    if len(x) != len(y) or not len(y) or np.min(y) < 0 or np.max(y) >= classes:
        raise DataError(f"{len(y)} labels for {len(x)} samples and {classes} classes: give each sample a class index")
    chosen = np.sort(np.random.default_rng(seed).permutation(len(x))[:MOST_SAMPLES])
    averages: list[list[FloatArray]] = [[] for _ in backbone.taps]
    for start in range(0, len(chosen), _CHUNK):
        h: NDArray[Any] = backbone.prepare(x[chosen[start : start + _CHUNK]])
        for index, tap in enumerate(backbone.taps):
            h = backbone.stage(index, h)
            averages[index].append(pooled(h, tap.sides))
    found = {}
    for tap, parts in zip(backbone.taps, averages, strict=True):
        found[tap.name] = linear(np.concatenate(parts), y[chosen], classes, seed)
        right = (found[tap.name].logits(np.concatenate(parts)).argmax(axis=1) == y[chosen]).mean()
        tick(f"read-out of {tap}: {right:.1%} of the source samples right")
    return Readouts(backbone.digest, classes, found)


def linear(averages: FloatArray, y: Labels, classes: int, seed: int = 0) -> Readout:
    """Multinomial logistic regression of averages (n, cells, channels) by Adam, on standardised features; what
    standardises is folded into the weights."""
    rows = averages.reshape(len(averages), -1)
    mean, spread = rows.mean(axis=0), rows.std(axis=0)
    scale = 1 / np.where(spread > 1e-6 * max(float(spread.max()), 1e-12), spread, np.inf)
    rows = ((rows - mean) * scale).astype(np.float32)
    weight, bias = np.zeros((rows.shape[1], classes), np.float32), np.zeros(classes, np.float32)
    states = [lowrank.optimizer("adam").state(array.shape, 1) for array in (weight, bias)]
    steps = max(LEAST_STEPS, EPOCHS * math.ceil(len(rows) / BATCH))
    for step, part in zip(range(steps), batches(len(rows), BATCH, seed), strict=False):
        error = softmax(rows[part] @ weight + bias)
        error[np.arange(len(part)), y[part]] -= 1
        error /= len(part)
        rate = RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        states[0].step(weight, rows[part].T @ error + np.float32(DECAY) * weight, rate)
        states[1].step(bias, error.sum(axis=0), rate)
    folded = (weight * scale[:, None]).astype(np.float32)
    return Readout(folded, (bias - mean @ folded).astype(np.float32))
