# SPDX-License-Identifier: Apache-2.0
"""[input.image]: folders of pictures, one row for one picture everywhere, sections that cannot be meant."""

from __future__ import annotations

import io
import json
from types import SimpleNamespace

import numpy as np
import pytest
from files import color_folder, write_picture
from PIL import Image as Pillow

from edgelearn.errors import DataError, ModelError
from edgelearn.inputs import data
from edgelearn.inputs.frontend import Input
from edgelearn.inputs.images import Image


def pixels(shape=(4, 6), seed=0, high=256):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8)


def test_pictures_of_one_size_are_taken_as_they_are(tmp_path):
    loaded = data.load(color_folder(tmp_path, {"red": (200, 20, 20), "green": (20, 200, 20)}, count=5))
    assert (loaded.x_train.shape, loaded.x_train.dtype) == ((8, 12, 16, 3), np.uint8)
    assert loaded.front == Image(size=(12, 16), color="rgb", resize="never")
    assert Input().resolve(loaded).net_shape == (12, 16, 3)
    assert Input().resolve(loaded).scale == 255


def test_grey_pictures_have_one_channel_until_one_has_colour(tmp_path):
    color_folder(tmp_path, {"dark": 30, "light": 220}, count=5, suffix=".png")
    assert data.load(tmp_path).x_train.shape == (8, 12, 16, 1)
    write_picture(tmp_path / "dark" / "02.JPEG", pixels((12, 16, 3)))
    assert data.load(tmp_path).front.color == "rgb"
    assert data.load(tmp_path, Input(image=Image(color="grayscale"))).x_train.shape[3] == 1


def test_pictures_of_mixed_size_are_refused_until_a_size_is_declared(tmp_path):
    color_folder(tmp_path, {"a": 30, "b": 220}, count=5)
    write_picture(tmp_path / "b" / "01.jpg", pixels((20, 16)))
    words = r"b/01\.jpg has 20 x 16 pixels .*, .*a/00\.jpg 12 x 16: set size in \[input\.image\]"
    with pytest.raises(DataError, match=words):
        data.load(tmp_path)
    assert data.load(tmp_path, Input(image=Image(size=(8, 10)))).x_train.shape == (8, 8, 10, 1)


def test_a_test_picture_of_another_size_is_refused_too(tmp_path):
    color_folder(tmp_path, {"a": 30, "b": 220}, count=5)
    write_picture(tmp_path / "b" / "04.jpg", pixels((20, 16)))
    with pytest.raises(DataError, match=r"b/04\.jpg has 20 x 16 pixels .* not 12 x 16: resize it, or train with size"):
        data.load(tmp_path)


@pytest.mark.parametrize(("shape", "channels"), [((12, 16), 1), ((12, 16, 1), 1), ((12, 16, 3), 3)])
def test_the_shape_of_a_net_says_how_many_channels_its_pictures_have(tmp_path, shape, channels):
    loaded = data.load(color_folder(tmp_path, {"a": (9, 9, 9), "b": (200, 0, 0)}, count=5), Input(shape=shape))
    assert loaded.x_train.shape[1:] == (12, 16, channels)
    section = Input(shape=shape).resolve(loaded)
    assert section.net_shape == shape
    assert section.prepare(loaded.x_train).shape == (8, 12 * 16 * channels)


@pytest.mark.parametrize("section", [Input(), Input(image={"size": [4, 6]}), Input(image={"resize": "pad"})])
def test_a_net_that_learned_from_an_array_takes_files_and_pictures_too(tmp_path, section):
    grey = pixels()
    trained = section.resolve(SimpleNamespace(x_train=grey[None], arrays={}, front=None))
    file = write_picture(tmp_path / "x.png", np.repeat(grey[:, :, None], 3, 2))
    for sample in (trained.read(file), trained.sample(grey)):
        np.testing.assert_array_equal(trained.prepare(sample[None]), grey.reshape(1, 24))


@pytest.mark.parametrize("shape", [(784,), (28, 28, 2), (2, 2, 2, 2)])
def test_a_shape_that_pictures_cannot_have_is_refused(tmp_path, shape):
    with pytest.raises(DataError, match="images have .height, width. and 1 or 3 channels"):
        data.load(color_folder(tmp_path, {"a": 1, "b": 2}, count=5), Input(shape=shape))


@pytest.mark.parametrize(
    "section", [{}, {"image": {"size": [8, 8]}}, {"image": {"color": "grayscale", "size": [9, 20], "resize": "pad"}}]
)
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_one_picture_is_one_row_in_training_from_a_file_a_stream_a_camera_and_a_saved_model(tmp_path, section, suffix):
    folder = color_folder(tmp_path, {"red": (200, 20, 20), "green": (20, 200, 20)}, count=5, suffix=suffix)
    loaded = data.load(folder, Input.from_config(section))
    trained = Input.from_config(section).resolve(loaded)
    saved = Input.from_config(json.loads(json.dumps(trained.to_config())))
    assert saved == trained
    path = folder / "green" / "00.png"
    path = path if path.exists() else path.with_suffix(".jpg")
    camera = np.asarray(Pillow.open(path))
    for sample in (saved.read(path), saved.read(io.BytesIO(path.read_bytes())), saved.sample(camera)):
        np.testing.assert_array_equal(loaded.x_train[0], sample)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"size": 32}, "size must be"),
        ({"size": [32]}, "size must be"),
        ({"size": [32, 0]}, "size must be"),
        ({"size": [32, 32.0]}, "size must be"),
        ({"size": [32, True]}, "size must be"),
        ({"size": [1 << 20, 1]}, "size must be"),
        ({"color": "grey"}, "color must be grayscale or rgb, not 'grey'"),
        ({"color": ["rgb"]}, "color must be"),
        ({"resize": "fit"}, "resize must be crop, stretch, pad or never"),
        ({"width": 3}, r"\[input.image\] has no key 'width': it takes size, color, resize"),
        (7, r"\[input.image\] must be a table, not 7"),
    ],
)
def test_a_section_that_cannot_be_meant_is_refused(config, words):
    with pytest.raises(ModelError, match=words):
        Input.from_config({"image": config})


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"image": {}, "sound": {}}, "declares image and sound"),
        ({"image": {}, "layout": "channels_first"}, "layout of images is channels_last"),
        ({"image": {"size": [4, 4], "color": "rgb"}, "shape": [4, 4]}, r"shape \(4, 4\) is not that of images"),
    ],
)
def test_sections_that_contradict_each_other_are_refused(config, words):
    with pytest.raises(ModelError, match=words):
        Input.from_config(config)


def test_a_declared_size_and_color_are_the_shape_of_the_net():
    assert Input(image=Image(size=(8, 9), color="rgb")).net_shape == (8, 9, 3)
    assert Input(image={"size": [8, 9]}).shape is None
