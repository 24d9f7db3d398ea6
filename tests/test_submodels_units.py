# SPDX-License-Identifier: Apache-2.0
"""Submodels of recurrent layers, attention, feed-forward and residual units: views, plain nets, files, learning."""

from __future__ import annotations

import numpy as np
import pytest
from clouds import clouds
from oracle import Oracle

import edgelearn as el
from edgelearn import engines
from edgelearn.export.runtimes import load as runtime
from edgelearn.layers import GRU, LSTM, SimpleRNN
from edgelearn.net import slices
from edgelearn.prefixes import Freedom, freedoms

GRID = (0.25, 0.5, 1.0)


def recurrent(**settings):
    layers = [
        GRU(12, return_sequences=True),
        el.LayerNormalization(),
        LSTM(10, use_bias=False, return_sequences=True),
        SimpleRNN(9),
        el.Dense(16, "relu"),
        el.Dense(3),
    ]
    return el.Net(layers, input_shape=(6, 4), **settings)


def transformer(**settings):
    layers = [
        el.Conv2D(8, 3, strides=3),
        el.Reshape((-1, 8)),
        el.PositionEmbedding(),
        el.Residual([el.LayerNormalization(), el.MultiHeadAttention(4)], name="look"),
        el.Residual([el.LayerNormalization(), el.FeedForward(24)]),
        el.Residual([el.MultiHeadAttention(2, key_dim=6)]),
        el.LayerNormalization(),
        el.GlobalAvgPool(),
        el.Dense(16, "tanh"),
        el.Dense(3),
    ]
    return el.Net(layers, input_shape=(9, 6, 1), **settings)


NETS = {"recurrent": recurrent, "transformer": transformer}
MIXES = {
    "recurrent": [0.25, 0.5, [1.0, 0.25, 0.5, 1.0]],
    "transformer": [0.25, 0.5, [1.0, 0.25, 0.5, 1.0, 0.25]],
}
CASES = [(name, width) for name, widths in MIXES.items() for width in widths]


def shapes_of(name):
    return clouds(120, 3, {"recurrent": (6, 4), "transformer": (9, 6, 1)}[name], 0.6, seed=1)


@pytest.fixture(scope="module")
def trained():
    found = {}
    for name, make in NETS.items():
        net = make(nested=GRID, seed=1)
        found[name] = net.fit(*shapes_of(name), rule="readout", epochs=20, batch=20, lr=0.01, seed=0)
    return found


@pytest.mark.parametrize("name", list(NETS))
def test_every_width_has_learned_and_the_full_one_is_the_net_itself(trained, name):
    net, (x, y) = trained[name], shapes_of(name)
    assert np.array_equal(net.submodel(1.0).forward(x), net.forward(x))
    for width in GRID:
        assert net.submodel(width).score(x, y) > 0.8


@pytest.mark.parametrize(("name", "width"), CASES)
def test_a_plain_net_of_a_submodel_answers_as_the_view_does(trained, name, width):
    small, x = trained[name].submodel(width), shapes_of(name)[0]
    assert all(np.shares_memory(view, trained[name].flat) for view in small.weights.values())
    plain = small.compact()
    assert plain.flat.size * 4 == small.weight_bytes < trained[name].weight_bytes
    assert plain.graph.macs == small.graph.macs
    assert sum(view.size for view in small.weights.values()) == sum(view.size for view in plain.weights.values())
    np.testing.assert_allclose(plain.forward(x), small.forward(x), rtol=0, atol=1e-6)


def exact(net, x):
    """What the weights of a net answer in float64."""
    config = engines.Config(batch=64, targets=net.graph.outputs, train=False)
    return Oracle(net.graph.records, net.flat.astype(np.float64), config).forward(net.input.prepare(x).astype(float))


@pytest.mark.parametrize(("name", "width"), CASES)
def test_a_slice_is_off_by_rounding_alone_and_hardly_by_that_of_the_scale_in_its_weights(trained, name, width):
    small, x = trained[name].submodel(width), shapes_of(name)[0]
    plain = small.compact()
    true, folded = exact(small, x), exact(plain, x)
    np.testing.assert_allclose(folded, true, rtol=0, atol=2e-7)
    np.testing.assert_allclose(small.forward(x), true, rtol=0, atol=1e-6)
    np.testing.assert_allclose(plain.forward(x), true, rtol=0, atol=1e-6)


@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
@pytest.mark.parametrize(("name", "width"), [case for case in CASES if case[1] != 0.5])
def test_exported_slices_run_and_equal_the_view(trained, tmp_path, suffix, name, width):
    pytest.importorskip({"onnx": "onnxruntime", "tflite": "ai_edge_litert"}[suffix])
    small, x = trained[name].submodel(width), shapes_of(name)[0]
    small.export(tmp_path / f"small.{suffix}", samples=x[:16])
    answers = runtime(tmp_path / f"small.{suffix}").run(x.reshape(120, -1))
    np.testing.assert_allclose(answers, small.forward(x), rtol=0, atol=2e-6)  # runtimes have a tanh of their own


