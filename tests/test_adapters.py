# SPDX-License-Identifier: Apache-2.0
"""Adapters by themselves: gradients against finite differences, what each kind promises of its weights, files."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from edgelearn import adapters, tensorfile
from edgelearn.adapters import householder, partly
from edgelearn.adapters.local import (
    CodeDistance,
    Readout,
    Training,
    cells,
    cross_entropy,
    fit,
    of_codes,
    pooled,
)
from edgelearn.errors import LearningError, ModelError, UsageError

RNG = np.random.default_rng(0)


def stirred(kind, channels=6, rank=4, **settings):
    """An adapter that is no identity any more."""
    adapter = adapters.fresh(kind, channels, rank, 0, **settings)
    for array in adapter.weights.values():
        array += np.random.default_rng(1).normal(0, 0.3, array.shape).astype(np.float32)
    adapter.after_step()
    return adapter


@pytest.mark.parametrize("kind", adapters.KINDS)
def test_a_fresh_adapter_changes_nothing(kind):
    h = RNG.normal(size=(5, 3, 6)).astype(np.float32)
    assert adapters.fresh(kind, 6, 4, 0).apply(h) == pytest.approx(h, abs=1e-6)


@pytest.mark.parametrize("kind", adapters.KINDS)
def test_gradients_are_those_of_finite_differences(kind):
    adapter = stirred(kind)
    h, dout = RNG.normal(size=(2, 5, 3, 6))
    h += np.sign(h) * 0.05
    adapter.weights = {name: array.astype(np.float64) for name, array in adapter.weights.items()}
    found = adapter.gradients(h, dout)
    for name, gradient in found.items():
        array = adapter.weights[name]
        for place in np.ndindex(array.shape):
            if kind == "partly" and not gradient[place]:
                continue  # the other skill's half, which the next test is about
            value, step = array[place], 1e-5
            array[place] = value + step
            above = (adapter.apply(h) * dout).sum()
            array[place] = value - step
            below = (adapter.apply(h) * dout).sum()
            array[place] = value
            assert gradient[place] == pytest.approx((above - below) / (2 * step), rel=1e-4, abs=1e-6)


def test_a_skill_leaves_the_half_of_the_other_to_the_bit():
    h, y = RNG.normal(size=(40, 1, 8)).astype(np.float32), np.arange(40, dtype=np.int32) % 3
    objective = Readout(RNG.normal(size=(8, 3)).astype(np.float32), np.zeros(3, np.float32))
    first = adapters.fresh("partly", 8, 4, 0, skill=0)
    fit(first, h, y, objective, Training(steps=20))
    kept = {name: array.copy() for name, array in first.weights.items()}
    second = first.switch(1)
    fit(second, h, (y + 1) % 3, objective, Training(steps=20))
    assert np.array_equal(kept["lora_A"][:2], second.weights["lora_A"][:2])
    assert np.array_equal(kept["lora_B"][:, :2], second.weights["lora_B"][:, :2])
    assert not np.array_equal(kept["lora_B"][:, 2:], second.weights["lora_B"][:, 2:])


def test_spliced_skills_are_the_sum_of_both():
    one, two = (adapters.fresh("partly", 8, 4, 0, skill=skill) for skill in (0, 1))
    one.weights["lora_B"][:, :2] += 1
    two.weights["lora_B"][:, 2:] -= 0.5
    h = RNG.normal(size=(3, 8)).astype(np.float32)
    both = partly.splice(one, two)
    assert both.apply(h) - h == pytest.approx(one.apply(h) - h + two.apply(h) - h, abs=1e-5)
    basis = both.weights["lora_A"]
    assert basis @ basis.T == pytest.approx(np.eye(4), abs=1e-6)
    with pytest.raises(ModelError, match="both adapters hold skill 0"):
        partly.splice(one, one)
    with pytest.raises(ModelError, match="one rank and alpha"):
        partly.splice(one, adapters.fresh("partly", 8, 2, 0, skill=1))


def test_reflectors_stay_orthogonal_over_ten_thousand_float32_steps():
    adapter = adapters.fresh("householder", 16, 4, 0)
    rng = np.random.default_rng(0)
    for _ in range(10_000):
        rows = adapter.weights["reflectors"]
        rows -= np.float32(0.01) * rng.normal(size=rows.shape).astype(np.float32)
        adapter.after_step()
    matrix = adapter.matrix().astype(np.float64)
    assert matrix.dtype == np.float64
    assert np.abs(matrix.T @ matrix - np.eye(16)).max() < 1e-5
    assert np.linalg.det(matrix) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("n", [2, 5, 16])
def test_an_orthogonal_matrix_goes_through_its_reflectors(n):
    matrix = np.linalg.qr(np.random.default_rng(n).normal(size=(n, n)))[0]
    rows, tau, signs = householder.reflectors_of(matrix)
    assert np.all(np.diag(rows) == 1)
    assert np.all(np.tril(rows, -1) == 0)
    assert np.abs(householder.product_of(rows, tau, signs) - matrix).max() < 1e-12
    with pytest.raises(UsageError, match="only an orthogonal matrix"):
        householder.reflectors_of(matrix * 2)


def test_ranks_nest():
    adapter = stirred("lora", 6, 4)
    cut = adapter.prefix(2)
    delta = adapter.scaling * adapter.weights["lora_B"][:, :2] @ adapter.weights["lora_A"][:2]
    assert cut.matrix() == pytest.approx(np.eye(6) + delta, abs=1e-6)
    assert np.shares_memory(cut.weights["lora_A"], adapter.weights["lora_A"])


def test_ranks_that_were_trained_to_nest_work_alone():
    rng = np.random.default_rng(5)
    y = (np.arange(90) % 3).astype(np.int32)
    h = (rng.normal(size=(3, 1, 16))[y] + rng.normal(0, 0.5, (90, 1, 16))).astype(np.float32)
    objective = Readout(rng.normal(0, 0.3, (16, 3)).astype(np.float32), np.zeros(3, np.float32))
    losses = []
    for nested in (False, True):
        adapter = adapters.fresh("lora", 16, 8, 0)
        fit(adapter, h, y, objective, Training(steps=100, nested=nested))
        losses.append([cross_entropy(objective.logits(adapter.prefix(rank).apply(h)), y) for rank in (2, 4, 8)])
    assert losses[1][0] < losses[0][0]
    assert losses[1][2] < losses[1][0]
    with pytest.raises(UsageError, match="kind householder do not nest"):
        fit(adapters.fresh("householder", 16, 8, 0), h, y, objective, Training(nested=True))


@pytest.mark.parametrize("kind", [kind for kind, cls in adapters.KINDS.items() if cls.linear])
def test_averages_of_a_linear_adapter_are_the_adapter_of_the_averages(kind):
    adapter, h = stirred(kind), RNG.normal(size=(2, 35, 6)).astype(np.float32)
    assert pooled(adapter.apply(h), (5, 7)) == pytest.approx(adapter.apply(pooled(h, (5, 7))), abs=1e-5)
    assert adapter.apply(h) == pytest.approx(h @ adapter.matrix().T, abs=1e-5)


def test_averages_are_weighed_alike():
    for sides in ((1, 1), (3, 3), (5, 7), (1, 64), (28, 28)):
        matrix = cells(sides)
        assert matrix.sum(axis=1) == pytest.approx(1)
        assert len(matrix) == min(3, sides[0]) * min(3, sides[1])


@pytest.mark.parametrize("kind", adapters.KINDS)
@pytest.mark.parametrize("rule", ["readout", "tp-ce", "tp-l2"])
def test_training_lowers_the_local_objective(kind, rule):
    rng = np.random.default_rng(2)
    y = (np.arange(60) % 3).astype(np.int32)
    centres = rng.normal(size=(3, 9, 8))
    h = (centres[y] + rng.normal(0, 0.5, (60, 9, 8))).astype(np.float32)
    codes = rng.normal(size=(3, 8)).astype(np.float32)
    objective = {
        "readout": Readout(rng.normal(0, 0.3, (72, 3)).astype(np.float32), np.zeros(3, np.float32)),
        "tp-ce": of_codes(codes, 9, 0.2),
        "tp-l2": CodeDistance(codes),
    }[rule]

    def loss(adapter):
        seen = adapter.apply(h)
        if rule == "tp-l2":
            return float(((seen.mean(axis=1) - codes[y]) ** 2).sum(axis=1).mean())
        return cross_entropy(objective.logits(seen), y)

    adapter = adapters.fresh(kind, 8, 4, 0)
    before = loss(adapter)
    fit(adapter, h, y, objective, Training(lr=1e-2, steps=100), np.eye(9, dtype=np.float32))
    assert loss(adapter) < 0.95 * before


def test_an_adapter_that_diverges_is_set_back():
    h, y = np.full((4, 1, 2), 1e30, np.float32), np.array([0, 1, 0, 1], np.int32)
    adapter = adapters.fresh("lora", 2, 1, 0)
    kept = adapter.weights["lora_A"].copy()
    objective = CodeDistance(np.zeros((2, 2), np.float32))
    with np.errstate(all="ignore"), pytest.raises(LearningError, match="diverged and was set back"):
        fit(adapter, h, y, objective, Training(lr=1e30))
    assert np.array_equal(adapter.weights["lora_A"], kept)


def test_what_cannot_be_meant_is_refused():
    with pytest.raises(UsageError, match="rank 9 does not fit the 8 channels of tap x: choose 1 to 8"):
        adapters.fresh("lora", 8, 9, 0, "tap x")
    with pytest.raises(UsageError, match="unknown adapter 'ia3': choose one of lora"):
        adapters.fresh("ia3", 8, 2, 0)
    with pytest.raises(UsageError, match="reflectors come in pairs"):
        adapters.fresh("householder", 8, 3, 0)
    with pytest.raises(UsageError, match="choose an even rank, not 3"):
        adapters.fresh("partly", 8, 3, 0)
    with pytest.raises(UsageError, match="all must be positive"):
        Training(lr=0)
    with pytest.raises(ModelError, match="do not make an adapter of kind lora"):
        adapters.restored("lora", {"lora_A": np.zeros((2, 3), np.float32)}, {"alpha": 2.0})


def test_arrays_go_through_a_file_that_safetensors_reads(tmp_path):
    path, arrays = tmp_path / "a.safetensors", {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}
    tensorfile.write(path, arrays, {"about": json.dumps([1])})
    assert np.array_equal(load_file(path)["x"], arrays["x"])
    found, metadata = tensorfile.read(path)
    assert np.array_equal(found["x"], arrays["x"])
    assert metadata == {"about": "[1]"}
    with pytest.raises(ModelError, match="'x' is not finite"):
        tensorfile.write(path, {"x": np.array([np.nan], np.float32)}, {})
    for cut in (0, 5, 40, len(path.read_bytes()) - 1):
        (tmp_path / "b.safetensors").write_bytes(path.read_bytes()[:cut])
        with pytest.raises(ModelError, match="fetch it again"):
            tensorfile.read(tmp_path / "b.safetensors")
    with pytest.raises(ModelError, match="check the path"):
        tensorfile.read(tmp_path / "none.safetensors")
