# SPDX-License-Identifier: Apache-2.0
"""Shape, layout and scaling of samples: what is declared, what comes from the data, what is refused."""

from __future__ import annotations

import json
import os
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgelearn import definition
from edgelearn.errors import DataError, ModelError
from edgelearn.inputs import data, frontend
from edgelearn.inputs.frontend import Input

REAL = Path(os.environ.get("EDGELEARN_DATA", Path(__file__).parents[2] / "shared" / "data"))


def samples(x, **arrays):
    return SimpleNamespace(x_train=np.asarray(x), arrays=arrays, front=None)


def scaled(section, x):
    """What the net sees: RESCALE as edgelearn.h has it, value i of a sample with pair i mod k."""
    weight, bias = section.pairs()
    flat = section.prepare(x).astype(np.float64)
    return (flat.reshape(-1, len(weight)) * weight + bias).reshape(len(flat), -1)


def test_an_empty_section_takes_everything_from_the_data():
    section = Input().resolve(samples(np.zeros((3, 5, 2), np.float32)))
    assert Input(shape=(5, 2), scale=1.0) == section
    assert section.pairs() is None


@pytest.mark.parametrize(("dtype", "scale"), [("u1", 255.0), ("i1", 1.0), ("i2", 1.0), ("f4", 1.0), ("f8", 1.0)])
def test_only_uint8_samples_are_scaled_unasked(dtype, scale):
    assert scale == Input().resolve(samples(np.ones((2, 3), dtype))).scale


def test_a_declared_scale_wins_over_the_type_of_the_data():
    section = Input(scale=16).resolve(samples(np.ones((2, 3), np.uint8)))
    weight, bias = section.pairs()
    assert (weight.tolist(), bias.tolist()) == ([1 / 16], [0])
    assert weight.dtype == bias.dtype == np.float32


@pytest.mark.parametrize("scale", ["scale", (1.0, 2.0, 4.0)])
def test_a_scale_per_channel_follows_the_channels_through_both_layouts(scale):
    x = np.arange(24.0).reshape(2, 3, 4)
    expected = np.moveaxis(x / np.array([1, 2, 4])[:, None], 1, -1).reshape(2, -1)
    first = Input(layout="channels_first", scale=scale).resolve(samples(x, scale=np.array([1, 2, 4])))
    assert first.net_shape == (4, 3)
    np.testing.assert_allclose(scaled(first, x), expected, rtol=1e-6)
    swapped = np.moveaxis(x, 1, -1)
    last = Input(scale=scale).resolve(samples(swapped, scale=np.array([1, 2, 4])))
    np.testing.assert_allclose(scaled(last, swapped), expected, rtol=1e-6)


