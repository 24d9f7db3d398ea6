# SPDX-License-Identifier: Apache-2.0
"""What each augmentation does to samples, that it repeats to the bit, and what it refuses."""

import tracemalloc
import zlib

import formulas
import numpy as np
import pytest

import edgelearn as el
from edgelearn import augment
from edgelearn.augment import AUGMENTATIONS, Augmenter, Space
from edgelearn.philox import STREAM_AUGMENT

IMAGE, SEQUENCE = (7, 5, 3), (9, 4)
KINDS = [np.uint8, np.float32]
ALL = {"crop": 2, "shift": 2, "flip": True, "time_shift": 3, "mix": 0.4, "noise": 0.2, "time_mask": 4, "band_mask": 2}
SHAPES = {name: SEQUENCE if a.axes == 2 else IMAGE for name, a in AUGMENTATIONS.items()}


def drawn(shape, kind, n=200, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (n, *shape)) if kind is np.uint8 else rng.normal(size=(n, *shape))
    return x.astype(kind)


BYTES = (np.full(1, 1 / 255, np.float32), np.zeros(1, np.float32))
"""The scaling that bytes usually have."""


def augmenter(shape, kind, pairs=None, seed=1, **table):
    pairs = BYTES if pairs is None and kind == np.uint8 else pairs
    chain = augment.parse(table)
    return Augmenter(chain, Space(shape, np.dtype(kind), pairs, fill=chain.fill), seed)


def changed(x, step=3, **settings):
    rows = x.reshape(len(x), -1).copy()
    return augmenter(x.shape[1:], x.dtype, **settings)(rows, step).reshape(x.shape)


def standardised(channels):
    """Weight and bias of a scaling by which no raw value means the same in two channels."""
    scale, mean = np.arange(1, channels + 1) * 40.0, np.linspace(0.5, 1, channels)
    return (1 / scale).astype(np.float32), -mean.astype(np.float32)


def test_every_augmentation_is_tested_here():
    assert set(ALL) == set(AUGMENTATIONS)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", ALL)
def test_a_change_is_a_function_of_seed_step_and_place(name, kind):
    x, setting = drawn(SHAPES[name], kind), {name: ALL[name]}
    once = changed(x, **setting)
    assert once.dtype == kind
    assert not np.array_equal(once, x)
    assert np.array_equal(once, changed(x, **setting))
    assert not np.array_equal(once, changed(x, step=4, **setting))
    assert not np.array_equal(once, changed(x, step=3, seed=2, **setting))
    assert np.array_equal(changed(x[:50], seed=-1, **setting), changed(x[:50], seed=-1, **setting))
    if name != "mix":
        assert np.array_equal(once[:50], changed(x[:50], **setting)), "what a sample becomes depends on later ones"


def places(x, out, moved):
    """For each sample the offsets by which `moved` of it gives what came out: a list of lists."""
    return [
        [offset for offset, candidate in moved(one) if np.array_equal(candidate, found)]
        for one, found in zip(x, out, strict=True)
    ]


def windows(padded, shape):
    for top in range(padded.shape[0] - shape[0] + 1):
        for left in range(padded.shape[1] - shape[1] + 1):
            yield (top, left), padded[top : top + shape[0], left : left + shape[1]]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "fill", "mode"), [("shift", "edge", "edge"), ("crop", "zero", "reflect")])
def test_images_are_windows_of_what_grew_around_them(name, fill, mode, kind):
    x = drawn(IMAGE, kind)
    settings = {name: 2} if name == "crop" else {name: 2, "fill": fill}
    found = places(x, changed(x, **settings), lambda one: windows(np.pad(one, ((2, 2), (2, 2), (0, 0)), mode), IMAGE))
    assert all(found), "an output is no window of its sample"
    assert {offset for offsets in found for offset in offsets} == {(i, j) for i in range(5) for j in range(5)}


@pytest.mark.parametrize("kind", KINDS)
def test_zero_is_what_the_net_sees_as_zero(kind):
    x, pairs = drawn(IMAGE, kind), standardised(3)
    blank = (-pairs[1] / pairs[0]).astype(np.float32)
    blank = np.rint(blank).astype(np.uint8) if kind is np.uint8 else blank

    def moved(one):
        frame = np.empty((11, 9, 3), kind)
        frame[...] = blank
        frame[2:9, 2:7] = one
        return windows(frame, IMAGE)

    assert all(places(x, changed(x, pairs=pairs, shift=2), moved))


def test_half_of_the_images_are_mirrored_left_to_right():
    x = drawn(IMAGE, np.uint8, 400)
    out = changed(x, flip=True)
    mirrored = [np.array_equal(a, b[:, ::-1]) for a, b in zip(out, x, strict=True)]
    same = [np.array_equal(a, b) for a, b in zip(out, x, strict=True)]
    assert sum(mirrored) + sum(same) == 400
    assert 160 <= sum(mirrored) <= 240


