# SPDX-License-Identifier: Apache-2.0
"""Detectors of change against river's on the same streams, and against streams whose change is known."""

import json

import numpy as np
import pytest

import edgelearn as el
from edgelearn.learning.drift import Adwin, PageHinkley

STREAMS = {
    "step": lambda r: np.r_[r.random(1000) < 0.2, r.random(1000) < 0.5, r.random(800) < 0.1].astype(float),
    "values": lambda r: np.r_[r.normal(0, 1, 1500), r.normal(1, 1, 1500)],
    "ramp": lambda r: r.random(3000) * np.linspace(0.2, 1, 3000),
    "stationary": lambda r: (r.random(4000) < 0.15).astype(float),
    "constant": lambda r: np.full(500, 0.25),
    "spike": lambda r: np.r_[r.random(600), 50.0, r.random(600)],
}


def alarms(make, stream):
    """Places where a detector that begins anew after each alarm alarms, and the means of its window on the way."""
    detector, places, means = make(), [], []
    for i, value in enumerate(stream):
        if detector.update(value):
            places.append(i)
            detector = make()
        means.append(detector.mean)
    return places, means


def alarms_of_river(detector, stream):
    places = []
    for i, value in enumerate(stream):
        detector.update(value)
        if detector.drift_detected:
            places.append(i)
    return places


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("delta", [0.002, 0.05])
def test_adwin_alarms_where_river_does(name, delta):
    drift = pytest.importorskip("river.drift")
    for seed in range(3):
        stream = STREAMS[name](np.random.default_rng(seed))
        expected = alarms_of_river(drift.ADWIN(delta=delta), stream)
        assert alarms(lambda: Adwin(delta), stream)[0] == expected
        assert expected or name not in ("step", "values", "ramp")


@pytest.mark.parametrize("name", STREAMS)
@pytest.mark.parametrize("settings", [{}, {"threshold": 20.0}, {"threshold": 5.0, "delta": 0.1, "alpha": 0.99}])
def test_page_hinkley_alarms_where_river_does(name, settings):
    drift = pytest.importorskip("river.drift")
    for seed in range(3):
        stream = STREAMS[name](np.random.default_rng(seed))
        expected = alarms_of_river(drift.PageHinkley(**settings), stream)
        assert alarms(lambda: PageHinkley(**settings), stream)[0] == expected
        assert expected or name not in ("step", "values") or settings.get("alpha")


def test_the_window_of_adwin_is_that_of_river():
    drift = pytest.importorskip("river.drift")
    theirs, ours = drift.ADWIN(), Adwin()
    for value in STREAMS["ramp"](np.random.default_rng(0))[:700]:
        theirs.update(value)
        ours.update(value)
        assert ours.width == theirs.width
        assert ours.mean == pytest.approx(theirs.estimation, abs=1e-9)


def test_the_window_forgets_what_was_before_the_change():
    detector, stream = Adwin(), STREAMS["step"](np.random.default_rng(1))
    changed = [i for i, value in enumerate(stream[:2000]) if detector.update(value)]
    assert 1000 < changed[0] < 1150
    assert detector.increased
    assert detector.width < 1010
    assert detector.mean == pytest.approx(0.5, abs=0.05)
    assert sum(map(len, detector.rows)) <= 6 * 12, "buckets, not values"


@pytest.mark.parametrize("make", [Adwin, lambda: PageHinkley(threshold=20.0)])
@pytest.mark.parametrize(("low", "high"), [(0.1, 0.9), (0.9, 0.1)])
def test_the_direction_of_a_change_is_known(make, low, high):
    detector = make()
    seen = [detector.increased for value in np.repeat([low, high], 500) if detector.update(float(value))]
    assert seen
    assert all(increased is (high > low) for increased in seen)


@pytest.mark.parametrize("make", [Adwin, lambda: PageHinkley(threshold=20.0)])
def test_a_detector_goes_through_json(make):
    stream = STREAMS["step"](np.random.default_rng(2))
    detector, whole = make(), make()
    for value in stream[:700]:
        assert detector.update(value) == whole.update(value)
    detector = type(detector).from_json(json.loads(json.dumps(detector.to_json())))
    assert [detector.update(v) for v in stream[700:]] == [whole.update(v) for v in stream[700:]]


@pytest.mark.parametrize("delta", [0, 1, -0.1, float("nan")])
def test_a_chance_that_is_none_is_refused(delta):
    with pytest.raises(el.UsageError, match="delta must be a chance"):
        Adwin(delta)


@pytest.mark.parametrize("settings", [{"threshold": 0}, {"alpha": 0}, {"alpha": 1.1}])
def test_settings_that_cannot_be_meant_are_refused(settings):
    with pytest.raises(el.UsageError, match="try 50 and 0.9999"):
        PageHinkley(**settings)
