# SPDX-License-Identifier: Apache-2.0
"""Pictures as arrays: every kind of .png and .jpg, sizes and colours, damage."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from edgelearn.errors import BrokenFileError, DataError, ModelError
from edgelearn.inputs.frontend import Input
from edgelearn.inputs.images import Image

RGB = Image(size=(4, 6), color="rgb", resize="never")
GREY = Image(size=(4, 6), color="grayscale", resize="never")


def encoded(picture, kind="PNG", **options):
    out = io.BytesIO()
    (picture if isinstance(picture, Pillow.Image) else Pillow.fromarray(picture)).save(out, kind, **options)
    return out


def pixels(shape=(4, 6), seed=0, high=256):
    return np.random.default_rng(seed).integers(0, high, shape).astype(np.uint8)


def test_png_pixels_are_kept():
    color, grey = pixels((4, 6, 3)), pixels()
    np.testing.assert_array_equal(color, RGB.read(encoded(color), "x"))
    np.testing.assert_array_equal(grey[:, :, None], GREY.read(encoded(grey), "x"))
    np.testing.assert_array_equal(np.repeat(grey[:, :, None], 3, 2), RGB.read(encoded(grey), "x"))


def test_jpg_pixels_are_nearly_kept():
    flat = np.full((4, 6, 3), (200, 100, 50), np.uint8)
    np.testing.assert_allclose(RGB.read(encoded(flat, "JPEG", quality=95), "x"), flat, atol=3)


def test_colour_becomes_grey_by_its_luma():
    found = GREY.read(encoded(np.full((4, 6, 3), (255, 0, 100), np.uint8)), "x")
    assert found.shape == (4, 6, 1)
    np.testing.assert_allclose(found, 0.299 * 255 + 0.114 * 100, atol=1)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_as_exif_says(kind, orientation):
    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8] = 255  # the light corner is at the top left
    turns = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.T, 6: lambda a: a.T[::-1], 7: lambda a: a.T[::-1, ::-1], 8: lambda a: a.T[:, ::-1],
    }  # fmt: skip
    stored, exif = np.ascontiguousarray(turns[orientation](upright)), Pillow.Exif()
    exif[0x0112] = orientation
    stream = encoded(stored, kind, exif=exif.tobytes())
    assert Image().survey(stream, "x") == ((16, 24), "grayscale")
    found = Image(size=(16, 24), color="grayscale", resize="never").read(stream, "x")
    np.testing.assert_allclose(found[:, :, 0], upright, atol=40)


def test_a_palette_gives_its_colours_and_its_transparency_black():
    indexed = Pillow.new("P", (6, 4), 1)
    indexed.putpalette([9, 9, 9, 10, 200, 30])
    indexed.putpixel((0, 0), 0)
    plain, see_through = encoded(indexed), encoded(indexed, transparency=1)
    assert Image().survey(plain, "x") == ((4, 6), "rgb")
    assert RGB.read(plain, "x")[0, :2].tolist() == [[9, 9, 9], [10, 200, 30]]
    assert RGB.read(see_through, "x")[0, :2].tolist() == [[9, 9, 9], [0, 0, 0]]


@pytest.mark.parametrize("color", [RGB, GREY])
def test_what_is_transparent_is_black_and_half_of_it_half(color):
    values = np.full((4, 6, 4), 200, np.uint8)
    values[0, :, 3], values[1, :, 3], values[2:, :, 3] = 0, 128, 255
    found = color.read(encoded(values), "x")
    assert [int(row[0, 0]) for row in found] == [0, 100, 200, 200]
    grey = encoded(values[:, :, [0, 3]])
    np.testing.assert_array_equal(found, color.read(grey, "x"))
    assert Image().survey(grey, "x")[1] == "grayscale"


def test_16_bits_become_their_upper_8():
    deep = (np.arange(24, dtype=np.uint16) * 2700).reshape(4, 6)
    stream = encoded(deep)
    assert Image().survey(stream, "x") == ((4, 6), "grayscale")
    np.testing.assert_array_equal((deep >> 8).astype(np.uint8), GREY.read(stream, "x")[:, :, 0])


def test_one_bit_and_cmyk_are_read():
    bits = Pillow.fromarray(pixels(high=2) * 255).convert("1")
    np.testing.assert_array_equal(np.asarray(bits) * 255, GREY.read(encoded(bits), "x")[:, :, 0])
    print_ = Pillow.new("CMYK", (6, 4), (0, 255, 255, 0))
    np.testing.assert_allclose(RGB.read(encoded(print_, "JPEG"), "x")[0, 0], [255, 0, 0], atol=4)


def split(height, width):
    """Three stripes side by side: black, white, black, the white one half as wide as the picture."""
    picture = np.zeros((height, width), np.uint8)
    picture[:, width // 4 : 3 * width // 4] = 255
    return picture


@pytest.mark.parametrize(
    ("way", "expected"),
    [
        ("crop", np.full((8, 8), 255)),
        ("stretch", split(8, 8)),
        ("pad", np.pad(split(4, 8), ((2, 2), (0, 0)))),
    ],
)
@pytest.mark.parametrize("factor", [2, 8])
def test_resize_crops_stretches_or_pads(way, expected, factor):
    found = Image(size=(8, 8), color="grayscale", resize=way).read(encoded(split(8 * factor, 16 * factor)), "x")
    np.testing.assert_allclose(found[:, 1:-1, 0], expected[:, 1:-1], atol=70)  # edges are smoothed
    assert found[4, 4, 0] == 255


def test_shrinking_averages_so_that_nothing_aliases():
    checks = (np.indices((64, 64)).sum(0) % 2 * 255).astype(np.uint8)
    found = Image(size=(8, 8), color="grayscale").read(encoded(checks), "x")
    assert np.abs(found.astype(int) - 128).max() <= 2


def test_a_big_jpg_is_decoded_small_and_looks_the_same():
    big = np.asarray(Pillow.fromarray(pixels((6, 8, 3))).resize((1600, 1200)))
    section = Image(size=(24, 32), color="rgb")
    found, exact = section.read(encoded(big, "JPEG", quality=95), "x").astype(int), section.pixels(big)
    assert np.abs(found - exact).max() <= 4


@pytest.mark.parametrize(
    ("picture", "words"),
    [
        (np.zeros((4, 6)), "float64"),
        (np.zeros((4, 6, 4), np.uint8), "shape .4, 6, 4."),
        (np.zeros((4, 6, 3, 1), np.uint8), "pass uint8"),
        (np.zeros(24, np.uint8), "pass uint8"),
        (np.zeros((0, 6), np.uint8), "pass uint8"),
        (np.zeros((5, 6), np.uint8), "the picture has 5 x 6 pixels .* not 4 x 6"),
    ],
)
def test_what_is_no_picture_of_the_right_size_is_refused(picture, words):
    with pytest.raises(DataError, match=words):
        RGB.pixels(picture)


PICTURES = [encoded(pixels((9, 7, 3)), "JPEG").getvalue(), encoded(pixels((9, 7, 3))).getvalue()]


@settings(max_examples=200, deadline=None)
@given(
    valid=st.sampled_from(PICTURES),
    changes=st.lists(st.tuples(st.integers(0, 900), st.integers(0, 255)), max_size=6),
    keep=st.integers(0, 1000),
)
def test_a_damaged_file_is_a_picture_or_refused_and_nothing_else(valid, changes, keep):
    content = bytearray(valid)
    for place, value in changes:
        content[place % len(content)] = value
    stream = io.BytesIO(bytes(content[:keep]))
    try:
        found = Image(size=(5, 5), color="rgb").read(stream, "x.jpg")
    except BrokenFileError:
        return  # whatever else is raised fails the test
    assert found.shape == (5, 5, 3)
    assert Image().survey(stream, "x.jpg")[1] in ("rgb", "grayscale")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", r"x\.png is not a \.png or \.jpg file"),
        (b"GIF89a" + bytes(50), "is not a .png or .jpg file"),
        (encoded(pixels(), "BMP").getvalue(), "is not a .png or .jpg file"),
        (PICTURES[1][:60], r"x\.png"),
        (PICTURES[0][:-200], r"x\.png cannot be decoded"),
    ],
)
def test_files_that_are_not_pictures_are_named(content, words):
    with pytest.raises(BrokenFileError, match=words):
        RGB.read(io.BytesIO(content), "x.png")


def test_a_picture_that_claims_more_pixels_than_memory_is_refused(monkeypatch):
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 20)
    with pytest.raises(BrokenFileError, match="claims 20 pixels or more: shrink it"):
        RGB.read(encoded(pixels((4, 6, 3))), "x")
    monkeypatch.setattr(Pillow, "MAX_IMAGE_PIXELS", 5)
    with pytest.raises(BrokenFileError, match="claims 5 pixels or more"):
        RGB.read(encoded(pixels((4, 6, 3))), "x")


def test_without_pillow_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    with pytest.raises(DataError, match=r"pip install 'edgelearn\[data\]'") as caught:
        RGB.read(io.BytesIO(PICTURES[0]), "x")
    assert not isinstance(caught.value, BrokenFileError), "a missing package must not skip every file"


def test_an_unsettled_section_reads_nothing():
    with pytest.raises(ModelError, match="size and color"):
        Input(image=Image(size=(4, 6))).read(io.BytesIO(PICTURES[0]))
