# SPDX-License-Identifier: Apache-2.0
"""`[input.image]`: how a .png or .jpg file, or a camera's picture, becomes a sample (height, width, channels) uint8.

Pillow decodes and resizes; it is imported with the first picture.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgelearn.errors import BrokenFileError, DataError, ModelError

Pixels = NDArray[np.uint8]

CHANNELS = {"grayscale": 1, "rgb": 3}
RESIZES = ("crop", "stretch", "pad", "never")

GREY = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L")
"""Pillow's modes without colour; those that begin with I have 16 bits."""

ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
"""The EXIF tag, and its values under which height and width change places."""

Fact = tuple[tuple[int, int], str]
"""What a header says: (height, width) and color."""


@dataclass(frozen=True)
class Image:
    """The `[input.image]` section of a model: `size` is (height, width), `color` "grayscale" or "rgb"; unset, they are
    what the training files have, rgb if any of them has colour.

    `resize` brings pictures to a declared size: "crop" scales until both sides are covered and cuts what stands over
    on both ends, "pad" scales until the whole picture fits and fills up with black, "stretch" changes the proportions,
    "never" refuses. Without a declared size it is "never". Turned by EXIF, transparent is black, 16 bits become 8.

    Raises:
        ModelError: a value that cannot be meant.
    """

    size: tuple[int, int] | None = None
    color: str | None = None
    resize: str | None = None

    suffixes: ClassVar[tuple[str, ...]] = (".png", ".jpg", ".jpeg")
    what: ClassVar[str] = "images"
    dtype: ClassVar[np.dtype[np.uint8]] = np.dtype(np.uint8)

    def __post_init__(self) -> None:
        if isinstance(self.size, list):  # as .toml and JSON have it
            object.__setattr__(self, "size", tuple(self.size))
        if self.size is not None and not _is_size(self.size):
            raise ModelError(f"[input.image] size must be [height, width] in pixels, not {self.size!r}")
        if self.color is not None and self.color not in tuple(CHANNELS):
            raise ModelError(f"[input.image] color must be {' or '.join(CHANNELS)}, not {self.color!r}")
        if self.resize is not None and self.resize not in RESIZES:
            raise ModelError(
                f"[input.image] resize must be {', '.join(RESIZES[:-1])} or {RESIZES[-1]}, not {self.resize!r}"
            )
        if self.size is not None and self.resize is None:
            object.__setattr__(self, "resize", "crop")

    @property
    def shape(self) -> tuple[int, int, int] | None:
        """(height, width, channels) of a sample, None while size or color are unset."""
        return None if self.size is None or self.color is None else (*self.size, CHANNELS[self.color])

    def __str__(self) -> str:
        size = f"{self.size[0]} x {self.size[1]} pixels (height x width)" if self.size else "any size"
        return f"images of {size}, {self.color or 'any color'}"

    def fitted(self, shape: tuple[int, ...]) -> Image:
        """This section for a net whose samples have a shape: (height, width), or the same and 1 or 3 channels.

        Raises:
            DataError: images cannot have that shape, or these have another.
        """
        height, width, channels = shape if len(shape) == 3 else (*shape, 1) if len(shape) == 2 else (0, 0, 0)
        color = next((name for name, count in CHANNELS.items() if count == channels), None)
        if color is None:
            raise DataError(
                f"the net takes samples of shape {shape}, and images have (height, width) and 1 or 3 channels: "
                "take images out of the data, or correct [input] shape"
            )
        full = replace(self, color=self.color or color)
        if self.size is None:
            full = replace(full, size=(height, width), resize=self.resize or "never")
        if full.shape != (height, width, channels):
            raise DataError(f"the net takes samples of shape {shape}, not {full}: correct [input.image] or the shape")
        return full

    def survey(self, stream: BinaryIO, name: str) -> Fact:
        """Size and color of a file, from its header.

        Raises:
            BrokenFileError: it cannot be read.
            DataError: Pillow is not installed.
        """
        with _decoding(name):
            picture = _opened(stream)
            width, height = picture.size
            # Asking a .png that has no EXIF in front of its pixels would decode them.
            told = picture.format != "PNG" or "exif" in picture.info
            turned = told and picture.getexif().get(ORIENTATION) in TURNED
            return (width, height) if turned else (height, width), "grayscale" if picture.mode in GREY else "rgb"

    def settled(self, facts: Iterator[tuple[str, Fact]]) -> Image:
        """This section with size and color taken from (name, fact) of the training files where unset.

        Raises:
            DataError: no size is declared and the files have different ones.
        """
        if self.shape is not None:
            return self
        first, size, color = "", self.size, self.color
        for name, (its_size, its_color) in facts:
            if size is None:
                first, size = name, its_size
            elif self.size is None and its_size != size:
                raise DataError(
                    f"{name} has {its_size[0]} x {its_size[1]} pixels (height x width), {first} {size[0]} x {size[1]}: "
                    "set size in [input.image] to bring all to one"
                )
            color = self.color or ("rgb" if "rgb" in (color, its_color) else its_color)
        resize = "never" if self.size is None and self.resize is None and size else self.resize
        return replace(self, size=size, color=color, resize=resize)

    def read(self, stream: BinaryIO, name: str) -> Pixels:
        """(height, width, channels) of a file.

        Raises:
            BrokenFileError: it cannot be read.
            DataError: another size although resize is "never", or Pillow is not installed.
        """
        with _decoding(name):
            picture = _opened(stream)
            if self.size is not None and self.resize != "never":
                # A .jpg decodes at an eighth of its size four times faster; twice ours leaves enough to average.
                picture.draft(None, (2 * max(self.size), 2 * max(self.size)))
            picture = _upright(picture)
        return self._sample(picture, name)

    def pixels(self, picture: ArrayLike) -> Pixels:
        """(height, width, channels) of a camera's picture: (height, width), the same and 1 or 3 channels, uint8. The
        same as of a .png file with these pixels.

        Raises:
            DataError: another shape or type, or another size although resize is "never".
        """
        values = np.asarray(picture)
        if values.ndim == 3 and values.shape[2] == 1:
            values = values[:, :, 0]
        if values.dtype != np.uint8 or values.size == 0 or not (values.ndim == 2 or values.shape[2:] == (3,)):
            raise DataError(
                f"a picture of {values.dtype} and shape {values.shape} given: pass uint8, (height, width, 3) or "
                "(height, width)"
            )
        return self._sample(_pillow().fromarray(values), "the picture")

    def _sample(self, picture: Any, name: str) -> Pixels:
        """A decoded picture, upright, in the section's color and size."""
        if self.size is None or self.color is None:
            raise ModelError("size and color of [input.image] are not known yet: set them, or load training files")
        height, width = self.size
        colored = _colored(picture, "L" if self.color == "grayscale" else "RGB")
        if colored.size != (width, height):
            if self.resize == "never":
                raise DataError(
                    f"{name} has {colored.size[1]} x {colored.size[0]} pixels (height x width) and not "
                    f"{height} x {width}: resize it, or train with size set in [input.image]"
                )
            colored = _resized(colored, (width, height), str(self.resize))
        return np.asarray(colored, np.uint8).reshape(height, width, CHANNELS[self.color])


