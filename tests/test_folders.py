# SPDX-License-Identifier: Apache-2.0
"""Class folders of any kind of file: what trains, what is held out, what is skipped, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from files import color_folder, tone_folder, write_picture, write_wav

from edgelearn.errors import BrokenFileError, DataError
from edgelearn.inputs import data, folders
from edgelearn.inputs.frontend import Input
from edgelearn.inputs.images import Image
from edgelearn.inputs.windows import Window

COLORS = {"red": (200, 20, 20), "green": (20, 200, 20)}


def windows(root, count=5, shape=(3, 8), **arrays):
    """Sensor windows (channels, time) of two classes, and arrays beside the class folders."""
    rng = np.random.default_rng(0)
    for name in ("rest", "walk"):
        (root / name).mkdir(parents=True)
        for i in range(count):
            np.save(root / name / f"{i}.npy", rng.integers(-100, 100, shape).astype(np.int8))
    for name, values in arrays.items():
        np.save(root / f"{name}.npy", values)
    return root


MAKERS = [
    lambda root: tone_folder(root, {"low": 300, "high": 1500}, count=11),
    lambda root: color_folder(root, COLORS, count=11),
    lambda root: windows(root, count=11),
]


@pytest.mark.parametrize("make", MAKERS)
def test_every_fifth_file_of_a_class_is_held_out_every_time(tmp_path, make):
    root = make(tmp_path)
    first, again, held = data.load(root), data.load(root), data.load(root, held_out=True)
    assert (first.y_train.tolist(), first.y_test.tolist()) == ([0] * 9 + [1] * 9, [0, 0, 1, 1])
    for name in ("x_train", "x_test"):
        np.testing.assert_array_equal(getattr(first, name), getattr(again, name))
    names = [first.classes[y] for y in first.y_test]
    for x, name, number in zip(first.x_test, names, (4, 9, 4, 9), strict=True):
        file = sorted((root / name).iterdir())[number]
        np.testing.assert_array_equal(x, Input().resolve(first).read(file))
    np.testing.assert_array_equal(held.x_test, first.x_test)
    assert (held.y_test.tolist(), held.classes) == (first.y_test.tolist(), first.classes)
    assert held.x_train.shape == (0, *first.x_train.shape[1:])


@pytest.mark.parametrize("make", MAKERS)
def test_train_and_test_folders_are_respected(tmp_path, make):
    make(tmp_path / "train")
    make(tmp_path / "test")
    loaded = data.load(tmp_path)
    assert (len(loaded.x_train), len(loaded.x_test)) == (22, 22)
    np.testing.assert_array_equal(loaded.x_train, loaded.x_test)


@pytest.mark.parametrize("half", ["train", "test"])
def test_half_a_split_is_refused_but_a_class_may_have_that_name(tmp_path, half):
    color_folder(tmp_path / "split" / half, COLORS, count=2)
    with pytest.raises(DataError, match=f"has {half}/ and no"):
        data.load(tmp_path / "split")
    loaded = data.load(color_folder(tmp_path / "vehicles", {half: (1, 2, 3), "car": (200, 0, 0)}, count=5))
    assert sorted(["car", half]) == loaded.classes


@pytest.fixture
def damaged(tmp_path):
    """Ten pictures per class: one cut, one of another kind, and one, held out, that is empty."""
    root = color_folder(tmp_path, COLORS)
    cut = root / "red" / "01.jpg"
    cut.write_bytes(cut.read_bytes()[:300])
    (root / "green" / "00.jpg").write_bytes(b"hello")
    (root / "green" / "04.jpg").write_bytes(b"")
    return root


def test_a_broken_file_is_named(damaged):
    with pytest.raises(BrokenFileError, match=r"green/00\.jpg"):
        data.load(damaged)


def test_broken_files_are_skipped_on_request_and_listed(damaged):
    loaded = data.load(damaged, skip_broken=True)
    assert (len(loaded.x_train), len(loaded.x_test)) == (14, 3)
    assert loaded.y_train.tolist() == [0] * 7 + [1] * 7
    assert loaded.y_test.tolist() == [0, 1, 1]
    reds = loaded.x_train[loaded.y_train == 1]
    assert (reds[..., 0].mean((1, 2)) > 150).all(), "samples and labels must not slip"
    assert [reason.split(" ")[0].rsplit("/", 2)[1:] for reason in loaded.skipped] == [
        ["green", "00.jpg"],
        ["red", "01.jpg"],
        ["green", "04.jpg"],
    ]


def test_skipping_does_not_excuse_a_class_without_any_file(damaged):
    for file in (damaged / "green").iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"no file of class 'green' to train on can be read: replace"):
        data.load(damaged, skip_broken=True)
    for file in (damaged / "red").iterdir():
        file.write_bytes(b"no picture")
    with pytest.raises(DataError, match="none of 16 images to train on can be read"):
        data.load(damaged, skip_broken=True)
    with pytest.raises(DataError, match="none of 4 images can be read"):
        data.load(damaged, Input(image=Image(size=(4, 4), color="rgb")), skip_broken=True)


def test_skipping_does_not_excuse_other_sizes_or_bad_numbers(tmp_path):
    write_picture(color_folder(tmp_path / "a", COLORS) / "red" / "03.jpg", np.zeros((3, 3), np.uint8))
    np.save(windows(tmp_path / "b") / "walk" / "1.npy", np.full((3, 8), np.nan))
    for root, words in ((tmp_path / "a", "3 x 3 pixels"), (tmp_path / "b", "NaN")):
        with pytest.raises(DataError, match=words):
            data.load(root, skip_broken=True)


def test_files_of_two_kinds_are_refused(tmp_path):
    color_folder(tmp_path, COLORS)
    write_wav(tmp_path / "red" / "10.wav", np.zeros(9))
    with pytest.raises(DataError, match=r"green/00\.jpg and .*red/10\.wav are of different kinds: keep images"):
        data.load(tmp_path)


def test_what_a_net_does_not_take_is_refused(tmp_path):
    color_folder(tmp_path, COLORS)
    with pytest.raises(DataError, match=r"the net takes sounds, not images: give it \.wav"):
        data.load(tmp_path, Input(sound={}))
    with pytest.raises(DataError, match="images are channels_last"):
        data.load(tmp_path, Input(layout="channels_first"))


def test_a_folder_within_a_class_is_named(tmp_path):
    color_folder(tmp_path, COLORS)
    (tmp_path / "red" / "more").mkdir()
    with pytest.raises(DataError, match="red has the folder more/ in it"):
        data.load(tmp_path)


def test_samples_beyond_memory_are_refused_before_they_are_read(tmp_path, monkeypatch):
    color_folder(tmp_path, COLORS)
    monkeypatch.setattr(folders.os, "sysconf", lambda name: 50)
    with pytest.raises(
        DataError, match=r"16 images of 12 x 16 .* more than this machine has: make the samples smaller"
    ):
        data.load(tmp_path)


def test_both_passes_are_told_how_far_they_are(tmp_path):
    said = []
    data.load(color_folder(tmp_path, COLORS), tick=lambda *args: said.append(args))
    assert said[:2] == [("looked at", 1, 16), ("looked at", 2, 16)]
    assert [args for args in said if args[1] == args[2]] == [("looked at", 16, 16), ("read", 4, 4), ("read", 16, 16)]


def test_sensor_windows_are_scaled_by_an_array_beside_the_classes_and_standardised_per_channel(tmp_path):
    gains = np.array([10.0, 20.0, 40.0])
    loaded = data.load(windows(tmp_path, count=10, scale=gains))
    section = Input(layout="channels_first", scale="scale", standardise=True).resolve(loaded)
    weight, bias = section.pairs()
    seen = section.prepare(loaded.x_train).reshape(-1, 3) * weight + bias
    assert section.net_shape == (8, 3)
    np.testing.assert_allclose(seen.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(seen.std(0), 1, atol=1e-5)
    by_hand = loaded.x_train / gains[:, None]
    np.testing.assert_allclose(section.mean, by_hand.mean((0, 2)))


def test_a_window_from_a_file_is_the_row_that_training_saw(tmp_path):
    loaded = data.load(windows(tmp_path))
    section = Input(layout="channels_first").resolve(loaded)
    file = tmp_path / "rest" / "0.npy"
    np.testing.assert_array_equal(section.prepare(section.read(file)[None])[0], section.prepare(loaded.x_train)[0])
    np.testing.assert_array_equal(section.sample(np.load(file)), section.read(file))
    assert isinstance(loaded.front, Window)


def test_an_empty_window_is_named(tmp_path):
    np.save(windows(tmp_path) / "rest" / "0.npy", np.zeros((0, 3)))
    with pytest.raises(DataError, match=r"rest/0\.npy is empty"):
        data.load(tmp_path)