@pytest.mark.parametrize("fill", ["zero", "edge"])
def test_sequences_move_along_time_only(fill):
    x = drawn(SEQUENCE, np.float32)
    settings = {"constant_values": 0} if fill == "zero" else {}

    def moved(one):
        padded = np.pad(one, ((3, 3), (0, 0)), "constant" if fill == "zero" else "edge", **settings)
        return [(top, padded[top : top + 9]) for top in range(7)]

    found = places(x, changed(x, time_shift=3, fill=fill), moved)
    assert all(found)
    assert {offset for offsets in found for offset in offsets} == set(range(7))


@pytest.mark.parametrize("kind", KINDS)
def test_a_mixed_sample_keeps_the_larger_part(kind):
    x = drawn(IMAGE, kind, 60)
    out, wide = changed(x, mix=0.4).astype(np.float64), x.astype(np.float64)
    shares = []
    for i, found in enumerate(out):
        # least squares share of every other sample; the right one leaves no rest beyond rounding
        towards = np.delete(wide, i, axis=0) - wide[i]
        share = ((found - wide[i]) * towards).sum((1, 2, 3)) / (towards**2).sum((1, 2, 3))
        rest = np.abs(wide[i] + share[:, None, None, None] * towards - found).max((1, 2, 3))
        assert rest.min() < (1.0 if kind is np.uint8 else 1e-5)
        shares.append(share[rest.argmin()])
    assert min(shares) >= -1e-3
    assert 0.3 < max(shares) <= 0.402
    assert 0.1 < np.mean(shares) < 0.3


def splitmix64(state):
    """SplitMix64 in plain integers (Steele, Lea & Flood 2014, figure 16)."""
    z = state % 2**64
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    z = (z ^ z >> 27) * 0x94D049BB133111EB % 2**64
    return z ^ z >> 31


def test_noise_is_that_of_plain_integers():
    out = changed(np.zeros((5, 6), np.float32), step=2**33 + 9, seed=2**40 + 3, noise=1.0)
    for place in range(5):
        w0, w1, _, _ = formulas.philox(2**40 + 3, place, 9, zlib.crc32(b"noise"), STREAM_AUGMENT)
        for i in range(6):
            value = splitmix64((w0 << 32 | w1) + (i + 1) * 0x9E3779B97F4A7C15)
            total = sum(value.to_bytes(8, "little"))
            assert out[place, i] == pytest.approx((total - 1020) / np.sqrt(8 * (256**2 - 1) / 12), rel=1e-6, abs=1e-7)


def test_noise_has_its_deviation_as_the_net_sees_it():
    weight, bias = standardised(3)
    x = np.full((400, *IMAGE), 120, np.float32)
    seen = (changed(x, pairs=(weight, bias), noise=0.25) - x) * weight
    assert np.allclose(seen.std((0, 1, 2)), 0.25, rtol=0.03)
    assert abs(seen.mean()) < 0.005
    assert abs(np.corrcoef(seen[:, 0, 0, 0], seen[:, 0, 1, 0])[0, 1]) < 0.15
    assert 3 < np.abs(seen / 0.25).max() < 6


def test_noise_on_bytes_is_rounded_and_never_wraps():
    for level, deviation in ((0, 0.2), (255, 0.2), (128, 0.05), (128, 0.0013)):
        x = np.full((300, *IMAGE), level, np.uint8)
        off = changed(x, noise=deviation).astype(int) - level
        if level == 128:
            assert off.std() / 255 == pytest.approx(deviation, rel=0.1)
        else:
            assert off.any()
            assert (off <= 0 if level else off >= 0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "axis"), [("time_mask", 1), ("band_mask", 2)])
def test_masks_blank_one_run_of_neighbours(name, axis, kind):
    x, pairs = np.full((300, *SEQUENCE), 200, kind), standardised(4)
    most = ALL[name]
    hidden = changed(x, pairs=pairs, **{name: most}) != x
    blank = changed(x, pairs=pairs, **{name: most})[hidden].astype(np.float32)
    zeros = (blank * np.broadcast_to(pairs[0], hidden.shape)[hidden]) + np.broadcast_to(pairs[1], hidden.shape)[hidden]
    assert np.abs(zeros).max() < (0.02 if kind is np.uint8 else 1e-6)
    other = 3 - axis
    assert (hidden.all(axis=other) == hidden.any(axis=other)).all(), "a part of a step or band is hidden"
    runs = hidden.any(axis=other).astype(int)
    assert (np.abs(np.diff(runs, axis=1, prepend=0, append=0)).sum(axis=1) <= 2).all(), "more than one run"
    assert set(runs.sum(axis=1)) == set(range(most + 1))
    assert runs.any(axis=0).all(), "a place is never hidden"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("shape", [(32, 32, 3), (49, 40), (500,), (150, 150, 3)])
