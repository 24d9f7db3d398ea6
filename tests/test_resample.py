# SPDX-License-Identifier: Apache-2.0
"""Waveforms at another rate: against sines, in any part, at any ratio."""

from __future__ import annotations

import math

import numpy as np
import pytest
from files import tone
from hypothesis import given, settings
from hypothesis import strategies as st

from edgelearn.inputs import resample

RATES = [(44100, 8000), (48000, 16000), (16000, 8000), (8000, 16000), (11025, 16000), (44100, 16000), (22050, 8000)]


def middle(values, rate):
    """The half in the middle: at both ends a filter also sees the silence outside."""
    return values[rate // 4 : 3 * rate // 4]


@pytest.mark.parametrize(("of", "to"), RATES)
@pytest.mark.parametrize("share", [0.05, 0.5, 0.94])
def test_a_sine_below_the_lower_nyquist_frequency_stays_that_sine(of, to, share):
    hertz = share * min(of, to) / 2
    result = resample.resample(tone(hertz, of, 1, 1, phase=0.3), of, to, 0, to)
    assert np.abs(middle(result - tone(hertz, to, 1, 1, phase=0.3), to)).max() < 2e-4


@pytest.mark.parametrize(("of", "to"), [pair for pair in RATES if pair[0] > pair[1]])
@pytest.mark.parametrize("share", [1.0, 1.1, 1.5, 1.95])
def test_a_sine_above_the_new_nyquist_frequency_is_gone(of, to, share):
    result = resample.resample(tone(share * to / 2, of, 1, 1, phase=0.3), of, to, 0, to)
    assert 20 * math.log10(np.abs(middle(result, to)).max()) < -resample.REJECTION


@pytest.mark.parametrize(("of", "to"), [pair for pair in RATES if pair[0] < pair[1]])
def test_a_higher_rate_adds_no_images(of, to):
    spectrum = np.abs(
        np.fft.rfft(middle(resample.resample(tone(0.4 * of, of, 1, 1), of, to, 0, to), to) * np.hanning(to // 2))
    )
    above = spectrum[int(len(spectrum) * of / to * 1.05) :]
    assert 20 * math.log10(above.max() / spectrum.max()) < -resample.REJECTION


@settings(max_examples=60, deadline=None)
@given(of=st.integers(1000, 200_000), to=st.integers(1000, 200_000))
def test_a_ratio_is_small_and_nearly_exact(of, to):
    up, down = resample.ratio(of, to)
    assert 1 <= min(up, down) <= max(up, down) <= resample.LONGEST
    assert abs(up / down * of / to - 1) < 1 / resample.LONGEST
    if max(of, to) // math.gcd(of, to) <= resample.LONGEST:
        assert up * of == down * to


@settings(max_examples=40, deadline=None)
@given(
    pair=st.sampled_from([*RATES, (8000, 8000), (8000, 8001)]),
    start=st.integers(-900, 900),
    count=st.integers(1, 900),
    length=st.integers(1, 3000),
    seed=st.integers(0, 9),
)
def test_any_part_of_a_recording_gives_the_same_samples_as_the_whole(pair, start, count, length, seed):
    waveform = np.random.default_rng(seed).normal(size=length)
    first, end = (max(place, 0) for place in resample.span(*pair, start, count))
    found = resample.resample(waveform[first:end], *pair, start, count, first)
    np.testing.assert_array_equal(found, resample.resample(waveform, *pair, start, count))
    whole = resample.resample(waveform, *pair, -900, 2700)
    np.testing.assert_allclose(found, whole[900 + start : 900 + start + count], atol=1e-12)
