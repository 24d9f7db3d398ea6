# SPDX-License-Identifier: Apache-2.0
"""Optimizers with small state: their bytes, what they are at full rank, and that they learn."""

import numpy as np
import pytest

from edgelearn.adapters import lowrank, moments
from edgelearn.cli import main
from edgelearn.errors import UsageError

MLP = [(784, 256), (256, 256), (256, 10), (256,), (256,), (10,)]


def test_bytes_of_an_mlp():
    full = lowrank.optimizer("adam").bytes_of(MLP, 16)
    assert full == 8 * sum(int(np.prod(shape)) for shape in MLP)
    share = {name: 1 - lowrank.optimizer(name).bytes_of(MLP, 16) / full for name in lowrank.OPTIMIZERS}
    assert share["galore"] >= 0.90
    assert share["galore-plain"] >= share["galore"] >= share["galore-plain"] - 1e-5
    assert share["galore-8bit"] >= 0.96
    assert share["apollo-mini"] >= 0.99
    assert share["rms-channels"] >= 0.99
    assert share["apollo"] >= 0.90
    assert share["adam-8bit"] >= 0.74


def adam(gradients, weight, lr):
    """Kingma & Ba's algorithm in float64."""
    first, second = np.zeros_like(weight), np.zeros_like(weight)
    for step, g in enumerate(gradients, 1):
        first, second = 0.9 * first + 0.1 * g, 0.999 * second + 0.001 * g * g
        weight = weight - lr * (first / (1 - 0.9**step)) / (np.sqrt(second / (1 - 0.999**step)) + 1e-8)
    return weight


def test_adam_is_adam_and_bytes_come_close():
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(30, 20, 30))
    expected = adam(gradients, np.zeros((20, 30)), 0.01)
    for name, most in (("adam", 1e-5), ("adam-8bit", 0.02)):
        weight = np.zeros((20, 30), np.float32)
        state = lowrank.optimizer(name).state(weight.shape, 4)
        for g in gradients:
            state.step(weight, g.astype(np.float32), 0.01)
        assert np.abs(weight - expected).max() < most


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_galore_of_all_directions_moves_as_far_as_its_basis_allows(shape):
    rng = np.random.default_rng(1)
    g = rng.normal(size=shape).astype(np.float32)
    state = lowrank.Galore(shape, rank=6, seed=0, scale=1.0)
    weight = np.zeros(shape, np.float32)
    state.step(weight, g, 0.1)
    wide = g if shape[0] < shape[1] else g.T
    basis = state.basis
    assert basis.T @ basis == pytest.approx(np.eye(6), abs=1e-5)
    # Adam's first step is the sign, here of the gradient in the basis.
    moved = -0.1 * basis @ np.sign(basis.T @ wide)
    assert weight == pytest.approx(moved if shape[0] < shape[1] else moved.T, abs=1e-5)


def test_the_randomised_range_is_that_of_the_svd():
    rng = np.random.default_rng(2)
    matrix = (rng.normal(size=(40, 5)) @ rng.normal(size=(5, 60)) + 0.01 * rng.normal(size=(40, 60))).astype(np.float32)
    found, exact = (lowrank.range_of(matrix, 5, rng, exact=exact) for exact in (False, True))
    overlap = np.linalg.svd(found.T @ exact, compute_uv=False)
    assert overlap.min() > 0.999


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_the_rest_of_the_gradient_is_scaled_as_adam_scaled_the_subspace(shape):
    """Fira's second step against its formula in float64, within the limit of growth."""
    rng = np.random.default_rng(5)
    gradients = rng.normal(size=(2, *shape)) * np.array([1.0, 0.5])[:, None, None]
    state = lowrank.Galore(shape, rank=2, seed=0, scale=1.0, residual=True)
    weight, expected, most = np.zeros(shape, np.float32), np.zeros((6, 9)), np.inf
    first, second = np.zeros((2, 9)), np.zeros((2, 9))
    for step, g in enumerate(gradients, 1):
        state.step(weight, g.astype(np.float32), 0.1)
        wide = g if shape[0] < shape[1] else g.T
        basis = state.basis.astype(np.float64)
        inner = basis.T @ wide
        first, second = 0.9 * first + 0.1 * inner, 0.999 * second + 0.001 * inner * inner
        found = first / (1 - 0.9**step) / np.sqrt(second / (1 - 0.999**step))
        rest = (wide - basis @ inner) * np.linalg.norm(found, axis=0) / np.linalg.norm(inner, axis=0)
        norm = min(np.linalg.norm(rest), most)
        rest, most = rest * norm / np.linalg.norm(rest), norm * moments.GROWTH
        expected = expected - 0.1 * (basis @ found + rest)
    assert weight == pytest.approx(expected if shape[0] < shape[1] else expected.T, abs=1e-4)