def test_memory_stays_within_what_is_planned(shape, kind):
    names = [n for n, a in AUGMENTATIONS.items() if a.axes in (0, len(shape))]
    for names_used in (*([n] for n in names), names):
        made = augmenter(shape, kind, **{name: ALL[name] for name in names_used})
        rows = drawn(shape, kind, 16).reshape(16, -1)
        made(rows.copy(), 0)
        tracemalloc.start()
        made(rows, 1)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        planned = made.chain.extra_bytes(shape, rows.itemsize, 16)
        assert peak <= planned, names_used
    assert planned < 10 * peak


REFUSED = [
    ({"flip": True}, (64,), {}, "flip is for images"),
    ({"shift": 1}, (28, 28), {}, "declare the shape in \\[input\\]"),
    ({"crop": 1}, (49, 40), {}, "crop is for images"),
    ({"time_mask": 1}, IMAGE, {}, "time_mask is for sequences"),
    ({"time_shift": 1}, IMAGE, {}, "time_shift is for sequences"),
    ({"band_mask": 1}, (64,), {}, "band_mask is for sequences"),
    ({"crop": 5}, IMAGE, {}, "crop = 5 leaves nothing of a side of 5"),
    ({"shift": 7}, IMAGE, {}, "shift = 7 leaves nothing"),
    ({"time_shift": 9}, SEQUENCE, {}, "time_shift = 9 leaves nothing of a side of 9"),
    ({"time_mask": 9}, SEQUENCE, {}, "leaves nothing"),
    ({"band_mask": 4}, SEQUENCE, {}, "leaves nothing of a side of 4"),
    ({"mix": 0.2}, IMAGE, {"classifies": False}, "targets of a regression"),
    ({"noise": 0.1}, IMAGE, {"dtype": np.dtype(np.uint8)}, "choose 0.3 or more"),
]


@pytest.mark.parametrize(("table", "shape", "settings", "words"), REFUSED)
def test_samples_that_a_change_is_not_for_are_refused(table, shape, settings, words):
    with pytest.raises(el.UsageError, match=words) as refusal:
        Augmenter(augment.parse(table), Space(**{"shape": shape, "dtype": np.dtype(np.float32), **settings}))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"rotate": 3}, "unknown augmentation 'rotate': choose from crop, shift"),
        ({"flip": 1}, "flip must be true or false, not 1"),
        ({"shift": 0}, "shift must be a whole number from 1 up"),
        ({"shift": 1.5}, "whole number"),
        ({"shift": True}, "whole number"),
        ({"noise": -1}, "positive number"),
        ({"noise": float("nan")}, "positive number"),
        ({"noise": 10**400}, "positive number"),
        ({"mix": 0.6}, "a share from 1/256 to 0.5"),
        ({"time_mask": "2"}, "whole number"),
        ({"shift": 2, "fill": "blue"}, "fill must be one of zero, edge"),
        ("flip", "must be a table such as {flip = true, shift = 2}"),
    ],
)
def test_amounts_that_cannot_be_meant_are_refused(table, words):
    with pytest.raises(el.UsageError, match=words):
        augment.parse(table)


def test_tables_and_command_lines_say_the_same():
    chain = augment.parse(augment.read("noise=1e-1, flip,shift=2,fill=edge,mix=0.25"))
    assert [a.name for a, _ in chain.links] == ["shift", "flip", "mix", "noise"], "the order is the table's"
    assert chain.table() == {"shift": 2, "flip": True, "mix": 0.25, "noise": 0.1, "fill": "edge"}
    assert augment.parse(chain.table()) == chain
    assert augment.parse({"shift": np.int64(2), "noise": np.float32(0.5)}).table() == {"shift": 2, "noise": 0.5}
    assert augment.read("none") == {}
    assert not augment.parse({"flip": False})
    assert augment.read("flip=false,fill=edge") == {"flip": False, "fill": "edge"}


def test_one_sample_is_mixed_with_nothing():
    x = drawn(IMAGE, np.float32, 1)
    assert np.array_equal(changed(x, mix=0.5), x)


def test_shifted_digits_are_told_apart_after_shifts_were_learned():
    from sklearn.datasets import load_digits

    digits = load_digits()
    x, y = np.pad(digits.images.astype(np.float32), ((0, 0), (2, 2), (2, 2)))[..., None], digits.target
    held_out = np.arange(len(x)) % 4 == 3
    right = {}
    for table in ({}, {"shift": 2}):
        net = el.Net(
            [el.Dense(128, "relu"), el.Dense(64, "relu"), el.Dense(10)], input=el.Input((12, 12, 1), scale=16.0)
        )
        net.fit(x[~held_out], y[~held_out], epochs=30, batch=32, lr=5e-3, augment=table)
        moved = np.roll(x[held_out], (2, -1), axis=(1, 2))
        right[bool(table)] = net.score(moved, y[held_out])
    assert right[True] > 0.85
    assert right[True] > right[False] + 0.3
