# SPDX-License-Identifier: Apache-2.0
"""Adapts a frozen backbone to a few labelled samples with forward passes only.

Several ways are tried on the samples themselves, each learned on four fifths of them and judged on the fifth that it
did not see, in turns; the best is learned on all. What does not beat the backbone as it is leaves it as it is.
"""

from __future__ import annotations

from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgelearn.adaptation.adapted import Adapted
from edgelearn.adaptation.readouts import Readouts
from edgelearn.adaptation.run import Adaptation, Tick
from edgelearn.adaptation.ways import Settings
from edgelearn.backbone import class_names, load
from edgelearn.backbone.cache import FeatureCache
from edgelearn.backbone.own import OwnBackbone
from edgelearn.backbone.taps import Backbone
from edgelearn.errors import DataError, ModelError, UsageError
from edgelearn.net.structure import Structure


def adapt(
    backbone: Backbone | Structure | str | Path,
    x: ArrayLike,
    y: ArrayLike,
    *,
    classes: list[str] | int | None = None,
    readouts: Readouts | None = None,
    cache_dir: str | Path | None = None,
    tick: Tick = lambda line: None,
    **settings: Any,
) -> Adapted:
    """Adapt a frozen net, an `el.Net` or the one in a .safetensors, .onnx or .tflite file, to samples x (n, *shape) as
    the data holds them and labels y (n,): class indices, or names.

    `classes` are the names or the number of the classes, by default those of the backbone's head; for others than its
    head knows there is a new one. With `cache_dir`
    features of the first layers stay on disk for the next run on the same samples; `tick` is told what each way
    reached. `settings` are those of `Settings`: kind, rank, rule, taps, ways, folds, margin, steps, optimizer, seed,
    nested. The result answers, saves in kilobytes and holds the backbone untouched; `about["judged"]` says what each
    way reached.

    Raises:
        DataError: samples that do not fit, labels out of range, one class only.
        UsageError: a setting that cannot be meant, such as a rank above the channels of a tap.
        ModelError: read-outs of another backbone, or a file that is none.
    """
    frozen = _frozen(backbone)
    chosen = _settings(settings)
    samples = np.asarray(x)
    labels, names = _indices(np.asarray(y), classes, class_names(frozen))
    count = _counted(labels, len(samples), len(names) if names else classes, frozen)
    new = names is not None and not is_of_head(names, frozen, by_number=isinstance(classes, list))
    known = None if new else _usable(readouts, frozen, chosen, count, tick)
    rows = frozen.prepare(samples)
    with FeatureCache(cache_dir) as cache:
        adapted = Adaptation(frozen, rows, labels, count, chosen, known, tick, cache=cache, new=new).run()
    kept = frozen.classes if frozen.classes and len(frozen.classes) == count else None
    return replace(adapted, classes=names or kept)


def is_of_head(classes: list[str], backbone: Backbone, by_number: bool = True) -> bool:
    """Whether classes are those of the backbone's own head, in its order; where it has no words for its own, as many
    may be, if they came `by_number`."""
    own = class_names(backbone)
    return own == classes or (by_number and backbone.classes is None and len(own) == len(classes))


def _frozen(backbone: Backbone | Structure | str | Path) -> Backbone:
    if isinstance(backbone, str | Path):
        return load(backbone)
    return OwnBackbone(backbone, "the net") if isinstance(backbone, Structure) else backbone


def _settings(given: dict[str, Any]) -> Settings:
    known = [each.name for each in fields(Settings)]
    strange = ", ".join(name for name in given if name not in known)
    if strange:
        raise UsageError(f"adapting has no setting {strange}: choose from {', '.join(known)}")
    return Settings(**given)


def _indices(
    y: NDArray[Any], classes: list[str] | int | None, known: list[str]
) -> tuple[NDArray[np.int32], list[str] | None]:
    """Class indices, and the names of the classes where there are any but the backbone's own."""
    named = classes if isinstance(classes, list) else None
    if y.ndim == 1 and y.dtype.kind in "iu":
        return y.astype(np.int64).clip(-1, 2**31 - 1).astype(np.int32), named
    if y.ndim != 1 or not all(isinstance(label, str) for label in y.tolist()):
        raise DataError("adapting needs class indices or names (n,): give whole numbers or text")
    words = np.unique(y.astype(str)).tolist()
    choice = named or (known if set(words) <= set(known) else words)
    strange = ", ".join(word for word in words if word not in choice)
    if strange:
        raise DataError(f"labels {strange} are none of the classes {', '.join(choice)}: correct them or add to classes")
    return np.array([choice.index(label) for label in y.tolist()], np.int32), choice


def _counted(labels: NDArray[np.int32], samples: int, classes: int | list[str] | None, backbone: Backbone) -> int:
    """The number of classes, once each sample has a label of one of them."""
    own = backbone.head.bias.size if backbone.head is not None else 0
    highest = int(labels.max(initial=-1)) + 1
    count = len(classes) if isinstance(classes, list) else classes or max(own, highest)
    different = len(np.unique(labels))
    if len(labels) != samples or labels.min(initial=0) < 0 or highest > count or different < 2:
        raise DataError(
            f"{len(labels)} labels from {labels.min(initial=0)} to {highest - 1} for {samples} samples and {count} "
            "classes: give each sample one label of two or more classes"
        )
    if classes is None and own < different < highest:
        raise DataError(f"labels go up to {highest - 1}, but only {different} of them occur: say how many classes")
    if classes is None and different <= own < highest:
        raise DataError(f"label {highest - 1} is none of the {own} classes of {backbone.name}: pass classes for more")
    return count


def _usable(
    readouts: Readouts | None, backbone: Backbone, settings: Settings, classes: int, tick: Tick
) -> Readouts | None:
    """Read-outs of this backbone and these classes."""
    if readouts is None:
        return None
    if readouts.digest != backbone.digest:
        raise ModelError(f"the read-outs were fitted on another backbone than {backbone.name}: fit them on this one")
    if readouts.classes != classes:
        tick(f"read-outs of {readouts.classes} classes say nothing of {classes}: adapters go by these samples alone")
        return None
    taps = [tap.name for tap in backbone.taps if not settings.taps or tap.name in settings.taps]
    missing = ", ".join(tap for tap in taps if tap not in readouts.at)
    if missing:
        raise ModelError(f"there is no read-out of tap {missing}: fit them with the taps that are adapted")
    return readouts