@pytest.mark.parametrize("standardise", [False, True])
def test_a_scale_per_value_is_in_the_order_of_the_data(standardise):
    x = np.random.default_rng(0).normal(size=(50, 3, 4))
    scale = np.arange(1.0, 13.0).reshape(3, 4)
    section = Input(layout="channels_first", scale="s", standardise=standardise).resolve(samples(x, s=scale))
    expected = np.moveaxis(x / scale, 1, -1)
    if standardise:
        expected = (expected - expected.mean((0, 1))) / expected.std((0, 1))
    np.testing.assert_allclose(scaled(section, x), expected.reshape(50, -1), atol=1e-5)


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 99),
    shape=st.sampled_from([(7,), (5, 3), (4, 4, 2)]),
    layout=st.sampled_from(frontend.LAYOUTS),
    offset=st.sampled_from([0.0, 3.0, -1e4]),
    chunk=st.sampled_from([1, 30, 1 << 18]),
)
def test_standardised_channels_have_mean_0_and_std_1_however_many_chunks_it_takes(seed, shape, layout, offset, chunk):
    x = np.random.default_rng(seed).normal(offset, 2.0, (40, *shape))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(frontend, "CHUNK", chunk)
        section = Input(layout=layout, scale=2.0, standardise=True).resolve(samples(x))
    ordered = np.moveaxis(x.astype(np.float32), 1, -1) if layout == "channels_first" else x.astype(np.float32)
    channels = ordered.reshape(-1, ordered.shape[-1]).astype(np.float64) / 2
    np.testing.assert_allclose(section.mean, channels.mean(0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(section.std, channels.std(0), rtol=1e-6)


def test_constant_features_stay_finite():
    x = np.random.default_rng(0).normal(size=(30, 2))
    x[:, 1] = 0.1
    section = Input(standardise=True).resolve(samples(x))
    assert section.std[1] == 1.0
    np.testing.assert_allclose(scaled(section, x)[:, 1], 0, atol=1e-7)


def test_standardising_does_not_turn_a_big_uint8_set_into_floats():
    x = np.random.default_rng(0).integers(0, 255, (20_000, 400), np.uint8)
    tracemalloc.start()
    Input(standardise=True).resolve(samples(x))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * x.nbytes


def test_resolving_again_changes_nothing():
    rng = np.random.default_rng(0)
    section = Input(standardise=True).resolve(samples(rng.normal(size=(9, 3))))
    assert section == section.resolve(samples(rng.normal(size=(9, 3)) + 5))


def test_a_resolved_section_survives_json():
    x = np.random.default_rng(0).normal(size=(9, 3, 2))
    section = Input(scale="s", standardise=True).resolve(samples(x, s=np.array([2.0, 3.0], np.float32)))
    assert section == Input.from_config(json.loads(json.dumps(section.to_config())))


def test_a_missing_channel_axis_is_added_where_the_declared_shape_has_one():
    x = np.arange(2 * 3 * 4, dtype=np.uint8).reshape(2, 3, 4)
    for section in (Input(shape=(3, 4, 1)), Input(shape=(1, 3, 4), layout="channels_first")):
        assert section.resolve(samples(x)).net_shape == (3, 4, 1)
        np.testing.assert_array_equal(x.reshape(2, 12), section.prepare(x))


def test_samples_may_come_flat():
    x = np.arange(24.0).reshape(2, 3, 4)
    section = Input(shape=(3, 4), layout="channels_first")
    np.testing.assert_array_equal(section.prepare(x), section.prepare(x.reshape(2, 12)))


@pytest.mark.parametrize("dtype", ["f2", "f4", ">f4", "f8", "i1", "i8", "?", "u2"])
def test_other_types_become_float32_in_c_order(dtype):
    x = np.asfortranarray(np.ones((3, 4), dtype))
    ready = Input(shape=(4,)).prepare(x)
    assert ready.dtype == np.float32
    assert ready.flags.c_contiguous
    assert ready.tolist() == [[1.0] * 4] * 3


def test_uint8_samples_are_passed_on_without_a_copy():
    x = np.ones((3, 2, 2), np.uint8)
    ready = Input(shape=(2, 2)).prepare(x)
    assert ready.dtype == np.uint8
    assert np.shares_memory(x, ready)


@pytest.mark.parametrize(
    ("x", "words"),
    [
        (np.zeros((2, 5)), r"expected samples of shape \(n, 2, 2\), got \(2, 5\)"),
        (np.zeros((2, 2)), r"got \(2, 2\): pass a single sample as x\[None\]"),
        (np.zeros(4), r"pass a single sample as x\[None\]"),
        (np.float32(1), r"got \(\)"),
        (np.zeros((0, 2, 2)), "no samples"),
        ([[1, 2], [3]], "give all of them one shape"),
        (np.zeros((2, 4), complex), "hold complex128"),
        (np.array([["a"] * 4]), "hold <U1"),
        (np.array([[{}] * 4], object), "hold object"),
        (np.zeros((2, 4), "M8[s]"), "hold datetime64"),
    ],
)
def test_samples_of_another_shape_or_kind_are_refused(x, words):
    with pytest.raises(DataError, match=words):
        Input(shape=(2, 2)).prepare(x)


@pytest.mark.parametrize(
    ("section", "x", "words"),
    [
        (Input(shape=(5,)), np.zeros((2, 4)), r"expected samples of shape \(n, 5\), got \(2, 4\)"),
        (Input(), np.zeros(4), r"nothing to learn in samples of shape \(4,\)"),
        (Input(), np.zeros((0, 4)), "nothing to learn"),
        (Input(scale="gain"), np.zeros((2, 4)), "'gain', which the data lacks: it has bad, text"),
        (Input(scale="bad"), np.zeros((2, 2)), "must hold positive numbers"),
        (Input(scale="text"), np.zeros((2, 1)), "must hold positive numbers"),
        (Input(scale=(1.0, 2.0, 3.0)), np.zeros((2, 4)), "has 3 numbers: give 1, 4"),
        (Input(standardise=True), np.array([[1.0], [np.nan]]), "sample 1 of the training set"),
    ],
)
def test_a_section_that_does_not_fit_the_data_is_refused(section, x, words):
    with pytest.raises(DataError, match=words):
        section.resolve(samples(x, bad=np.array([1.0, 0.0]), text=np.array(["1"])))


def test_factors_beyond_float32_are_refused():
    with pytest.raises(DataError, match="beyond float32"):
        Input(shape=(2,), scale=1e-300).pairs()


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"shap": [2]}, "no key 'shap': it takes shape, layout"),
        ({"shape": []}, "shape must be"),
        ({"shape": 4}, "shape must be"),
        ({"shape": "4"}, "shape must be"),
        ({"shape": [0]}, "shape must be"),
        ({"shape": [2.5]}, "shape must be"),
        ({"shape": [True]}, "shape must be"),
        ({"layout": "NCHW"}, "unknown .* layout 'NCHW'"),
        ({"layout": ["x"]}, "unknown .* layout"),
        ({"scale": 0}, "scale must be"),
        ({"scale": True}, "scale must be"),
        ({"scale": []}, "scale must be"),
        ({"scale": [1, "a"]}, "scale must be"),
        ({"scale": [1, float("nan")]}, "scale must be"),
        ({"scale": {}}, "scale must be"),
        ({"standardise": 1}, "standardise must be"),
        ({"shape": [2], "mean": [1.0]}, "mean and std"),
        ({"shape": [2], "mean": [1.0, 2.0, 3.0], "std": [1.0, 2.0, 3.0]}, "mean and std"),
        ({"shape": [2], "mean": [1.0], "std": [0.0]}, "mean and std"),
        ({"mean": [1.0], "std": [1.0]}, "shape is not known"),
    ],
)
def test_a_section_that_cannot_be_meant_is_refused(config, words):
    with pytest.raises(ModelError, match=words):
        Input.from_config(config)


