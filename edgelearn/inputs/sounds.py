# SPDX-License-Identifier: Apache-2.0
"""`[input.sound]`: how a .wav file, or a waveform from a microphone, becomes log-mel features (frames, bands) uint8.

One function does it for training, evaluation, learning on the board and whoever feeds an exported file, so that
one recording is one row everywhere, bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import BinaryIO, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgelearn.errors import DataError, ModelError
from edgelearn.inputs import logmel, wav
from edgelearn.inputs.resample import ratio, resample, span

RESAMPLES = ("down", "any", "never")

LONGEST_UNASKED = 10.0
"""Seconds up to which the longest file says how long a sample is; beyond, nobody means the whole recording."""

HIGHEST = 0.95
"""Upper edge of the bands as a share of the Nyquist frequency, up to which resampled sound is unchanged."""

Fact = tuple[int, int]
"""What a header says: rate in Hz and samples."""


@dataclass(frozen=True)
class Sound:
    """The `[input.sound]` section of a model. Unset, `rate` (Hz) is that of the files, and `seconds` the length of the
    longest training file; shorter sound lies in the middle of silence, of longer sound the middle counts.

    `resample` says which files of another rate are brought to it: those above ("down"), all ("any", although what
    they lack stays empty) or none ("never"). Channels are averaged. `bands` triangles on the mel scale from `low_hz`
    to `high_hz` (0.475 of the rate) see Hann windows of `window_ms`, a new one each `hop_ms`. A value is the power in
    decibels, from -96 (0) to -6 (255) of a sine at full scale.

    Raises:
        ModelError: a value that cannot be meant.
    """

    rate: int | None = None
    seconds: float | None = None
    resample: str = "down"
    bands: int = 40
    window_ms: float = 32.0
    hop_ms: float = 20.0
    low_hz: float = 60.0
    high_hz: float | None = None

    suffixes: ClassVar[tuple[str, ...]] = (".wav",)
    what: ClassVar[str] = "sounds"
    dtype: ClassVar[np.dtype[np.uint8]] = np.dtype(np.uint8)

    def __post_init__(self) -> None:
        low, high = wav.RATES
        if self.rate is not None and not (_is_whole(self.rate) and low <= self.rate <= high):
            raise _refusal(f"rate must be a whole number of Hz from {low} to {high}, not {self.rate!r}")
        if self.resample not in RESAMPLES:
            raise _refusal(f"resample must be {', '.join(RESAMPLES[:-1])} or {RESAMPLES[-1]}, not {self.resample!r}")
        if not _is_whole(self.bands) or not 1 <= self.bands <= 512:
            raise _refusal(f"bands must be a whole number from 1 to 512, not {self.bands!r}")
        for name in ("seconds", "window_ms", "hop_ms", "high_hz"):
            value = getattr(self, name)
            if not (value is None and name in ("seconds", "high_hz")) and not _is_positive(value):
                raise _refusal(f"{name} must be a positive number, not {value!r}")
        if not (self.low_hz == 0 or _is_positive(self.low_hz)):
            raise _refusal(f"low_hz must be 0 or a positive number, not {self.low_hz!r}")
        if self.rate is not None:
            self._check_bands(self.rate)

    def _check_bands(self, rate: int) -> None:
        window, hop, high = self._samples(rate, self.window_ms), self._samples(rate, self.hop_ms), self._high(rate)
        if not (2 <= window <= 1 << 13 and hop >= 1):
            raise _refusal(f"windows of {self.window_ms} ms, one each {self.hop_ms}, cannot be cut at {rate} Hz")
        if not self.low_hz < high <= rate / 2:
            raise _refusal(f"low_hz {self.low_hz} and high_hz {high} must rise and stay within 0 and {rate / 2:g}")
        if not logmel.triangles(rate, window, self.bands, self.low_hz, high).any(axis=0).all():
            raise _refusal(f"{self.bands} bands are narrower than windows of {self.window_ms} ms can tell apart")
        if self.seconds is not None and not window <= round(self.seconds * rate) <= 1 << 26:
            raise _refusal(f"seconds must cover a window ({self.window_ms} ms) and a believable clip at most")

    @property
    def shape(self) -> tuple[int, int] | None:
        """(frames, bands) of a sample, None while rate or seconds are unset."""
        if self.rate is None or self.seconds is None:
            return None
        window, hop = (self._samples(self.rate, ms) for ms in (self.window_ms, self.hop_ms))
        return logmel.frames(self._count(self.rate, self.seconds), window, hop), self.bands

    def __str__(self) -> str:
        length = f"{self.seconds:.4g} s" if self.seconds else "any length"
        rate = f"{self.rate:,} Hz" if self.rate else "any rate"
        frames = f"{self.shape[0]} frames" if self.shape else "frames"
        return f"sounds of {length} at {rate} as {frames} of {self.bands} bands"

    def fitted(self, shape: tuple[int, ...]) -> Sound:
        """This section for a net whose samples have a shape, (frames, bands) or the same and a channel.

        Raises:
            DataError: these sounds have another shape.
        """
        if self.shape is not None and shape not in (self.shape, (*self.shape, 1)):
            raise DataError(
                f"the net takes samples of shape {shape}, {self} have {self.shape}: correct [input.sound] or the shape"
            )
        return self

    def survey(self, stream: BinaryIO, name: str) -> Fact:
        """Rate and samples of a file, from its header.

        Raises:
            BrokenFileError: it cannot be read.
        """
        about = wav.header(stream, name)
        return about.rate, about.frames

    def settled(self, facts: Iterator[tuple[str, Fact]]) -> Sound:
        """This section with rate and seconds taken from (name, fact) of the training files where unset.

        Raises:
            DataError: files of different rates, or a very long one.
        """
        first, rate, longest, seconds = "", self.rate, "", 0.0
        for name, (its_rate, samples) in facts:
            if rate is None:
                first, rate = name, its_rate
            elif self.rate is None and its_rate != rate:
                raise DataError(
                    f"{name} has {its_rate} Hz, {first} {rate} Hz: set rate in [input.sound] to bring all to one"
                )
            if samples / its_rate > seconds:
                longest, seconds = name, samples / its_rate
        if rate is None or self.seconds is not None:
            return replace(self, rate=rate)
        if seconds > LONGEST_UNASKED:
            raise DataError(f"{longest} is {seconds:.1f} s long: set seconds in [input.sound] to say how much counts")
        return replace(self, rate=rate, seconds=max(seconds, math.ceil(self.window_ms) / 1000)) if seconds else self

    def read(self, stream: BinaryIO, name: str) -> NDArray[np.uint8]:
        """(frames, bands) of a file; only as much is read as the sample needs.

        Raises:
            BrokenFileError: it cannot be read.
            DataError: another rate than `resample` allows.
        """
        rate, seconds = self._settled()
        about = wav.header(stream, name)
        self._check_rate(about.rate, rate, name)
        start = self._start(about.frames, about.rate)
        first, end = span(about.rate, rate, start, self._count(rate, seconds))
        return self._features(wav.read(stream, name, about, first, end), about.rate, start, max(first, 0))

    def features(self, waveform: ArrayLike, rate: int | None = None) -> NDArray[np.uint8]:
        """(frames, bands) of a waveform (samples,) or (samples, channels) at `rate`, by default the section's: floats
        with full scale 1, or integers of 16 or 32 bits. The same as of a file with these samples.

        Raises:
            DataError: not a waveform, NaN or infinity, or another rate than `resample` allows.
        """
        wanted, _ = self._settled()
        values = np.asarray(waveform)
        if values.ndim not in (1, 2) or values.size == 0 or values.dtype not in ("i2", "i4", "f2", "f4", "f8"):
            raise DataError(
                f"a waveform of {values.dtype} and shape {values.shape} given: pass (samples,) or (samples, channels), "
                "floats or 16- or 32-bit integers"
            )
        mono = wav.full_scale(values).reshape(len(values), -1).mean(axis=1)
        if not np.abs(mono).max() <= wav.LOUDEST:  # a NaN is not within either
            raise DataError("the waveform holds NaN, or values far outside -1 and 1: scale it to full scale 1")
        self._check_rate(wanted if rate is None else rate, wanted, "the waveform")
        of = wanted if rate is None else rate
        return self._features(mono, of, self._start(len(mono), of), 0)

    def _start(self, samples: int, of: int) -> int:
        """First sample of the middle of a recording at rate `of`, at the section's rate; negative in a short one."""
        rate, seconds = self._settled()
        up, down = ratio(of, rate)
        return (samples * up // down - self._count(rate, seconds)) // 2

    def _features(self, waveform: wav.Waveform, of: int, start: int, first: int) -> NDArray[np.uint8]:
        rate, seconds = self._settled()
        ready = resample(waveform, of, rate, start, self._count(rate, seconds), first)
        window, hop = (self._samples(rate, ms) for ms in (self.window_ms, self.hop_ms))
        bands = logmel.triangles(rate, window, self.bands, self.low_hz, self._high(rate))
        return logmel.features(ready, window, hop, bands)

    def _settled(self) -> tuple[int, float]:
        if self.rate is None or self.seconds is None:
            raise ModelError("rate and seconds of [input.sound] are not known yet: set them, or load training files")
        return self.rate, self.seconds

    def _check_rate(self, rate: int, wanted: int, name: str) -> None:
        if rate == wanted or self.resample == "any" or (self.resample == "down" and rate > wanted):
            return
        if self.resample == "down":
            raise DataError(
                f"{name} has {rate} Hz and the net takes {wanted}, so its upper bands would stay empty: "
                'record it at that rate, or set resample = "any" in [input.sound]'
            )
        raise DataError(f'{name} has {rate} Hz, not {wanted}: convert it, or set resample = "down" in [input.sound]')

    def _high(self, rate: int) -> float:
        return HIGHEST * rate / 2 if self.high_hz is None else self.high_hz

    @staticmethod
    def _samples(rate: int, milliseconds: float) -> int:
        return round(rate * milliseconds / 1000)

    @staticmethod
    def _count(rate: int, seconds: float) -> int:
        return round(rate * seconds)


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_positive(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def _refusal(what: str) -> ModelError:
    return ModelError(f"[input.sound] {what}: correct it")
