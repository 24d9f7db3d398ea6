# SPDX-License-Identifier: Apache-2.0
"""Submodels of fewer blocks: which units may be left out, what is left answers as a plain net of it, also in files."""

from __future__ import annotations

import json

import numpy as np
import pytest
from clouds import clouds

import edgelearn as el
from edgelearn import nested
from edgelearn.cli import main
from edgelearn.export.runtimes import load as runtime
from edgelearn.net import skipping, slices

SKIPS = [["residual"], ["look"], ["residual", "think"], ["look", "residual", "feed_forward", "think"]]


def stack(**settings):
    layers = [
        el.Conv2D(8, 3, strides=3, use_bias=False),
        el.BatchNormalization(),
        el.Reshape((-1, 8)),
        el.PositionEmbedding(),
        el.Residual([el.LayerNormalization(), el.MultiHeadAttention(4)], name="look"),
        el.Residual([el.FeedForward(20, "relu")]),
        el.LayerNormalization(),
        el.FeedForward(12),
        el.Residual([el.LayerNormalization(), el.FeedForward(16)], name="think"),
        el.LayerNormalization(),
        el.GlobalAvgPool(),
        el.Dense(10, "tanh"),
        el.Dense(3),
    ]
    return el.Net(layers, input_shape=(9, 6, 1), **settings)


@pytest.fixture(scope="module")
def data():
    return clouds(90, 3, (9, 6, 1), 0.6, seed=1)


@pytest.fixture(scope="module")
def trained(data):
    return stack(nested=(0.25, 0.5, 1.0), seed=1).fit(*data, rule="readout", epochs=6, batch=15, lr=0.01)


@pytest.mark.parametrize("width", [None, 0.5])
@pytest.mark.parametrize("skip", SKIPS)
def test_what_is_left_answers_as_a_plain_net_of_it(trained, data, skip, width):
    small = trained.submodel(width, skip=skip)
    assert small.flat is trained.flat
    assert small.graph.blocks == trained.graph.blocks - len(skip)
    assert small.graph.macs < trained.graph.macs
    plain = small.compact()
    assert len(plain.layers) == len(trained.layers) - len(skip)
    assert plain.flat.size * 4 == small.weight_bytes < trained.weight_bytes
    assert sum(view.size for view in small.weights.values()) == sum(view.size for view in plain.weights.values())
    np.testing.assert_allclose(plain.forward(data[0]), small.forward(data[0]), rtol=0, atol=1e-6)


def test_a_branch_that_gives_nothing_may_be_left_out_without_a_trace(data):
    net = stack(seed=2)
    for name in ("look.multi_head_attention.output", "residual.feed_forward.output"):
        net.weights[f"{name}.weight"][...] = 0
        net.weights[f"{name}.bias"][...] = 0
    small = net.submodel(skip=["residual", "look"])
    np.testing.assert_allclose(small.forward(data[0]), net.forward(data[0]), rtol=0, atol=1e-6)
    assert not np.allclose(net.submodel(skip="think").forward(data[0]), net.forward(data[0]), atol=1e-3)


def test_units_go_by_name_or_by_their_place_among_the_layers(trained, data):
    assert skipping.units_of(trained.layers) == {
        "look": (4, 1),
        "residual": (5, 2),
        "feed_forward": (7, 3),
        "think": (8, 4),
    }
    by_name, by_place = trained.submodel(skip=["think", "residual"]), trained.submodel(skip=[5, 8])
    assert by_name.slice.skipped == by_place.slice.skipped == ("residual", "think")
    assert np.array_equal(by_name.forward(data[0]), by_place.forward(data[0]))
    assert "skip=['residual', 'think']" in repr(by_name)


def test_learning_in_what_is_left_changes_it_and_nothing_else(data):
    net = stack(nested=(0.5, 1.0), seed=2).fit(*data, rule="readout", epochs=1, batch=15)
    small, before = net.submodel(0.5, skip="look"), net.flat.copy()
    small.fit(*data, rule="readout", epochs=4, batch=15, lr=0.01)
    shared = slices.used(small.graph)
    assert not (net.flat != before)[~shared].any()
    assert (net.flat != before)[shared].mean() > 0.9
    assert not shared[slices.used(net.graph)].all()


