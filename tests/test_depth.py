# SPDX-License-Identifier: Apache-2.0
"""Stacks that change their depth and width: what is kept exactly, and what is kept in function."""

import numpy as np
import pytest

from edgelearn.adaptation import depth
from edgelearn.errors import UsageError

RNG = np.random.default_rng(0)


def stack(count, side=6):
    return [
        {"weight": RNG.normal(size=(side, side)).astype(np.float32), "bias": RNG.normal(size=side).astype(np.float32)}
        for _ in range(count)
    ]


def same(one, two, exact=True):
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        for name in a:
            assert np.array_equal(a[name], b[name]) if exact else a[name] == pytest.approx(b[name], abs=1e-5)


def test_a_linear_stack_goes_through_its_gene_at_any_depth():
    base, slope = stack(2)
    grown = depth.linear_expansion(base, slope, 8)
    found_base, found_slope = depth.linear_gene(grown)
    same([found_base, found_slope], [base, slope], exact=False)
    same(depth.linear_expansion(found_base, found_slope, 8), grown, exact=False)
    # Half of the depth is every second layer.
    same(depth.linear_expansion(base, slope, 4), grown[::2], exact=False)


def test_stages_are_copied_in_order_and_shared_ones_are_means():
    assert depth.stage_map(5, 12) == [0, 0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4]
    assert depth.stage_map(3, 2) == [0, 1]
    stages = stack(3)
    grown = depth.stagewise(stages, 7)
    assert len(grown) == 7
    same(depth.stages_of(grown, 3), stages, exact=False)
    grown[0]["bias"][:] = 0
    assert stages[0]["bias"].any()


def test_coalescing_undoes_decoalescing_exactly():
    layers = stack(3)
    same(depth.coalesce_depth(depth.decoalesce_depth(layers)), layers)
    weight = layers[0]["weight"]
    assert np.array_equal(depth.coalesce_width(depth.decoalesce_width(weight)), weight)


def test_a_wider_matrix_does_on_doubled_features_what_the_narrow_one_does():
    weight, x = RNG.normal(size=(4, 6)).astype(np.float32), RNG.normal(size=(5, 4)).astype(np.float32)
    wide = depth.decoalesce_width(weight)
    assert np.repeat(x, 2, axis=1) @ wide == pytest.approx(np.repeat(x @ weight, 2, axis=1), abs=1e-5)
    ends = depth.decoalesce_width(weight, inputs=False)
    assert x @ ends == pytest.approx(np.repeat(x @ weight, 2, axis=1), abs=1e-5)


def test_interpolation_breaks_the_likeness_of_doubled_layers():
    before, small = stack(4), stack(2)
    grown = depth.decoalesce_depth(small)
    same(depth.interpolate(before, grown, 0), before)
    same(depth.interpolate(before, grown, 1), grown)
    mixed = depth.interpolate(before, grown, 0.5)
    assert not np.array_equal(mixed[0]["weight"], mixed[1]["weight"])


def test_what_does_not_stack_is_refused():
    with pytest.raises(UsageError, match="0 layers cannot become 1"):
        depth.linear_gene([])
    with pytest.raises(UsageError, match="must have the same arrays"):
        depth.stagewise([*stack(1), *stack(1, side=4)], 3)
    with pytest.raises(UsageError, match="3 layers have no pairs"):
        depth.coalesce_depth(stack(3))
    with pytest.raises(UsageError, match="a side of 5 has no pairs"):
        depth.coalesce_width(np.zeros((5, 4), np.float32))
    with pytest.raises(UsageError, match="alpha 2 and stacks"):
        depth.interpolate(stack(2), stack(2), 2)
    with pytest.raises(UsageError, match="do not make 4 stages"):
        depth.stages_of(stack(3), 4)
    with pytest.raises(UsageError, match="0 stages and 3 layers"):
        depth.stage_map(0, 3)
