# SPDX-License-Identifier: Apache-2.0
"""[input.sound]: log-mel against plain Fourier sums, one row for one recording everywhere."""

from __future__ import annotations

import io
import json
import math

import numpy as np
import pytest
from files import tone, tone_folder, write_wav

from edgelearn.errors import BrokenFileError, DataError, ModelError
from edgelearn.inputs import data, logmel
from edgelearn.inputs.frontend import Input
from edgelearn.inputs.sounds import Sound


def reference(waveform, rate, window, hop, bands, low, high):
    """The same features by sums over every sample and bin, as textbooks write them."""
    size = 1
    while size < window:
        size *= 2
    mel = lambda hertz: 2595 * math.log10(1 + hertz / 700)  # noqa: E731
    edges = [mel(low) + i * (mel(high) - mel(low)) / (bands + 1) for i in range(bands + 2)]
    hann = [math.sin(math.pi * n / window) ** 2 for n in range(window)]
    rows = []
    for start in range(0, len(waveform) - window + 1, hop):
        part = np.array(hann) * waveform[start : start + window]
        row = [0.0] * bands
        for k in range(size // 2 + 1):
            power = abs(np.sum(part * np.exp(-2j * np.pi * k * np.arange(window) / size))) ** 2
            place = mel(k * rate / size)
            for b in range(bands):
                left, centre, right = edges[b : b + 3]
                weight = min((place - left) / (centre - left), (right - place) / (right - centre))
                row[b] += max(weight, 0) * power * window / size / (sum(hann) / 2) ** 2
        rows.append([min(max((10 * math.log10(e + 1e-30) + 96) / 90 * 255, 0), 255) for e in row])
    return np.array(rows)


@pytest.mark.parametrize(("window_ms", "bands"), [(32, 40), (25, 12)])
def test_features_are_those_of_the_textbook_to_half_a_step(window_ms, bands):
    waveform = np.random.default_rng(0).normal(0, 0.05, 800) + tone(440, seconds=0.1)
    sound = Sound(rate=8000, seconds=0.1, window_ms=window_ms, hop_ms=20, bands=bands, high_hz=3900)
    found = sound.features(waveform)
    expected = reference(waveform, 8000, 8 * window_ms, 160, bands, 60, 3900)
    assert found.shape == expected.shape == sound.shape
    assert found.dtype == np.uint8
    assert np.abs(found - expected).max() <= 0.5 + 1e-6


def test_one_second_at_8_khz_gives_49_frames_of_40_bands():
    sound = Sound(rate=8000, seconds=1.0)
    assert sound.shape == (49, 40)
    assert Input(sound=sound).net_shape == (49, 40)


def test_silence_is_0_and_a_loud_tone_255_in_its_own_band():
    sound = Sound(rate=16000, seconds=0.5)
    assert not sound.features(np.zeros(10)).any()
    bands = sound.features(tone(1000, 16000, amplitude=0.9)).max(axis=0)
    centres = 700 * (10 ** (np.linspace(*(2595 * np.log10(1 + np.array([60, 7600]) / 700)), 42)[1:-1] / 2595) - 1)
    assert bands.max() == 255
    assert abs(centres[bands == 255] - 1000).max() < 150
    assert bands[centres > 2000].max() == 0


@pytest.mark.parametrize("rate", [8000, 16000, 44100])
def test_a_level_means_the_same_at_every_rate(rate):
    sound = Sound(rate=rate, seconds=0.5, high_hz=3800)
    level = sound.features(tone(900, rate, amplitude=0.1))[2:-2].max(axis=1).astype(float)
    assert np.abs(level - (96 - 20) / 90 * 255).max() <= 7, "a tone of -20 dB, between two bands up to 2.5 dB less"


def test_short_sound_lies_in_the_middle_of_silence_and_of_long_sound_the_middle_counts():
    sound = Sound(rate=8000, seconds=0.5)
    long = np.random.default_rng(0).normal(0, 0.1, 8000)
    np.testing.assert_array_equal(sound.features(long), sound.features(long[2000:6000]))
    short = sound.features(long[2000:3600])  # between samples 1200 and 2800 of 4000
    frames = np.flatnonzero(short.any(axis=1))
    assert (frames[0], frames[-1]) == (6, 17)
    np.testing.assert_array_equal(short, sound.features(np.pad(long[2000:3600], 1200)))


@pytest.mark.parametrize("rate", [8000, 11025, 44100])
def test_only_the_middle_of_a_long_file_is_read_and_gives_what_the_whole_gives(tmp_path, rate):
    sound = Sound(rate=8000, seconds=0.3)
    waveform = np.random.default_rng(0).integers(-9000, 9000, 2 * rate).astype(np.int16)
    content = write_wav(tmp_path / "x.wav", waveform, rate).read_bytes()
    whole = sound.features(waveform, rate)
    damaged = bytearray(content)
    damaged[44 : 44 + rate] = bytes(rate)  # the first quarter
    for stream in (content, bytes(damaged)):
        np.testing.assert_array_equal(sound.read(io.BytesIO(stream), "x.wav"), whole)


@pytest.fixture
def folder(tmp_path):
    return tone_folder(tmp_path / "data", {"low": 300, "high": 1500}, count=5, rate=11025)


@pytest.mark.parametrize("section", [{}, {"sound": {"rate": 8000}}, {"sound": {"seconds": 0.25, "bands": 20}}])
def test_one_recording_is_one_row_in_training_from_a_file_a_stream_a_microphone_and_a_saved_model(folder, section):
    loaded = data.load(folder, Input.from_config(section))
    trained = Input.from_config(section).resolve(loaded)
    saved = Input.from_config(json.loads(json.dumps(trained.to_config())))
    assert saved == trained
    path = folder / "high" / "00.wav"
    row = loaded.x_train[0]
    raw = np.frombuffer(path.read_bytes()[44:], "<i2")
    for sample in (
        saved.read(path),
        saved.read(str(path)),
        saved.read(io.BytesIO(path.read_bytes())),
        saved.sample(raw, 11025),
        saved.sample(raw / 32768, 11025),
        saved.sample(np.stack([raw, raw], axis=1), 11025),
    ):
        assert sample.dtype == np.uint8
        np.testing.assert_array_equal(row, sample)
    np.testing.assert_array_equal(saved.prepare(loaded.x_train)[0], saved.prepare(saved.read(path)[None])[0])


def test_what_is_not_declared_comes_from_the_training_files(tmp_path):
    for split, seconds in (("train", (0.2, 0.4)), ("test", (0.9,))):
        for name in ("a", "b"):
            for i, length in enumerate(seconds):
                write_wav(tmp_path / split / name / f"{i}.wav", tone(500, 16000, length), 16000)
    front = data.load(tmp_path).front
    assert (front.rate, front.seconds) == (16000, 0.4)


def test_sounds_shorter_than_a_window_make_one_frame(tmp_path):
    for name in ("a", "b"):
        for i in range(5):
            write_wav(tmp_path / name / f"{i}.wav", np.ones(50) / 2)
    assert data.load(tmp_path).x_train.shape == (8, 1, 40)


def test_files_of_two_rates_are_refused_unless_one_is_declared(folder):
    odd = write_wav(folder / "low" / "03.wav", tone(300, 44100), 44100)
    with pytest.raises(DataError, match=r"low/03\.wav has 44100 Hz, .*high/00\.wav 11025 Hz: set rate in \[input"):
        data.load(folder)
    loaded = data.load(folder, Input(sound=Sound(rate=8000)))
    assert loaded.x_train.shape[1:] == loaded.front.shape
    trained = Input().resolve(loaded)
    np.testing.assert_array_equal(loaded.x_train[7], trained.read(odd))


@pytest.mark.parametrize(
    ("resampled", "rate", "words"),
    [
        ("down", 8000, None),
        ("down", 11025, None),
        ("down", 16000, 'upper bands would stay empty: .* resample = "any"'),
        ("any", 16000, None),
        ("never", 11025, None),
        ("never", 8000, r'has 11025 Hz, not 8000: convert it, or set resample = "down"'),
        ("never", 16000, "has 11025 Hz, not 16000"),
    ],
)
def test_sound_of_another_rate_is_brought_to_the_declared_one_only_as_allowed(folder, resampled, rate, words):
    section = Input(sound=Sound(rate=rate, seconds=0.4, resample=resampled))
    if words is None:
        assert data.load(folder, section).x_train[:, 3:10].max(axis=(1, 2)).min() > 100
        return
    with pytest.raises(DataError, match=words):
        data.load(folder, section)
    with pytest.raises(DataError, match=words):
        section.sample(tone(300, 11025), 11025)


def test_resampled_tones_have_the_features_of_tones_recorded_at_the_rate():
    sound = Sound(rate=8000, seconds=0.5)
    straight, resampled = (sound.features(tone(700, rate, 1.0), rate)[1:-1].astype(int) for rate in (8000, 44100))
    loud = straight > 60  # below, there is only what rounding leaves
    assert np.abs(straight - resampled)[loud].max() <= 1


def test_a_recording_of_minutes_wants_a_declared_length(folder):
    write_wav(folder / "low" / "00.wav", np.zeros(12 * 11025, np.int16), 11025)
    with pytest.raises(DataError, match=r"low/00\.wav is 12\.0 s long: set seconds"):
        data.load(folder)
    assert data.load(folder, Input(sound=Sound(seconds=0.3))).front.seconds == 0.3


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"rate": 500}, "rate must be"),
        ({"rate": 8000.0}, "rate must be"),
        ({"rate": True}, "rate must be"),
        ({"seconds": 0}, "seconds must be a positive number"),
        ({"seconds": float("inf")}, "seconds must be"),
        ({"rate": 8000, "seconds": 0.01}, "seconds must cover a window"),
        ({"rate": 8000, "seconds": 1e9}, "seconds must cover"),
        ({"resample": "up"}, "resample must be down, any or never"),
        ({"bands": 0}, "bands must be"),
        ({"bands": 2.0}, "bands must be"),
        ({"bands": 200, "rate": 8000}, "200 bands are narrower"),
        ({"window_ms": "32"}, "window_ms must be"),
        ({"window_ms": 1e6, "rate": 8000}, "cannot be cut"),
        ({"hop_ms": 0.01, "rate": 8000}, "cannot be cut"),
        ({"hop_ms": None}, "hop_ms must be"),
        ({"low_hz": -1}, "low_hz must be"),
        ({"low_hz": 4000, "rate": 8000}, "must rise"),
        ({"high_hz": 4001, "rate": 8000}, "stay within 0 and 4000"),
        ({"gain": 2}, r"\[input.sound\] has no key 'gain': it takes rate"),
    ],
)
def test_a_section_that_cannot_be_meant_is_refused(config, words):
    with pytest.raises(ModelError, match=words):
        Input.from_config({"sound": config})