@pytest.mark.parametrize(("name", "width"), [case for case in CASES if case[1] != 0.5])
def test_a_saved_submodel_is_a_plain_model(trained, tmp_path, name, width):
    small, x = trained[name].submodel(width), shapes_of(name)[0]
    small.save(tmp_path / "small.safetensors")
    plain = el.load(tmp_path / "small.safetensors")
    assert plain.nested is None
    np.testing.assert_allclose(plain.forward(x), small.forward(x), rtol=0, atol=1e-6)
    trained[name].save(tmp_path / "whole.safetensors")
    again = el.load(tmp_path / "whole.safetensors").submodel(width)
    assert np.array_equal(again.forward(x), small.forward(x))


@pytest.mark.parametrize("rule", ["readout", "tp-l2"])
@pytest.mark.parametrize("name", list(NETS))
def test_learning_in_a_submodel_changes_the_shared_prefix_and_nothing_else(name, rule):
    net = NETS[name](nested=GRID, seed=2).fit(*shapes_of(name), rule=rule, epochs=1, batch=20)
    small, before = net.submodel(0.5), net.flat.copy()
    small.fit(*shapes_of(name), rule=rule, epochs=5, batch=20, lr=0.01)
    shared = slices.used(small.graph)
    assert not (net.flat != before)[~shared].any()
    assert (net.flat != before)[shared].mean() > 0.9


@pytest.mark.parametrize("name", list(NETS))
def test_plans_count_what_submodels_take_alone_and_chosen_ones_fit(trained, name):
    net = trained[name]
    for purpose in ("infer", "train"):
        plans = [net.submodel(width).plan(purpose=purpose, batch=8) for width in GRID]
        for field in ("peak_bytes", "weight_bytes", "macs"):
            figures = [getattr(plan, field) for plan in plans]
            assert figures == sorted(set(figures))
    net.score_submodels(*shapes_of(name))
    macs = (net.submodel(0.25).graph.macs + net.graph.macs) // 2
    assert net.submodel(budget=el.Budget(macs=macs)).graph.macs <= macs
    free = sum(freedom is Freedom.OWN for freedom in freedoms(net.graph))
    assert len(net.provenance["submodels"]) == 3**free


def test_what_units_add_to_stays_whole(trained):
    small = trained["transformer"].submodel(0.25)
    assert small.widths == (1.0, 0.25, 0.25, 0.25, 0.25, 1.0)
    plain = {layer.name or type(layer).__name__: layer for layer in small.compact().layers}
    assert plain["Conv2D"].filters == 8
    assert (plain["look"].layers[1].num_heads, plain["look"].layers[1].key_dim) == (1, 2)
    assert small.compact().layers[4].layers[1].units == 6
    assert small.compact().layers[8].units == 4


def test_a_recurrent_submodel_answers_and_learns_as_a_stream(trained):
    x, y = shapes_of("recurrent")
    net = recurrent(nested=GRID, seed=2).fit(x, y, rule="readout", epochs=1, batch=20)
    small = net.submodel(0.5)
    stream = small.stream(batch=4, rule="readout")
    whole = small.forward(x[:4])
    stream.forward(x[:4, :2])
    np.testing.assert_allclose(stream.forward(x[:4, 2:]), whole, rtol=0, atol=1e-6)
    before = net.flat.copy()
    stream.learn(x[4:8], y[4:8], lr=0.01)
    assert (net.flat != before).any()
    assert not (net.flat != before)[~slices.used(small.graph)].any()


@pytest.mark.parametrize("name", list(NETS))
def test_sequential_training_runs_earlier_blocks_at_the_widths_drawn(name):
    net = NETS[name](nested=GRID, seed=1)
    x, y = shapes_of(name)
    net.fit(x, y, rule="readout", epochs=20, batch=20, lr=0.01, schedule="sequential")
    assert min(net.submodel(0.5).score(x, y), net.score(x, y)) > 0.6


def test_heads_that_are_refused():
    with pytest.raises(el.ModelError, match="3 heads do not divide a width of 8: .*, or give key_dim"):
        el.Net([el.Conv1D(8, 1), el.MultiHeadAttention(3), el.Dense(2)], input_shape=(4, 2))
    with pytest.raises(el.ModelError, match="unit of a head"):
        el.MultiHeadAttention(2, key_dim=0)
    net = el.Net([el.Conv1D(8, 1), el.MultiHeadAttention(3, key_dim=5), el.Dense(2)], input_shape=(4, 2))
    assert net.weights["multi_head_attention.qkv.weight"].shape == (8, 45)
