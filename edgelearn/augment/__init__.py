# SPDX-License-Identifier: Apache-2.0
"""Random changes of training samples: records of one table, said as `augment = {flip = true, shift = 2}`.

Every change is a pure function of (seed, step of the run, place in the batch): a resumed run repeats it to the bit,
under each engine, numpy version and number of threads. A new one is a function in changes.py and a record here.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.augment import changes
from edgelearn.augment.changes import Batch, Space, Words
from edgelearn.errors import UsageError
from edgelearn.philox import STREAM_AUGMENT, philox

__all__ = ["AUGMENTATIONS", "FILLS", "Augmentation", "Augmenter", "Chain", "Space", "parse", "read"]

FILLS = ("zero", "edge")
"""What shift and time_shift move in from outside: the value that the net sees as 0, or the outermost repeated."""

_FORMS = {3: "images (height, width, channels)", 2: "sequences (steps, features)"}
"""Samples by their number of axes."""


_LARGEST = float(np.finfo(np.float32).max)


@dataclass(frozen=True)
class Amount:
    """What may stand behind an augmentation's name, and in words what is meant."""

    is_meant: Callable[[Any], bool]
    words: str


def _is_number(value: Any) -> bool:
    is_real = isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
    return bool(is_real and 0 < value <= _LARGEST)


def _is_count(value: Any) -> bool:
    return bool(isinstance(value, (int, np.integer)) and not isinstance(value, bool) and value >= 1)


_SWITCH = Amount(lambda v: isinstance(v, bool), "true or false")
_COUNT = Amount(_is_count, "a whole number from 1 up")
_SHARE = Amount(lambda v: _is_number(v) and 1 / changes.SHARES <= v <= 0.5, "a share from 1/256 to 0.5")
_DEVIATION = Amount(_is_number, "a positive number")


@dataclass(frozen=True)
class Augmentation:
    """A random change of samples.

    `apply` takes (x, amount, draws (n, 4), space) and may overwrite x. `axes` is the number of axes of the samples
    it is for, 0 for any; the sides at `sides` must be larger than the amount. `forbids` says what else is wrong with
    an amount for the samples at hand, if anything is.
    """

    name: str
    amount: Amount
    apply: Callable[[Batch, Any, Words, Space], Batch]
    summary: str
    axes: int = 0
    sides: tuple[int, ...] = ()
    forbids: Callable[[Any, Space], str | None] = lambda amount, space: None

    def check(self, amount: Any, space: Space) -> None:
        """Refuse samples that this change is not for.

        Raises:
            UsageError: samples of another form, too small for the amount, or of another task.
        """
        if self.axes not in (0, len(space.shape)):
            raise UsageError(
                f"{self.name} is for {_FORMS[self.axes]}, not for samples of shape {space.shape}: take it out of "
                "augment, or declare the shape in [input]"
            )
        for side in (space.shape[axis] for axis in self.sides):
            if amount >= side:
                raise UsageError(f"{self.name} = {amount} leaves nothing of a side of {side}: choose a smaller number")
        reason = self.forbids(amount, space)
        if reason:
            raise UsageError(reason)


AUGMENTATIONS: dict[str, Augmentation] = {
    augmentation.name: augmentation
    for augmentation in (
        Augmentation(
            "crop",
            _COUNT,
            changes.crop,
            "a window, at a random place, of the image with N mirrored pixels around it",
            axes=3,
            sides=(0, 1),
        ),
        Augmentation(
            "shift",
            _COUNT,
            changes.shift,
            "images by up to N pixels each way, filled as `fill` says",
            axes=3,
            sides=(0, 1),
        ),
        Augmentation("flip", _SWITCH, changes.flip, "half of the images mirrored left to right", axes=3),
        Augmentation(
            "time_shift",
            _COUNT,
            changes.time_shift,
            "sequences by up to N steps each way, filled as `fill` says",
            axes=2,
            sides=(0,),
        ),
        Augmentation(
            "mix",
            _SHARE,
            changes.mix,
            "up to a share X of another sample of the batch mixed in; the larger part keeps its label",
            forbids=changes.needs_labels,
        ),
        Augmentation(
            "noise",
            _DEVIATION,
            changes.noise,
            "normal noise of standard deviation X, as the net sees it after scaling",
            forbids=changes.needs_steps,
        ),
        Augmentation("time_mask", _COUNT, changes.time_mask, "up to N steps in a row blanked", axes=2, sides=(0,)),
        Augmentation("band_mask", _COUNT, changes.band_mask, "up to N features in a row blanked", axes=2, sides=(1,)),
    )
}
"""All there are, in the order in which a chain applies them. Shifts are Keras's RandomTranslation, crop the padded
RandomCrop of torchvision; mix is SamplePairing (Inoue 2018) with a random share, or mixup (Zhang et al. 2018) that
does not mix the labels; masks are SpecAugment's (Park et al. 2019), one of each kind."""