@pytest.mark.parametrize(
    ("waveform", "words"),
    [
        (np.zeros((2, 2, 2)), "shape .2, 2, 2. given"),
        (np.zeros(0), "given: pass"),
        (np.zeros(9, np.uint8), "waveform of uint8"),
        (["a"], "given: pass"),
        ([0.0, np.nan], "NaN"),
        ([0.0, 1000.0], "scale it to full scale 1"),
    ],
)
def test_what_is_no_waveform_is_refused(waveform, words):
    with pytest.raises(DataError, match=words):
        Sound(rate=8000, seconds=0.1).features(waveform)


def test_an_unsettled_section_reads_nothing(folder):
    with pytest.raises(ModelError, match="rate and seconds"):
        Input(sound=Sound(rate=8000)).read(folder / "low" / "00.wav")


def test_a_missing_file_is_named():
    with pytest.raises(BrokenFileError, match=r"cannot read nowhere\.wav"):
        Input(sound=Sound(rate=8000, seconds=1)).read("nowhere.wav")


def test_a_declared_shape_that_the_sounds_do_not_have_is_refused_before_reading(folder):
    with pytest.raises(DataError, match=r"the net takes samples of shape \(28, 28\), sounds of .* have"):
        data.load(folder, Input(shape=(28, 28)))
    with pytest.raises(ModelError, match="is not that of sounds"):
        Input(shape=(28, 28), sound=Sound(rate=8000, seconds=1))


def test_a_declared_channel_axis_is_kept_for_two_dimensional_layers(folder):
    section = Input(shape=(49, 40, 1), sound=Sound(rate=8000, seconds=1))
    assert section.resolve(data.load(folder, section)).net_shape == (49, 40, 1)


def test_tables_of_a_transform_are_shared_and_cannot_be_written():
    for table in (logmel.triangles(8000, 256, 40, 60, 3800), logmel.hann(256)):
        with pytest.raises(ValueError, match="read-only"):
            table[0] = 1
