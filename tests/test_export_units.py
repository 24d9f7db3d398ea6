# SPDX-License-Identifier: Apache-2.0
"""Embeddings, positions, attention and residual units in the real runtimes, against the core and the oracle."""

from __future__ import annotations

import numpy as np
import pytest
from exporting import core, evaluate, random_parameters, samples_of, write
from nets import UNITS

import edgelearn as el
from edgelearn import export, graph
from edgelearn.export import Precision, runtimes
from edgelearn.export.calibration import Calibration
from edgelearn.layers import (
    Activation,
    AvgPool,
    BatchNormalization,
    Conv1D,
    Conv2D,
    Dense,
    Embedding,
    FeedForward,
    GlobalAvgPool,
    LayerNormalization,
    MaxPool,
    MultiHeadAttention,
    PositionEmbedding,
    Reshape,
    Residual,
)

SUFFIXES = (".onnx", ".tflite")


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    return tmp_path / f"net{request.param}"


def samples_for(net, layers, count):
    if isinstance(layers[0], Embedding):
        return np.random.default_rng(1).integers(0, layers[0].input_dim, (count, *net.input_shape)).astype(np.float32)
    return samples_of(net, count)


def check(path, layers, shape, count=9, **changes):
    """The file, the core and the oracle give the same, for one sample and for several."""
    net = graph.build(layers, shape, **changes)
    flat = random_parameters(net)
    if "rescale" in changes:
        flat[:2] = 1, 0
    x = samples_for(net, layers, count)
    report = write(path, net, flat, forward=lambda rows: core(net, flat, rows), samples=x)
    assert report.max_abs_diff <= 1e-4
    expected = evaluate(net, flat, x)
    np.testing.assert_allclose(core(net, flat, x), expected, rtol=1e-4, atol=1e-5)
    runtime = runtimes.load(path)
    for part in (x[:1], x):
        np.testing.assert_allclose(
            runtime.run(part.reshape(len(part), -1)), expected[: len(part)], rtol=1e-3, atol=1e-4
        )


@pytest.mark.parametrize("net", list(UNITS))
def test_every_net_of_units_answers_as_the_core_does(path, net):
    check(path, *UNITS[net])


@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("steps", [1, 7])
def test_attention_of_any_number_of_heads_and_steps(path, steps, heads):
    check(path, [MultiHeadAttention(heads), GlobalAvgPool(), Dense(3)], (steps, 8))


@pytest.mark.parametrize("pools", [[GlobalAvgPool()], [MaxPool(2), AvgPool(2), Activation("tanh")]])
def test_pools_need_no_convolution_in_front(path, pools):
    check(path, [Embedding(5, 6), *pools, Dense(3)], (9,))


NETS = {
    "activation first": ([Dense(6), Residual([Activation("relu"), Dense(6)]), Dense(3)], (4,)),
    "relu behind": ([Dense(6), Residual([Dense(6)]), Activation("relu"), Dense(3)], (4,)),
    "batch normalisation first": (
        [Conv2D(4, 3), Residual([BatchNormalization(), Activation("relu"), Conv2D(4, 3, padding="same")]), Dense(3)],
        (6, 5, 2),
    ),
    "normalisation behind": (
        [Conv1D(8, 1), Residual([MultiHeadAttention(2)]), LayerNormalization(), FeedForward(5), Dense(3)],
        (6, 2),
    ),
    "map to sequence inside": (
        [Conv2D(4, 2), Reshape((-1, 4)), Residual([FeedForward(5)]), PositionEmbedding(), Dense(3)],
        (4, 3, 1),
    ),
}


@pytest.mark.parametrize("net", list(NETS))
def test_branches_keep_what_they_began_with(path, net):
    check(path, *NETS[net])


def test_tokens_behind_a_scaling_of_one_stay_tokens(path):
    check(path, *UNITS["tokens"], rescale=1)


def test_attention_agrees_over_a_thousand_steps(path):
    check(path, [Conv1D(8, 1), MultiHeadAttention(2), GlobalAvgPool(), Dense(3)], (1000, 3), count=2)


@pytest.mark.parametrize("net", ["patches", "maps in branches", "branches"])
def test_branches_are_int8_too(path, net):
    layers, shape = UNITS[net]
    built = graph.build(layers, shape)
    flat = random_parameters(built)
    x = samples_of(built, 64)
    report = export.write(
        path,
        built,
        flat,
        forward=lambda rows: core(built, flat, rows),
        samples=x,
        precision=Precision("int8", Calibration(x)),
    )
    assert report.max_abs_diff < 0.1
    assert report.label_agreement >= 0.95


def test_tokens_stay_whole_numbers_before_an_int8_table(path):
    layers, shape = UNITS["tokens"]
    built = graph.build(layers, shape)
    flat, x = random_parameters(built), samples_for(built, layers, 64)
    precision = Precision("int8", Calibration(x))
    report = write(path, built, flat, forward=lambda r: core(built, flat, r), samples=x, precision=precision)
    assert report.max_abs_diff < 0.1
    assert runtimes.load(path).dtype == np.float32


def test_a_net_of_tokens_leaves_by_its_own_samples(path):
    x = np.arange(160).reshape(20, 8) * 7 % 11
    net = el.Net([el.Embedding(11, 6), el.MultiHeadAttention(2), el.GlobalAvgPool(), el.Dense(2)])
    report = net.fit(x, np.arange(20) % 2, epochs=1).export(path)
    assert report.max_abs_diff <= 1e-4


@pytest.mark.parametrize("name", list(UNITS))
def test_a_net_of_units_comes_back_from_its_own_file(path, name):
    layers, shape = UNITS[name]
    net = el.Net(layers, shape, input=el.Input(shape=shape, scale=1.0))
    net.flat[:] = random_parameters(net.graph)
    net.flat[:2] = 1, 0  # samples are as they are
    x = samples_for(net.graph, layers, 9)
    net.export(path, samples=x)
    back = el.load(path)
    assert back.layers == layers
    np.testing.assert_allclose(back.forward(x), net.forward(x), rtol=1e-5, atol=1e-5)
