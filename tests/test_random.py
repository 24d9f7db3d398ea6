# SPDX-License-Identifier: Apache-2.0
"""Codes and orders are the same bits on every backend, since nothing but the seed is stored."""

from __future__ import annotations

from importlib import import_module

import formulas
import numpy as np
import pytest
from benches import BACKENDS

from edgelearn import philox, rules
from edgelearn.rules import Codes

SEEDS = [0, 1, 2**32 - 1, 2**40 + 7, 2**64 - 1]
KINDS = list(Codes)


def engine(backend):
    return import_module(f"edgelearn.engines.{backend}")


def rule(kind, scale=1.0):
    return rules.get("tp-l2", codes=kind.name, scale=scale)


def test_the_generators_of_package_and_oracle_are_one_function():
    for seed in SEEDS:
        words = philox.philox(seed, np.array([5, 2**32 - 1], np.uint64), 7, 11, 3)
        assert words[0].tolist() == list(formulas.philox(seed, 5, 7, 11, 3))
        assert words[1].tolist() == list(formulas.philox(seed, 2**32 - 1, 7, 11, 3))


def test_philox_gives_the_published_answers():
    """Known answers of philox4x32-10 in the Random123 distribution (Salmon et al. 2011)."""
    assert formulas.philox(0, 0, 0, 0, 0) == (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)
    ones = 2**32 - 1
    assert formulas.philox(2**64 - 1, ones, ones, ones, ones) == (
        0x408F276D,
        0x41C83B0E,
        0xA20BC7C6,
        0x6D5451FD,
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_codes_are_those_of_the_oracle(backend, kind):
    for seed in SEEDS:
        for scale in (1.0, 0.3):
            expected = formulas.codes(rule(kind, scale), seed, 2, 33, 5)
            for target in range(5):
                found = engine(backend).codes(rule(kind, scale), seed, 2, target, 33, 5)
                np.testing.assert_allclose(found, expected[target], rtol=3e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_codes_are_the_same_bits_on_both_backends(kind):
    native, numba = (pytest.importorskip(f"edgelearn.engines.{name}") for name in ("native", "numba"))
    for seed in SEEDS:
        for scale in (1.0, 0.3):
            arguments = rule(kind, scale), seed, 3, 4, 65, 5
            assert native.codes(*arguments).tobytes() == numba.codes(*arguments).tobytes()


def test_gaussian_codes_have_mean_zero_and_variance_one():
    values = formulas.codes(rule(Codes.GAUSSIAN), 1, 0, 500, 20)
    assert abs(values.mean()) < 0.05
    assert abs(values.var() - 1) < 0.05


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 16, 17, 63, 64, 65, 1000])
@pytest.mark.parametrize("backend", BACKENDS)
def test_an_order_is_a_permutation_and_that_of_the_oracle(backend, n):
    for seed, epoch in ((0, 0), (2**64 - 1, 3), (7, 2**35)):
        found = [engine(backend).shuffle(seed, epoch, n, p) for p in range(n)]
        assert sorted(found) == list(range(n))
        assert found[:70] == [formulas.shuffle(seed, epoch, n, p) for p in range(min(n, 70))]


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_stretch_of_an_order_is_its_places_one_by_one(backend):
    for seed, epoch, n, first, count in ((0, 0, 1, 0, 1), (2**64 - 1, 3, 65, 60, 5), (-7, 2**35, 1000, 128, 64)):
        found = engine(backend).ENGINE.order(seed, epoch, n, first, count)
        assert found.dtype == np.int64
        expected = [formulas.shuffle(seed % 2**64, epoch, n, p) for p in range(first, first + count)]
        assert found.tolist() == expected


@pytest.mark.parametrize("backend", BACKENDS)
def test_orders_of_a_very_large_data_set_agree_with_the_oracle(backend):
    for position in (0, 1, 2**33, 2**40 - 1):
        expected = formulas.shuffle(9, 1, 2**40, position)
        assert engine(backend).shuffle(9, 1, 2**40, position) == expected