def _is_size(size: Any) -> bool:
    return isinstance(size, tuple) and len(size) == 2 and all(type(s) is int and 1 <= s <= 1 << 14 for s in size)


def _pillow(module: str = "Image") -> Any:
    """A module of Pillow; only files with pictures need it."""
    try:
        return import_module(f"PIL.{module}")
    except ImportError as error:
        raise DataError("pictures are decoded by Pillow, which is missing: pip install 'edgelearn[data]'") from error


@contextmanager
def _decoding(name: str) -> Iterator[None]:
    """Whatever a decoder says about a file becomes one error with its name."""
    pillow = _pillow()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", pillow.DecompressionBombWarning)
            yield
    except (pillow.DecompressionBombWarning, pillow.DecompressionBombError) as error:
        raise BrokenFileError(f"{name} claims {pillow.MAX_IMAGE_PIXELS:,} pixels or more: shrink it first") from error
    except pillow.UnidentifiedImageError as error:
        raise BrokenFileError(f"{name} is not a .png or .jpg file: save it again as one") from error
    except Exception as error:  # damaged files raise whatever a decoder can
        raise BrokenFileError(f"{name} cannot be decoded ({error}): save it again or remove it") from error


def _opened(stream: BinaryIO) -> Any:
    stream.seek(0)
    return _pillow().open(stream, formats=("PNG", "JPEG"))


def _upright(picture: Any) -> Any:
    """The picture decoded, turned as EXIF says, with 8 bits, on black where it is transparent."""
    picture = _pillow("ImageOps").exif_transpose(picture)
    if picture.mode.startswith("I"):
        return _pillow().fromarray((np.asarray(picture) >> 8).astype(np.uint8))
    if "A" in picture.getbands() or "transparency" in picture.info:
        black = _pillow().new("RGBA", picture.size, (0, 0, 0, 255))
        black.alpha_composite(picture.convert("RGBA"))
        return black
    picture.load()
    return picture


def _colored(picture: Any, mode: str) -> Any:
    return picture if picture.mode == mode else picture.convert(mode)


def _resized(picture: Any, size: tuple[int, int], way: str) -> Any:
    """The picture at (width, height); bilinear over all pixels that become one, so that nothing aliases."""
    operations, bilinear = _pillow("ImageOps"), _pillow().Resampling.BILINEAR
    if way == "crop":
        return operations.fit(picture, size, bilinear)
    return operations.pad(picture, size, bilinear, "black") if way == "pad" else picture.resize(size, bilinear)
