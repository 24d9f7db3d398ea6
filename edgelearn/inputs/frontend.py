# SPDX-License-Identifier: Apache-2.0
"""What `[input]` declares: how files become samples, their shape, layout and scaling, alike in train, eval, export and
learner.

`resolve` fills what is unset from the data; from then on everything is numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgelearn.errors import DataError, ModelError
from edgelearn.inputs.folders import KIND_OF, FrontEnd, opened
from edgelearn.inputs.images import Image
from edgelearn.inputs.labels import check_finite, one_array
from edgelearn.inputs.layout import LAYOUTS, Layout
from edgelearn.inputs.scaling import Numbers, are_numbers, are_positive, factors, pairs, statistics
from edgelearn.inputs.sounds import Sound
from edgelearn.inputs.tables import record, table
from edgelearn.inputs.windows import Window

SECTIONS: dict[str, type[Image] | type[Sound]] = {"image": Image, "sound": Sound}
"""Tables within `[input]`: each a front end for files."""

CHUNK = 1 << 18
"""Values turned to float64 at once for the statistics: two megabytes, whatever the size of the set."""


class Samples(Protocol):
    """What `resolve` reads of a dataset."""

    @property
    def x_train(self) -> NDArray[Any]:
        """Training samples (n, *shape)."""

    @property
    def arrays(self) -> Mapping[str, NDArray[Any]]:
        """The other arrays of the file, which `scale` may name."""

    @property
    def front(self) -> FrontEnd | None:
        """How files became samples, None where they are arrays from elsewhere."""


@dataclass(frozen=True)
class Input:
    """The `[input]` section of a model.

    `shape` is that of a sample as the data holds it; the net sees `net_shape`, channels last. The net gets
    (x / scale - mean) / std. `scale` is one number, one per channel, one per value in the order of the data,
    or the name of such an array in the data; unset it is 255 for uint8 samples and 1 for all others.
    `standardise` asks `resolve` for `mean` and `std`, one per channel, over the training set. `image` and `sound` say
    how a file becomes a sample; each may be a table. `resolve` keeps what the training files were read by.

    Raises:
        ModelError: a field that cannot be meant.
    """

    shape: tuple[int, ...] | None = None
    layout: str = "channels_last"
    scale: float | str | Numbers | None = None
    standardise: bool = False
    mean: Numbers | None = None
    std: Numbers | None = None
    image: Image | None = None
    sound: Sound | None = None

    def __post_init__(self) -> None:
        for name in ("shape", "scale", "mean", "std"):
            if isinstance(getattr(self, name), list):  # as .toml and JSON have them
                object.__setattr__(self, name, tuple(getattr(self, name)))
        if self.shape is not None and not _is_shape(self.shape):
            raise ModelError(f"[input] shape must be a list of whole numbers from 1 up, not {self.shape!r}")
        self._take_tables()
        if self.layout not in LAYOUTS:
            raise ModelError(f"unknown [input] layout {self.layout!r}: choose {' or '.join(LAYOUTS)}")
        if not isinstance(self.standardise, bool):
            raise ModelError(f"[input] standardise must be true or false, not {self.standardise!r}")
        scale = self.scale if isinstance(self.scale, tuple) else (self.scale,)
        if self.scale is not None and not isinstance(self.scale, str) and not are_positive(scale):
            raise ModelError(f"[input] scale must be positive numbers or an array's name, not {self.scale!r}")
        if self.mean is not None or self.std is not None:
            self._check_statistics()

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Input:
        """An Input from its table in a .toml or a model file.

        Raises:
            ModelError: an unknown key or a value that cannot be meant.
        """
        return record(cls, "[input]", config)

    def to_config(self) -> dict[str, Any]:
        """The table that `from_config` reads, for JSON; what is unset is left out."""
        return table(self)

    def _take_tables(self) -> None:
        """Image and sound as records; a shape that they settle is the shape."""
        for name, kind in SECTIONS.items():
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                object.__setattr__(self, name, record(kind, f"[input.{name}]", value))
        if self.image is not None and self.sound is not None:
            raise ModelError("[input] declares image and sound: keep one of them")
        front = self.image or self.sound
        if front is not None and self.layout == "channels_first":
            raise ModelError(f"[input] layout of {front.what} is channels_last: remove channels_first")
        if front is None or front.shape is None:
            return
        if self.shape is None:
            object.__setattr__(self, "shape", front.shape)
        elif _bare(self.shape) != _bare(front.shape):
            raise ModelError(f"[input] shape {self.shape} is not that of {front}, {front.shape}: remove one of them")

    # Files

    def front(self, kind: type[FrontEnd]) -> FrontEnd:
        """How files of a kind become samples of this net; what stays unset comes from the training files.

        Raises:
            DataError: the net takes something else.
        """
        declared: Image | Sound | None = self.image or self.sound
        if declared is not None and not isinstance(declared, kind):
            raise DataError(f"the net takes {declared.what}, not {kind.what}: give it {', '.join(declared.suffixes)}")
        if self.layout == "channels_first" and kind is not Window:
            raise DataError(f"[input] layout is channels_first, {kind.what} are channels_last: remove it")
        front = declared or kind()
        return front if self.shape is None else front.fitted(self.shape)

    def read(
        self, source: str | Path | BinaryIO, name: str = "the sample", kind: type[FrontEnd] | None = None
    ) -> NDArray[Any]:
        """One sample from a file, or from a binary stream called `name`, exactly as the training set has it. What a
        stream holds is what [input] declares, or one array, unless `kind` says.

        Raises:
            BrokenFileError: it cannot be read.
            DataError: it is not what the net takes.
        """
        declared = self.image or self.sound
        if not isinstance(source, (str, Path)):
            return self.front(kind or type(declared or Window())).read(source, name)
        kind = type(declared) if declared else KIND_OF.get(Path(source).suffix.lower(), Window)
        with opened(Path(source)) as stream:
            return self.front(kind).read(stream, str(source))

    def sample(self, values: ArrayLike, rate: int | None = None) -> NDArray[Any]:
        """One sample from a microphone's waveform, as `Sound.features`, or a camera's picture, as `Image.pixels`: the
        same as from a file with these values. Without either section it is the array itself.

        Raises:
            DataError: not a waveform or picture, or of another rate or size than is allowed.
        """
        front = self.front(type(self.image or self.sound or Window()))
        if isinstance(front, Sound):
            return front.features(values, rate)
        return front.pixels(values) if isinstance(front, Image) else one_array(values)

    # Shape and scaling

    def _check_statistics(self) -> None:
        mean, std = self.mean or (), self.std or ()
        sizes = {1, self.net_shape[-1]}
        if not (are_numbers(mean) and are_positive(std) and len(mean) == len(std) and len(std) in sizes):
            raise ModelError("[input] mean and std must be numbers, one pair per channel, std positive: correct them")

    @property
    def _in_data(self) -> Layout:
        """How samples lie in the data; ModelError where that is not known yet."""
        if self.shape is None:
            raise ModelError("the input's shape is not known yet: declare [input] shape or resolve it from data")
        return Layout(self.shape, self.layout == "channels_first")

    @property
    def net_shape(self) -> tuple[int, ...]:
        """Shape of a sample as the net sees it, channels last.

        Raises:
            ModelError: the shape is still unset.
        """
        return self._in_data.net_shape

    @property
    def features(self) -> int:
        """Values of one sample."""
        return self._in_data.features

    def resolve(self, data: Samples, padding: float | None = None) -> Input:
        """This section with every gap filled from the training set; what is set stays. Steps of `padding` alone do not
        count in means and deviations.

        Raises:
            DataError: samples of another shape than declared, a named array that is missing or does not fit.
        """
        x = one_array(data.x_train)
        if x.ndim < 2 or x.size == 0:
            raise DataError(f"there is nothing to learn in samples of shape {x.shape}: pass (n, values)")
        shaped = self._read_by(data.front)
        if shaped.shape is None:
            shaped = replace(shaped, shape=tuple(x.shape[1:]))
        shaped._in_data.shaped(x)
        scale = factors(self.scale, x.dtype, data.arrays, shaped.net_shape[-1], shaped.features)
        scaled = replace(shaped, scale=scale)
        if not self.standardise or self.mean is not None:
            return scaled
        check_finite("the training set", x)
        mean, std = scaled._statistics(x, scale, padding)
        return replace(scaled, mean=mean, std=std)

    def _read_by(self, front: FrontEnd | None) -> Input:
        """This section with the front end that made the samples."""
        if front is None or isinstance(front, Window):
            return self
        self.front(type(front))
        return replace(self, image=front) if isinstance(front, Image) else replace(self, sound=front)

    @property
    def is_resolved(self) -> bool:
        """Whether everything is numbers, so that no data is needed any more."""
        unknown = self.scale is None or isinstance(self.scale, str) or (self.standardise and self.mean is None)
        return self.shape is not None and not unknown

    def pairs(self) -> tuple[NDArray[np.float32], NDArray[np.float32]] | None:
        """(weight, bias) of the net's RESCALE record, or None if nothing scales. Needs a resolved section.

        Both are (k,) with k 1, channels or features; value i of a sample uses pair i mod k.

        Raises:
            DataError: factors beyond float32.
        """
        if self.scale is None or isinstance(self.scale, str) or not self.is_resolved:
            raise ModelError("the input section still depends on data: call resolve with the training set first")
        scale = self._in_data.in_net_order(np.atleast_1d(np.asarray(self.scale, np.float64)))
        return pairs(scale, self.mean, self.std, self.features)

    def prepare(self, x: ArrayLike) -> NDArray[np.float32] | NDArray[np.uint8]:
        """Samples as the engines take them: (n, features), C order, channels last, not yet scaled.

        x is (n, *shape), the same without a channel axis of 1, or flat (n, features) in the data's order.
        uint8 stays uint8, all else becomes float32.

        Raises:
            DataError: no samples, another shape, or values that are not real numbers.
        """
        return self._in_data.rows(one_array(x))

    def _statistics(self, x: NDArray[Any], scale: float | Numbers, padding: float | None) -> tuple[Numbers, Numbers]:
        """Mean and std per channel of samples that were scaled, without positions of padding."""
        in_data, channels, step = self._in_data, self.net_shape[-1], max(1, CHUNK // self.features)
        factor = in_data.in_net_order(np.atleast_1d(np.asarray(scale, np.float64)))

        def own(rows: NDArray[np.float64]) -> NDArray[np.float64]:
            scaled = (rows.reshape(-1, factor.size) / factor).reshape(-1, channels)
            return scaled if padding is None else scaled[(rows.reshape(-1, channels) != padding).any(axis=1)]

        return statistics(own(in_data.rows(x[i : i + step]).astype(np.float64)) for i in range(0, len(x), step))


def _bare(shape: tuple[int, ...]) -> tuple[int, ...]:
    """A shape without its channel axis of 1."""
    return shape[:-1] if shape[-1] == 1 else shape


def _is_shape(shape: Any) -> bool:
    return isinstance(shape, tuple) and {type(side) for side in shape} == {int} and min(shape) >= 1