@pytest.mark.parametrize("per_channel", [True, False])
@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_apollo_scales_the_gradient_by_the_second_moment_of_its_projection(shape, per_channel):
    """Two steps against the formula in float64, within the limit of growth."""
    gradients = np.random.default_rng(7).normal(size=(2, *shape))
    state = lowrank.Apollo(shape, 3, seed=0, per_channel=per_channel)
    projection = np.random.default_rng([0, 0]).normal(size=(3, 6)) / np.sqrt(3)
    weight, expected, second, most = np.zeros(shape, np.float32), np.zeros((6, 9)), np.zeros((3, 9)), np.inf
    for step, g in enumerate(gradients, 1):
        state.step(weight, g.astype(np.float32), 0.1)
        wide = g if shape[0] < shape[1] else g.T
        inner = projection @ wide
        second = 0.999 * second + 0.001 * inner * inner
        found = inner / np.sqrt(second / (1 - 0.999**step))
        axis = 0 if per_channel else None
        update = np.sqrt(6 / 3) * wide * np.linalg.norm(found, axis=axis) / np.linalg.norm(inner, axis=axis)
        norm = min(np.linalg.norm(update), most)
        update, most = update * norm / np.linalg.norm(update), norm * moments.GROWTH
        expected = expected - 0.1 * update
    assert weight == pytest.approx(expected if shape[0] < shape[1] else expected.T, abs=1e-4)


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
def test_channels_are_divided_by_their_own_second_moment(shape):
    """Two steps against RMSProp on norms in float64; the second gradient is smaller, so that nothing holds it back."""
    first, second = np.random.default_rng(8).normal(size=(2, *shape)) * np.array([1.0, 0.1])[:, None, None]
    weight, state = np.zeros(shape, np.float32), lowrank.ChannelWise(shape, 4, seed=0)
    axis = 0 if shape[0] < shape[1] else 1
    squares = [np.square(g).mean(axis=axis, keepdims=True) for g in (first, second)]
    moments_after = squares[0], (0.999 * 0.001 * squares[0] + 0.001 * squares[1]) / (1 - 0.999**2)
    expected = np.zeros(shape)
    for g, moment in zip((first, second), moments_after, strict=True):
        state.step(weight, g.astype(np.float32), 0.1)
        expected = expected - 0.1 * g / np.sqrt(moment)
    assert weight == pytest.approx(expected, abs=1e-5)
    assert state.nbytes == 4 * 9 + 4


def test_apollo_draws_its_projection_anew():
    g = np.random.default_rng(6).normal(size=(8, 12)).astype(np.float32)
    moved = {}
    for refresh in (1, 5):
        weight, state = np.zeros((8, 12), np.float32), lowrank.Apollo((8, 12), 4, seed=0, refresh=refresh)
        for _ in range(5):
            state.step(weight, g, 0.01)
        moved[refresh] = weight
    assert not np.allclose(moved[1], moved[5])


def test_apollo_keeps_directions_and_limits_growth():
    rng = np.random.default_rng(3)
    weight, state = np.zeros((8, 12), np.float32), lowrank.optimizer("apollo-mini").state((8, 12), 4)
    g = rng.normal(size=(8, 12)).astype(np.float32)
    state.step(weight, g, 0.01)
    cosine = -(weight * g).sum() / np.linalg.norm(weight) / np.linalg.norm(g)
    assert cosine == pytest.approx(1, abs=1e-5)
    first = np.linalg.norm(weight)
    state.step(weight, 100 * g, 0.01)
    assert np.linalg.norm(weight) <= first * (2 + 2 * (moments.GROWTH - 1))


@pytest.mark.parametrize("name", lowrank.OPTIMIZERS)
def test_all_of_them_learn_a_linear_map_of_low_rank(name):
    rng = np.random.default_rng(4)
    x = rng.normal(size=(200, 24)).astype(np.float32)
    target = x @ (rng.normal(size=(24, 3)) @ rng.normal(size=(3, 32))).astype(np.float32)
    weight = np.zeros((24, 32), np.float32)
    state = lowrank.optimizer(name).state(weight.shape, 4, seed=0)
    before = np.square(target).mean()
    for step in range(300):
        gradient = x.T @ (x @ weight - target) / len(x)
        state.step(weight, gradient, 0.05 * (1 - step / 300))
    assert np.square(x @ weight - target).mean() < 0.2 * before


def test_help_names_every_one(capsys):
    with pytest.raises(SystemExit):
        main(["adapt", "--help"])
    words = set(capsys.readouterr().out.replace(",", " ").split())
    assert set(lowrank.OPTIMIZERS) <= words


def test_what_is_too_small_for_a_rank_is_left_to_adam():
    for name in ("galore", "apollo"):
        assert isinstance(lowrank.optimizer(name).state((256, 10), 16), lowrank.Adam)
        assert isinstance(lowrank.optimizer(name).state((256,), 16), lowrank.Adam)
    with pytest.raises(UsageError, match="unknown optimizer 'lion'"):
        lowrank.optimizer("lion")
    with pytest.raises(UsageError, match="a rank of 0"):
        lowrank.optimizer("galore").state((8, 8), 0)
