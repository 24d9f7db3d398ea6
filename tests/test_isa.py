# SPDX-License-Identifier: Apache-2.0
"""Which instruction set a net runs on; the tests of parity are where nets on each of them meet the oracle."""

import pytest
from agreement import SETS
from benches import open_net, samples

from edgelearn.engines import load
from edgelearn.errors import UsageError
from edgelearn.layers import Dense, LayerNormalization


@pytest.mark.parametrize("name", SETS)
def test_a_net_runs_on_the_set_that_is_asked_for(monkeypatch, name):
    outputs, layers = [], [Dense(65), LayerNormalization(), Dense(4)]  # a mean is a sum over the lanes of a set
    for isa in (load("native").isa, name):
        monkeypatch.setenv("EDGELEARN_ISA", isa)
        assert load("native").isa == isa
        outputs.append(open_net("native", layers).session.forward(samples(33, 6)[0]))
    assert outputs[0].tobytes() != outputs[1].tobytes(), "its sums round as those of the other set"


def test_an_instruction_set_that_is_not_here_is_refused(monkeypatch):
    monkeypatch.setenv("EDGELEARN_ISA", "sse")
    with pytest.raises(UsageError, match="unset it"):
        _ = load("native").isa