@pytest.mark.parametrize("suffix", ["onnx", "tflite", "safetensors"])
def test_files_of_what_is_left_equal_it(trained, data, tmp_path, suffix):
    small, path = trained.submodel(0.5, skip=["look", "feed_forward"]), tmp_path / f"small.{suffix}"
    if suffix == "safetensors":
        small.save(path)
        answers = el.load(path).forward(data[0])
        assert el.load(path).provenance["skipped"] == ["look", "feed_forward"]
    else:
        pytest.importorskip({"onnx": "onnxruntime", "tflite": "ai_edge_litert"}[suffix])
        small.export(path, samples=data[0][:16])
        answers = runtime(path).run(data[0].reshape(90, -1))
    np.testing.assert_allclose(answers, small.forward(data[0]), rtol=0, atol=1e-6)


def test_plans_count_what_is_left(trained):
    whole, small = trained.plan(purpose="infer"), trained.submodel(skip=["look", "think"]).plan(purpose="infer")
    assert small.weight_bytes < whole.weight_bytes
    assert small.macs < whole.macs
    assert small.predicted_ms < whole.predicted_ms


@pytest.mark.parametrize(
    ("skip", "words"),
    [
        ("see", "there is no layer 'see': only residual, .*; choose from look, residual, feed_forward, think"),
        (["look", 99], "there is no layer 99"),
        ([-1], "there is no layer -1"),
        ([True], "there is no layer True"),
        (3.5, "there is no layer 3.5"),
        ("dense", "layer 'dense' cannot be skipped: only residual, attention and feed-forward units inside the net"),
        (0, "layer 'conv2_d' cannot be skipped|layer 'conv2d' cannot be skipped"),
        ([], "no unit to skip is named; choose from look"),
    ],
)
def test_what_cannot_be_skipped_is_refused(trained, skip, words):
    with pytest.raises(el.UsageError, match=words):
        trained.submodel(skip=skip)


def test_nets_that_cannot_do_without_a_unit_refuse():
    plain = el.Net([el.Dense(4), el.Dense(2)], input_shape=(3,))
    with pytest.raises(el.UsageError, match="this net has none; give a width instead"):
        plain.submodel(skip="dense")
    first = el.Net([el.FeedForward(5), el.LayerNormalization(), el.Dense(2)], input_shape=(3,))
    with pytest.raises(el.ModelError, match="would begin the net: skip another one"):
        first.submodel(skip="feed_forward")
    layers = [el.Dense(4), el.Dropout(0.1), el.FeedForward(3), el.Dropout(0.1), el.Dense(2)]
    with pytest.raises(el.ModelError, match="two Dropouts would follow each other"):
        el.Net(layers, input_shape=(3,)).submodel(skip="feed_forward")
    net = el.Net([el.FeedForward(5), el.Dense(4), el.Dense(2)], input_shape=(3,), seed=1)
    x = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    small = net.submodel(skip=0)
    np.testing.assert_allclose(small.compact().forward(x), small.forward(x), rtol=0, atol=1e-6)
    with pytest.raises(el.UsageError, match="this is a submodel: cut the whole net instead"):
        small.submodel(skip=0)
    with pytest.raises(el.UsageError, match="units to skip go with a width"):
        net.submodel(skip=0, budget=el.Budget(ram="1MB"))
    with pytest.raises(el.UsageError, match="not nested, so its prefixes were never trained"):
        net.submodel(0.5, skip=0)


def test_the_command_line_skips_units(trained, data, tmp_path, capsys):
    model, small = str(tmp_path / "whole.safetensors"), str(tmp_path / "small.onnx")
    trained.save(model)
    assert main(["submodel", model, "--skip", "look,think", "--width", "0.5", "-o", small, "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["macs"] == trained.submodel(0.5, skip=["look", "think"]).graph.macs
    assert main(["submodel", model, "--skip", "conv"]) == 2
    assert "choose from look, residual, feed_forward, think" in capsys.readouterr().err
    assert main(["submodel", model, "--skip", "look", "--budget", "ram=1MB"]) == 2
    assert "--skip goes with --width" in capsys.readouterr().err


def test_statistics_go_with_the_widths_that_are_left(data):
    layers = [
        el.Dense(6, use_bias=False),
        el.FeedForward(8),
        el.Dense(12, use_bias=False),
        el.BatchNormalization(),
        el.Dense(8, use_bias=False),
        el.BatchNormalization(),
        el.Dense(3),
    ]
    net = el.Net(layers, input_shape=(9, 6, 1), nested=nested.Nested((0.5, 1.0)), seed=1)
    net.fit(*data, rule="readout", epochs=3, batch=15)
    small = net.submodel(0.5, skip="feed_forward")
    np.testing.assert_allclose(small.compact().forward(data[0]), small.forward(data[0]), rtol=0, atol=1e-6)