@dataclass(frozen=True)
class Chain:
    """Augmentations with their amounts, in the order of the table."""

    links: tuple[tuple[Augmentation, Any], ...] = ()
    fill: str = "zero"

    def __bool__(self) -> bool:
        return bool(self.links)

    def table(self) -> dict[str, Any]:
        """As `augment` in a .toml; plain values, for JSON."""
        fill = {"fill": self.fill} if self.fill != Chain.fill else {}
        return {**{augmentation.name: amount for augmentation, amount in self.links}, **fill}

    def extra_bytes(self, shape: tuple[int, ...], itemsize: int, batch: int) -> int:
        """Most that `Augmenter` takes for a batch of such samples, beside the batch itself."""
        values = math.prod(shape)
        margin = max((a for link, a in self.links if link.axes and link.amount is _COUNT), default=0)
        grown = math.prod(side + 2 * margin for side in shape[:-1]) * shape[-1] if len(shape) > 1 else values
        most = batch * (2 * values + grown) * itemsize + 48 * max(values, changes.CHUNK) + 256 * batch
        return most if self else 0


@dataclass(frozen=True, eq=False)
class Augmenter:
    """A chain over the samples of a run.

    Raises:
        UsageError: an augmentation that is not for these samples.
    """

    chain: Chain
    space: Space
    seed: int = 0

    def __post_init__(self) -> None:
        for augmentation, amount in self.chain.links:
            augmentation.check(amount, self.space)

    def __call__(self, rows: NDArray[Any], step: int) -> NDArray[Any]:
        """The samples of a step of the run, (n, features) as engines take them, changed; `rows` is overwritten."""
        x = rows.reshape(len(rows), *self.space.shape)
        for augmentation, amount in self.chain.links:
            place = np.arange(len(x), dtype=np.uint64)
            words = philox(self.seed, place, step, zlib.crc32(augmentation.name.encode()), STREAM_AUGMENT)
            x = augmentation.apply(x, amount, words, self.space)
        return x.reshape(rows.shape)


def parse(table: Mapping[str, Any]) -> Chain:
    """The chain that an `augment` table describes.

    Raises:
        UsageError: an unknown name, or an amount that cannot be meant.
    """
    if not isinstance(table, Mapping):
        raise UsageError(f"augment must be a table such as {{flip = true, shift = 2}}, not {table!r}")
    said = dict(table)
    fill = said.pop("fill", Chain.fill)
    if fill not in FILLS:
        raise UsageError(f"augment: fill must be one of {', '.join(FILLS)}, not {fill!r}")
    for name in said:
        if name not in AUGMENTATIONS:
            raise UsageError(f"unknown augmentation '{name}': choose from {', '.join(AUGMENTATIONS)} and fill")
    links = tuple((a, _amount(a, said[name])) for name, a in AUGMENTATIONS.items() if name in said)
    return Chain(tuple(link for link in links if link[1]), fill)


def _amount(augmentation: Augmentation, value: Any) -> Any:
    if not augmentation.amount.is_meant(value):
        raise UsageError(f"augment: {augmentation.name} must be {augmentation.amount.words}, not {value!r}")
    if isinstance(value, bool):
        return value
    return int(value) if isinstance(value, (int, np.integer)) else float(value)


def described() -> str:
    """What a table may hold, in one line."""
    known = (f"{name} ({a.amount.words})" for name, a in AUGMENTATIONS.items())
    return f"{', '.join(known)} and fill ({' or '.join(FILLS)})"


def read(text: str) -> dict[str, Any]:
    """The table of a command line's `flip,shift=2,fill=edge`; `none` is the empty one."""
    pairs = (part.partition("=") for part in text.split(",")) if text != "none" else ()
    return {name.strip(): _read_value(value.strip()) if sign else True for name, sign, value in pairs}


def _read_value(text: str) -> Any:
    """A number or a switch as TOML writes them; anything else stays text."""
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text) if set(text) & set(".e") else int(text)
    except ValueError:
        return text
