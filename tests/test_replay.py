# SPDX-License-Identifier: Apache-2.0
"""Samples kept of a stream: balance, bounds, what comes back, what a file of them gives."""

import numpy as np
import pytest

import edgelearn as el
from edgelearn.learning.replay import Encoding, Reservoir

PAIRS = (np.array([0.5, 2.0], np.float32), np.array([1.0, -3.0], np.float32))


def images(n, seed=0, features=16):
    return np.random.default_rng(seed).integers(0, 256, (n, features), np.uint8)


def reservoir(capacity, features=16, rows=None, pairs=None, seed=0):
    rows = images(1, features=features) if rows is None else rows
    encoding = Encoding.of(rows, pairs)
    return Reservoir(encoding, capacity * (encoding.bytes + 8), seed)


def everything(kept):
    parts = list(kept.parts(7))
    return np.concatenate([x for x, _ in parts]), np.concatenate([y for _, y in parts])


def test_while_there_is_room_everything_is_kept_as_it_came():
    kept, x = reservoir(40), images(30)
    kept.add(x[:20], np.arange(20, dtype=np.int32) % 3)
    kept.add(x[20:], np.arange(20, 30, dtype=np.int32) % 3)
    rows, labels = everything(kept)
    assert np.array_equal(rows, x)
    assert np.array_equal(labels, np.arange(30) % 3)
    assert kept.size == 30


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_a_rare_class_is_kept_as_if_it_were_common(share):
    kept = reservoir(100)
    y = (np.random.default_rng(1).random(4000) > share).astype(np.int32)
    kept.add(images(4000), y)
    assert kept.size == 100
    assert kept.counts()[1] == min(50, y.sum())
    assert kept.seen == {0: int((y == 0).sum()), 1: int(y.sum())}


def test_of_one_class_every_sample_is_as_likely_to_be_kept():
    hits = np.zeros(400)
    for seed in range(300):
        kept = reservoir(40, features=4, seed=seed)
        x = np.arange(400, dtype=np.uint8).reshape(-1, 1).repeat(4, 1)
        x[:, 1] = np.arange(400) // 256
        kept.add(x, np.zeros(400, np.int32))
        rows, _ = everything(kept)
        hits[rows[:, 0].astype(int) + 256 * rows[:, 1].astype(int)] += 1
    assert hits.sum() == 300 * 40
    quarters = hits.reshape(4, 100).sum(1) / (300 * 10)
    assert np.abs(quarters - 1).max() < 0.06  # three standard deviations


def test_its_bytes_are_bounded_and_are_what_it_says():
    kept = Reservoir(Encoding.of(images(1, features=784), None), 2 << 20)
    assert kept.capacity == (2 << 20) // (784 + 8)
    assert kept.bytes <= 2 << 20
    assert len(kept.contents()) == kept.bytes
    kept.add(images(5000, features=784), np.arange(5000, dtype=np.int32) % 10)
    assert kept.size == kept.capacity
    assert set(kept.counts().values()) <= {264, 265}


def test_floats_come_back_to_half_precision_of_what_the_net_sees():
    x = (np.random.default_rng(0).normal(size=(50, 2)) * [2.0, 0.5] + [100_000.0, 3.0]).astype(np.float32)
    pairs = (np.float32([0.5, 2.0]), np.float32([-50_000.0, -6.0]))
    kept = reservoir(60, rows=x, pairs=pairs)
    assert kept.encoding.dtype == "float16"
    kept.add(x, np.zeros(50, np.int32))
    rows, _ = everything(kept)
    assert rows.dtype == np.float32
    seen, expected = rows * pairs[0] + pairs[1], x * pairs[0] + pairs[1]
    assert np.abs(seen - expected).max() < 0.01
    assert np.abs(rows - x).max() < 0.02


def test_the_same_content_is_kept_once_with_its_latest_label():
    kept, x = reservoir(50), images(10)
    kept.add(x, np.zeros(10, np.int32))
    kept.add(x[:4], np.ones(4, np.int32))
    assert kept.size == 10
    assert kept.labels.tolist() == [1] * 4 + [0] * 6
    kept.add(np.repeat(x[:1], 200, 0), np.arange(200, dtype=np.int32) % 5)
    assert kept.size == 10


def test_draws_are_a_function_of_the_seed_and_cover_all():
    first, again, other = reservoir(50), reservoir(50), reservoir(50, seed=1)
    for kept in (first, again, other):
        kept.add(images(50), np.arange(50, dtype=np.int32))
    draws = [kept.draw(500) for kept in (first, again, other)]
    assert np.array_equal(draws[0][0], draws[1][0])
    assert not np.array_equal(draws[0][1], draws[2][1])
    assert len(set(draws[0][1].tolist())) > 45
    for x, y in zip(*draws[0], strict=True):
        assert np.array_equal(x, images(50)[y])
    assert not np.array_equal(first.draw(500)[1], draws[0][1])
    assert reservoir(5).draw(3)[0].shape == (0, 16)


def test_after_a_change_new_samples_find_a_place():
    shares = []
    for renew in (False, True):
        kept = reservoir(200)
        kept.add(images(10_000), np.zeros(10_000, np.int32))
        if renew:
            kept.renew()
        kept.add(images(200, seed=9), np.zeros(200, np.int32))
        new = {row.tobytes() for row in images(200, seed=9)}
        shares.append(np.mean([row.tobytes() in new for row in everything(kept)[0]]))
    assert shares[0] < 0.05
    assert 0.3 < shares[1] < 0.6


def test_a_file_of_them_goes_on_to_the_bit_and_is_not_written_to(tmp_path):
    whole, kept = reservoir(30), reservoir(30)
    for each in (whole, kept):
        each.add(images(100), np.arange(100, dtype=np.int32) % 4)
    (tmp_path / "kept").write_bytes(kept.contents())
    content = (tmp_path / "kept").read_bytes()
    again = reservoir(30)
    again.restore(kept.to_json(), tmp_path / "kept")
    for each in (whole, again):
        each.add(images(100, seed=5), np.arange(100, dtype=np.int32) % 5)
    assert np.array_equal(everything(whole)[0], everything(again)[0])
    assert np.array_equal(whole.draw(9)[1], again.draw(9)[1])
    assert whole.to_json() == again.to_json()
    assert (tmp_path / "kept").read_bytes() == content


@pytest.mark.parametrize(("capacity", "features", "word"), [(31, 16, "capacity"), (30, 15, "features")])
def test_a_file_of_other_samples_is_refused(tmp_path, capacity, features, word):
    kept = reservoir(30)
    (tmp_path / "kept").write_bytes(kept.contents())
    with pytest.raises(el.ModelError, match=f"have {word} .* go on as before, or empty the folder"):
        reservoir(capacity, features).restore(kept.to_json(), tmp_path / "kept")


def test_what_cannot_be_kept_is_refused():
    with pytest.raises(el.BudgetError, match="hold no sample of 16 bytes: give replay more"):
        Reservoir(Encoding.of(images(1), None), 20)
    with pytest.raises(el.DataError, match="samples are float32 now and were uint8"):
        reservoir(5).add(np.zeros((1, 16), np.float32), np.zeros(1, np.int32))
    floats = reservoir(5, rows=np.zeros((1, 2), np.float32))
    with pytest.raises(el.DataError, match="beyond 65504 cannot be kept as float16"):
        floats.add(np.full((1, 2), 1e5, np.float32), np.zeros(1, np.int32))
    assert floats.size == 0
