# SPDX-License-Identifier: Apache-2.0
"""The parser of .wav files against Python's own writer, formats by hand, and damage of every kind."""

from __future__ import annotations

import io
import wave

import numpy as np
import pytest
from files import extensible, fmt, riff
from hypothesis import given, settings
from hypothesis import strategies as st

from edgelearn.errors import BrokenFileError
from edgelearn.inputs import wav


def read(content, **part):
    stream = io.BytesIO(content)
    about = wav.header(stream, "x.wav")
    return wav.read(stream, "x.wav", about, **part), about.rate


def written(frames, channels, width, rate=8000):
    """What Python's own module writes."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(frames)
    return out.getvalue()


@pytest.mark.parametrize("width", [1, 2, 3, 4])
@pytest.mark.parametrize("channels", [1, 2, 5])
def test_pcm_of_every_width_is_a_share_of_full_scale(width, channels):
    rng = np.random.default_rng(width)
    limit = 1 << (8 * width - 1)
    values = rng.integers(-limit, limit, (7, channels))
    stored = (values + 128 if width == 1 else values).astype("<i8").view(np.uint8).reshape(-1, 8)[:, :width]
    waveform, rate = read(written(stored.tobytes(), channels, width, 11025))
    np.testing.assert_allclose(waveform, (values / limit).mean(axis=1), rtol=1e-12, atol=1e-15)
    assert rate == 11025


@pytest.mark.parametrize("describe", [fmt, extensible])
@pytest.mark.parametrize(("tag", "dtype"), [(1, "<i2"), (1, "<i4"), (3, "<f4"), (3, "<f8")])
def test_floats_and_the_extensible_format_are_read(describe, tag, dtype):
    values = np.array([[0.5, -0.25], [1.0, 0.0], [-1.0, 0.125]])
    if tag == 1:
        values = values * 2.0 ** (8 * np.dtype(dtype).itemsize - 1) - (values == 1)
    content = values.astype(dtype)
    about = describe(tag, 2, 48000, 8 * content.itemsize)
    waveform, _ = read(riff((b"LIST", b"odd"), (b"fmt ", about), (b"fact", b"\0" * 4), (b"data", content.tobytes())))
    np.testing.assert_allclose(waveform, [0.125, 0.5, -0.4375], atol=2e-5)


def test_24_bits_in_the_extensible_format_are_read():
    content = (np.array([1 << 22, -(1 << 22)]).astype("<i4").view(np.uint8).reshape(2, 4)[:, :3]).tobytes()
    waveform, _ = read(riff((b"fmt ", extensible(1, 1, 48000, 24)), (b"data", content)))
    assert waveform.tolist() == [0.5, -0.5]


def test_only_as_much_as_is_asked_for_is_read():
    content = written(np.arange(100, dtype="<i2").tobytes(), 2, 2)
    whole, _ = read(content)
    for first, end in ((0, 1), (0, 50), (7, 9), (49, 99), (-5, 3), (50, 60), (-9, -2)):
        np.testing.assert_array_equal(whole[max(first, 0) : max(end, 0)], read(content, first=first, end=end)[0])


@pytest.mark.parametrize("size", [0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_what_was_streamed_into_a_pipe_ends_with_its_file(size):
    content = riff((b"fmt ", fmt(1, 1, 8000, 16)), (b"data", np.arange(5, dtype="<i2").tobytes()))
    streamed = content[:-14] + size.to_bytes(4, "little") + content[-10:]
    assert len(read(streamed)[0]) == 5


GOOD = (b"fmt ", fmt(1, 1, 8000, 16))
ONE = (b"data", b"\0\1")
REFUSED = {
    b"": "does not begin",
    b"RIFF": "does not begin",
    b"ID3" + bytes(40): "does not begin",
    b"RIFX" + riff(GOOD, ONE)[4:]: "does not begin",
    riff(GOOD): "ends before its sound",
    riff(ONE, GOOD): "ends before its sound",
    riff(GOOD, (b"data", b"")): "holds no sound",
    riff(GOOD, (b"data", b"\0")): "holds no sound",
    riff(GOOD, (b"data", bytes(100)))[:-60]: "60 bytes are missing",
    riff((b"fmt ", bytes(10)), ONE): "format is cut short",
    riff((b"fmt ", fmt(2, 1, 8000, 4)), ONE): "holds ADPCM sound",
    riff((b"fmt ", fmt(6, 1, 8000, 8)), ONE): "holds A-law sound.*ffmpeg",
    riff((b"fmt ", fmt(77, 1, 8000, 8)), ONE): "holds format 77 sound",
    riff((b"fmt ", fmt(1, 1, 8000, 12)), ONE): "holds 12-bit sound",
    riff((b"fmt ", fmt(3, 1, 8000, 16)), ONE): "holds 16-bit sound",
    riff((b"fmt ", fmt(1, 0, 8000, 16)), ONE): "claims 0 channels",
    riff((b"fmt ", fmt(1, 1, 0, 16)), ONE): "at 0 Hz",
    riff((b"fmt ", fmt(1, 1, 1 << 31, 16)), ONE): "at 2,147,483,648 Hz",
    riff((b"fmt ", fmt(3, 1, 8000, 32)), (b"data", np.float32([np.nan]).tobytes())): "NaN",
    riff((b"fmt ", fmt(3, 1, 8000, 32)), (b"data", np.float32([np.inf]).tobytes())): "NaN, or floats far outside",
    riff((b"fmt ", fmt(3, 1, 8000, 64)), (b"data", np.float64([1e300]).tobytes())): "far outside",
}


@pytest.mark.parametrize("number", range(len(REFUSED)))
def test_files_that_are_not_sound_are_refused_with_the_reason(number):
    content, words = list(REFUSED.items())[number]
    with pytest.raises(BrokenFileError, match=rf"^x\.wav .*{words}"):
        read(content)


VALID = [
    written(np.arange(-20, 20, dtype="<i2").tobytes(), 1, 2),
    written(bytes(range(36)), 2, 3),
    riff(
        (b"LIST", b"abc"),
        (b"fmt ", extensible(3, 1, 16000, 32)),
        (b"data", np.linspace(-1, 1, 9, dtype="<f4").tobytes()),
    ),
]


@settings(max_examples=400, deadline=None)
@given(
    valid=st.sampled_from(VALID),
    changes=st.lists(st.tuples(st.integers(0, 120), st.integers(0, 255)), max_size=8),
    keep=st.integers(0, 200),
    more=st.binary(max_size=20),
)
def test_a_damaged_file_is_sound_or_refused_and_nothing_else(valid, changes, keep, more):
    content = bytearray(valid)
    for place, value in changes:
        content[place % len(content)] = value
    try:
        waveform, rate = read(bytes(content[:keep]) + more)
    except BrokenFileError:
        return  # whatever else is raised fails the test
    assert waveform.ndim == 1
    assert len(waveform) > 0
    assert np.abs(waveform).max() <= wav.LOUDEST
    assert wav.RATES[0] <= rate <= wav.RATES[1]


@settings(max_examples=200, deadline=None)
@given(content=st.binary(max_size=100))
def test_arbitrary_chunks_are_refused(content):
    with pytest.raises(BrokenFileError):
        read(b"RIFF\x64\0\0\0WAVE" + content)