@pytest.mark.parametrize("section", [Input(shape=(2,)), Input(shape=(2,), scale="s")])
def test_pairs_of_an_unresolved_section_are_refused(section):
    with pytest.raises(ModelError, match="call resolve"):
        section.pairs()


def test_pairs_without_statistics_are_refused():
    with pytest.raises(ModelError, match="call resolve"):
        Input(shape=(2,), scale=1.0, standardise=True).pairs()


def test_a_section_without_shape_cannot_prepare():
    with pytest.raises(ModelError, match="shape is not known"):
        Input().prepare(np.zeros((1, 2)))


def test_a_definition_knows_the_keys_that_a_section_declares():
    """mean and std are found by resolve, never declared."""
    known = [name for name in Input.__dataclass_fields__ if name not in ("mean", "std")]
    assert known == list(definition.INPUT_KEYS)


@pytest.mark.skipif(not REAL.is_dir(), reason="set EDGELEARN_DATA to the folder of the real data sets")
def test_real_sensor_windows_are_standardised_per_channel():
    har = data.load(REAL / "har_hapt.npz")
    section = Input(layout="channels_first", scale="scale", standardise=True).resolve(har)
    seen = scaled(section, har.x_train).reshape(-1, 9)
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(seen.std(0), 1, atol=1e-5)
