# SPDX-License-Identifier: Apache-2.0
"""Data from .npz files and by name, and every way in which it can be unfit for learning."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import numpy as np
import pytest
from archives import arrays, saved
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgelearn.errors import DataError
from edgelearn.inputs import data

REAL = Path(os.environ.get("EDGELEARN_DATA", Path(__file__).parents[2] / "shared" / "data"))


def test_an_npz_gives_its_four_arrays_and_what_else_it_holds(tmp_path):
    loaded = data.load(saved(tmp_path, scale=np.array([2.0, 3.0])))
    np.testing.assert_array_equal(arrays()["x_train"], loaded.x_train)
    np.testing.assert_array_equal([2, 1, 0], loaded.y_test)
    assert loaded.y_train.dtype == np.int32
    assert (loaded.classes, loaded.task, loaded.outputs) == (None, "classification", 3)
    assert list(loaded.arrays) == ["scale"]


def test_uint8_images_stay_uint8(tmp_path):
    x = np.full((6, 2, 2), 200, np.uint8)
    loaded = data.load(saved(tmp_path, x_train=x, x_test=x[:3]))
    assert loaded.x_train.dtype == np.uint8
    assert loaded.x_train.shape == (6, 2, 2)


def test_samples_of_one_number_get_an_axis(tmp_path):
    loaded = data.load(saved(tmp_path, x_train=np.arange(6.0), x_test=np.arange(3.0)))
    assert (loaded.x_train.shape, loaded.x_test.shape) == ((6, 1), (3, 1))


def test_a_file_of_another_kind_is_no_archive(tmp_path):
    (tmp_path / "table.csv").write_text("1,2,3\n" * 9)
    with pytest.raises(DataError, match=r"table\.csv \(it is no \.npz archive\)"):
        data.load(tmp_path / "table.csv")


@pytest.mark.parametrize("width", [(), (1,), (2,)])
def test_float_targets_are_regression(tmp_path, width):
    y = np.linspace(0, 1, 6 * int(np.prod(width))).reshape(6, *width)
    loaded = data.load(saved(tmp_path, y_train=y, y_test=y[:3]))
    columns = width[0] if width else 1
    assert ("regression", columns, None) == (loaded.task, loaded.outputs, loaded.classes)
    assert ((6, columns), np.float32) == (loaded.y_train.shape, loaded.y_train.dtype)


NAN = np.array([[0, 0, 0, 0]] * 4 + [[0, np.nan, 0, 0], [np.inf] * 4], np.float32)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"x_train": NAN}, "sample 4 of x_train"),
        ({"x_test": NAN[3:]}, "sample 1 of x_test"),
        ({"x_train": np.full((6, 4), 1e300)}, "sample 0 of x_train"),
        ({"x_train": np.zeros((0, 4)), "y_train": np.zeros(0, int)}, "x_train .* is empty"),
        ({"x_test": np.zeros((0, 4)), "y_test": np.zeros(0, int)}, "x_test .* is empty"),
        ({"x_train": np.zeros((6, 0))}, "is empty"),
        ({"x_train": np.float32(1)}, "is empty"),
        ({"x_train": np.array(["a"] * 6)}, "holds <U1, not numbers"),
        ({"x_train": np.zeros((6, 4), complex)}, "holds complex128"),
        ({"y_train": np.array([0, 1])}, "6 x_train but 2 y_train"),
        ({"y_test": np.int64(1)}, "3 x_test but 1 y_test"),
        ({"x_test": np.zeros((3, 5))}, "give both one shape"),
        ({"y_train": np.zeros(6, int)}, "all labels"),
        ({"y_test": np.array([0, 1, 3])}, "label 3 in y_test"),
        ({"y_train": np.eye(6, dtype=int)}, "not one-hot"),
        ({"y_train": np.zeros(6, complex)}, "holds complex128"),
        ({"y_test": np.array([0.0, 1.0, 2.0])}, "floats in both"),
        ({"y_test": np.array(["a", "b", "c"])}, "mixes text and numbers"),
        ({"label_names": np.array(["a", "b"])}, "label 2 in y_train .* not among its 2 names"),
        ({"label_names": np.array(["a", "b", "a"])}, "plain list of different names"),
        ({"label_names": np.array([["a", "b", "c"]])}, "plain list of different names"),
        ({"y_train": np.array([0, np.nan, 1, 1, 1, 1]), "y_test": np.zeros(3)}, "sample 1 of y_train"),
        ({"y_train": np.zeros((6, 2)), "y_test": np.zeros((3, 1))}, "2 targets per sample"),
        ({"y_train": np.zeros((6, 2, 2))}, "one row of floats"),
        ({"y_train": np.zeros(6), "y_test": np.array(["a", "b", "c"])}, "one row of floats"),
    ],
)
def test_data_that_cannot_be_learned_is_refused_by_name(tmp_path, changes, words):
    with pytest.raises(DataError, match=words):
        data.load(saved(tmp_path, **changes))


def test_a_late_nan_in_a_set_of_many_chunks_is_found(tmp_path):
    x = np.zeros((9, 100_000), np.float32)
    x[7, -1] = np.nan
    with pytest.raises(DataError, match="sample 7 of x_train"):
        data.load(saved(tmp_path, x_train=x, y_train=np.arange(9) % 3, x_test=x[:3]))


def test_a_missing_array_is_named(tmp_path):
    path = tmp_path / "set.npz"
    np.savez(path, x_train=np.zeros((2, 2)), y_train=np.zeros(2))
    with pytest.raises(DataError, match="no array x_test, y_test"):
        data.load(path)


def test_pickled_arrays_are_refused(tmp_path):
    path = saved(tmp_path, x_train=np.array([{}, 1, 2, 3, 4, 5], object))
    with pytest.raises(DataError, match="plain arrays"):
        data.load(path)


def test_a_single_array_is_not_a_set(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros(3))
    with pytest.raises(DataError, match="single array"):
        data.load(tmp_path / "x.npy")


@pytest.mark.parametrize("name", ["nothing.npz", "no/such/folder", "mnist"])
def test_what_does_not_exist_is_refused_with_the_known_names(name):
    with pytest.raises(DataError, match="digits"):
        data.load(name)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut=st.floats(0, 0.999))
def test_a_truncated_archive_is_refused(tmp_path, cut):
    content = saved(tmp_path).read_bytes()
    broken = tmp_path / "cut.npz"
    broken.write_bytes(content[: int(cut * len(content))])
    with pytest.raises(DataError, match=r"cut\.npz"):
        data.load(broken)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(tmp_path, content):
    path = tmp_path / "noise.npz"
    path.write_bytes(content)
    with pytest.raises(DataError):
        data.load(path)


def test_digits_hold_out_every_fourth_sample():
    datasets = pytest.importorskip("sklearn.datasets")
    x, y = datasets.load_digits(return_X_y=True)
    loaded = data.load("digits")
    np.testing.assert_array_equal(x[3::4], loaded.x_test)
    np.testing.assert_array_equal(y[3::4], loaded.y_test)
    assert loaded.x_train.shape == (1348, 64)
    assert loaded.x_train.dtype == np.float32


def test_digits_without_scikit_learn_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(DataError, match=r"pip install 'edgelearn\[sklearn\]'"):
        data.load("digits")


@pytest.mark.skipif(not REAL.is_dir(), reason="set EDGELEARN_DATA to the folder of the real data sets")
@pytest.mark.parametrize(
    ("name", "shape", "outputs"),
    [
        ("fashion_mnist", (60000, 28, 28), 10),
        ("har_hapt", (7415, 9, 128), 6),
        ("magic_wand", (800, 64, 2), 10),
    ],
)
def test_real_sets_load_as_they_are(name, shape, outputs):
    loaded = data.load(REAL / f"{name}.npz")
    assert (shape, outputs) == (loaded.x_train.shape, loaded.outputs)
