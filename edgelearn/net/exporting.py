# SPDX-License-Identifier: Apache-2.0
"""A net and samples, checked and joined into an export."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgelearn import export
from edgelearn.errors import DataError, UsageError
from edgelearn.export import Calibration, Precision, Report
from edgelearn.export.verify import Forward
from edgelearn.net import architecture
from edgelearn.net.structure import Structure

MOST_CALIBRATION = 512
"""Samples that ranges are taken from; more of them change the ranges of no net here by a percent."""


@dataclass(frozen=True)
class Options:
    """How a file is written: `dtype` float32, float16 (TFLite) or int8; for int8 the type of its ends (`io`: int8 or
    float32) and how ranges follow from the calibration samples (`method`: minmax, percentile or entropy); the share of
    samples that may get another label than from the core (left out: none in float32, 1 % in float16, 5 % in int8);
    whether it is run before it gets its name."""

    dtype: str = "float32"
    io: str = "int8"
    method: str = "minmax"
    max_disagreement: float | None = None
    verify: bool = True

    def __post_init__(self) -> None:
        share = self.max_disagreement
        if share is not None and not 0 <= share <= 1:
            raise UsageError(f"max_disagreement is a share of the samples, not {share}: give 0 to 1")


@dataclass(frozen=True, eq=False)
class Samples:
    """What a file is calibrated on and compared on: samples as the data holds them, labels (n,) of those compared."""

    calibration: ArrayLike | None = None
    compared: ArrayLike | None = None
    labels: NDArray[Any] | None = None


def run(
    net: Structure,
    path: Path,
    options: Options,
    samples: Samples,
    *,
    forward: Forward,
    train: dict[str, Any],
    metadata: Mapping[str, str],
) -> Report | None:
    """Write the file and compare it with `forward`, the core; see `Net.export`. `train` is the recipe of the net.

    Raises:
        UsageError: nothing to compare on, or options that cannot be meant.
        DataError: no calibration samples, or samples that are not the net's.
        EdgelearnError: as `export.write`.
    """
    calibration = None
    if options.dtype == "int8" and samples.calibration is not None:
        calibration = Calibration(_checked(net, spread(np.asarray(samples.calibration))), options.method)
    precision = Precision(options.dtype, calibration, options.io)
    given = samples.calibration if samples.compared is None else samples.compared
    if given is None and options.verify:
        raise UsageError("there are no samples to compare on: fit the net first, or pass samples")
    return export.write(
        path,
        net.graph,
        net.flat,
        forward=forward,
        samples=np.zeros(0) if given is None else _checked(net, given),
        labels=samples.labels,
        classes=net.classes,
        metadata={"input": _input(net, options), **_about(net, train, path, options), **metadata},
        precision=precision,
        verify=options.verify,
        max_disagreement=options.max_disagreement,
        channels_first=net.input.layout == "channels_first",
    )


def _input(net: Structure, options: Options) -> str:
    """How files become samples. The numbers that scale them are in the net: of int8, six digits tell what they were."""
    config = net.input.to_config()
    if options.dtype == "int8":
        config = {key: _short(value) for key, value in config.items()}
    return json.dumps(config, separators=(",", ":"))


def _short(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_short(each) for each in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _about(net: Structure, train: dict[str, Any], path: Path, options: Options) -> dict[str, str]:
    """What a file of exact weights says of the net, so that it can be read back."""
    form = export.FORMATS.get(path.suffix.lower())
    if options.dtype == "int8" or form is None or not form.lowered:
        return {}
    return architecture.described(net, train, form.folds)


def _checked(net: Structure, samples: ArrayLike) -> NDArray[Any]:
    """Samples as the data holds them, once they are known to be the net's."""
    net.input.prepare(samples)
    return np.asarray(samples)


def spread(samples: NDArray[Any]) -> NDArray[Any]:
    """At most MOST_CALIBRATION of them, from all over: all that calibration looks at."""
    return samples[:: -(-len(samples) // MOST_CALIBRATION) or 1]


def kept(samples: NDArray[Any] | None, provenance: Mapping[str, Any], dtype: str) -> NDArray[Any] | None:
    """The samples that a model file keeps, to calibrate and compare on where none are given.

    Raises:
        DataError: int8 wants ranges, and the file keeps noise.
    """
    if dtype == "int8" and samples is not None and provenance.get("samples") == "noise":
        raise DataError("the model file keeps noise in place of training samples: pass calibration samples for int8")
    return samples
