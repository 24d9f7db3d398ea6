# SPDX-License-Identifier: Apache-2.0
"""Residual, attention and feed-forward units, embeddings and positions as their users hold them: names, shapes, files,
what they cost, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
from benches import BACKENDS, open_net, samples_for
from nets import CLASSES, UNITS

import edgelearn as el
from edgelearn import definition
from edgelearn.graph import build
from edgelearn.layers import from_config, to_config
from edgelearn.records import Op

VIT = [
    el.Conv2D(8, 3, strides=3),
    el.Reshape((-1, 8)),
    el.PositionEmbedding(),
    el.Residual([el.LayerNormalization(), el.MultiHeadAttention(2)]),
    el.Residual([el.LayerNormalization(), el.FeedForward(12)]),
    el.GlobalAvgPool(),
    el.Dense(CLASSES),
]
TEXT = [el.Embedding(20, 8), el.PositionEmbedding(), el.MultiHeadAttention(2), el.GlobalAvgPool(), el.Dense(2)]


def sentences(n=120):
    """Eight tokens each, and whether token 7 is among them before token 3."""
    x = np.random.default_rng(2).integers(8, 20, (n, 8))
    x[np.arange(n), np.arange(n) % 4] = np.where(np.arange(n) % 2, 7, 3)
    return x, np.arange(n) % 2


def marks(n=320):
    """Images of noise with one of four marks of 3 x 3 in one of nine places."""
    rng, y = np.random.default_rng(4), np.arange(n) % CLASSES
    x = rng.normal(0, 0.3, (n, 9, 9)).astype(np.float32)
    kinds = np.array([np.eye(3), np.eye(3)[::-1], np.eye(3)[[1, 1, 1]], np.eye(3)[[1, 1, 1]].T])
    for image, label, (row, column) in zip(x, y, 3 * rng.integers(0, 3, (n, 2)), strict=True):
        image[row : row + 3, column : column + 3] += 2 * kinds[label]
    return x, y


def test_parameters_are_named_after_their_units():
    names = [p.name for p in build(VIT, (9, 9, 1)).parameters]
    assert names[2:8] == [
        "position_embedding.weight",
        "residual.layer_normalization.weight",
        "residual.layer_normalization.bias",
        "residual.multi_head_attention.qkv.weight",
        "residual.multi_head_attention.qkv.bias",
        "residual.multi_head_attention.output.weight",
    ]
    assert names[11:15] == [
        f"residual_1.feed_forward.{part}" for part in ("hidden.weight", "hidden.bias", "output.weight", "output.bias")
    ]


def test_units_are_blocks_of_their_own_and_what_follows_belongs_to_them():
    graph = build(VIT, (9, 9, 1))
    ops = [[Op(int(r["op"])).name for r in graph.records if r["block"] == b] for b in range(graph.blocks)]
    assert ops == [
        ["CONV", "POSITIONS"],
        ["LAYERNORM", "CONV", "ATTENTION", "CONV", "ADD"],
        ["LAYERNORM", "CONV", "GELU", "CONV", "ADD", "GLOBAL_AVGPOOL"],
        ["DENSE", "SOFTMAX"],
    ]
    assert build([el.MultiHeadAttention(1), el.FeedForward(3), el.GlobalAvgPool(), el.Dense(2)], (4, 5)).blocks == 3


def test_multiply_adds_count_the_scores_and_what_they_weigh():
    graph = build([el.MultiHeadAttention(3), el.GlobalAvgPool(), el.Dense(2)], (10, 6))
    assert graph.macs == 10 * 6 * 18 + 2 * 10 * 10 * 6 + 10 * 6 * 6 + 6 * 2


@pytest.mark.parametrize("net", list(UNITS))
def test_layers_come_back_from_their_tables(net):
    for layer in UNITS[net][0]:
        assert from_config(to_config(layer)) == layer


def test_a_definition_holds_layers_inside_a_residual(tmp_path):
    path = tmp_path / "net.toml"
    path.write_text(
        '[[layer]]\ntype = "Residual"\nlayers = [{ type = "LayerNorm" }, { type = "FeedForward", units = 3 }]\n'
        '[[layer]]\ntype = "Reshape"\ntarget_shape = [-1, 2]\n'
    )
    inside = [el.LayerNormalization(), el.FeedForward(3)]
    assert definition.read(path).layers == [el.Residual(inside), el.Reshape((-1, 2))]
    path.write_text('[[layer]]\ntype = "Residual"\nlayers = [{ type = "Dens" }]\n')
    with pytest.raises(el.ModelError, match="layer 1: unknown layer 'Dens'"):
        definition.read(path)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_net_of_tokens_learns_and_comes_back_from_its_file(tmp_path, backend):
    x, y = sentences()
    net = el.Net(TEXT).fit(x, y, rule="readout", epochs=30, batch=20, lr=0.02, backend=backend)
    assert net.score(x, y) > 0.95
    net.save(tmp_path / "text.safetensors")
    again = el.load(tmp_path / "text.safetensors")
    assert again.layers == TEXT
    assert again.input.scale == 1
    assert np.array_equal(again.predict_proba(x), net.predict_proba(x))


def test_bytes_are_tokens_and_not_shares_of_255():
    x, y = sentences()
    one, other = (el.Net(TEXT).fit(kind(x), y, epochs=2, rule="tp-ce") for kind in (np.uint8, np.float32))
    assert np.array_equal(one.flat, other.flat)


@pytest.mark.parametrize("rule", ["tp-l2", "tp-ce", "readout"])
def test_a_net_of_patches_learns_by_local_rules(rule):
    x, y = marks()
    net = el.Net(VIT).fit(x, y, rule=rule, epochs=15, batch=20, lr=0.03)
    assert net.score(x, y) > 0.9
    still = el.Net(VIT).fit(x, y, rule="untrained", epochs=15, batch=20, lr=0.03)
    assert net.score(x, y) > still.score(x, y) + 0.1


def test_memory_of_training_does_not_grow_with_the_number_of_units():
    """One unit at a time; only weights and what Adam keeps of them grow."""

    def activations(units):
        layers = [el.Conv2D(16, 4, strides=4), el.Reshape((-1, 16)), *units, el.GlobalAvgPool(), el.Dense(4)]
        return open_net("native", layers, (28, 28)).session.sizes.activations

    pair = [
        el.Residual([el.LayerNormalization(), el.MultiHeadAttention(2)]),
        el.Residual([el.LayerNormalization(), el.FeedForward(32)]),
    ]
    assert activations(pair * 6) == activations(pair)


WRONG_TOKENS = [(-1, "-1"), (20, "20"), (2.5, "2.5")]


@pytest.mark.parametrize(("token", "said"), WRONG_TOKENS)
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_token_outside_the_vocabulary_is_refused_before_a_weight_changes(backend, token, said):
    x, y = sentences()
    net = el.Net(TEXT, input_shape=(8,))
    before = net.flat.copy()
    wrong = x.astype(np.float32)
    wrong[111, 5] = token
    for call in (
        lambda: net.fit(wrong, y, epochs=1, backend=backend),
        lambda: net.partial_fit(wrong, y, backend=backend),
        lambda: net.predict(wrong),
    ):
        with pytest.raises(el.DataError, match=f"token {said} at step 5 of sample 111 is not one of 0 .. 19"):
            call()
        assert np.array_equal(net.flat, before)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_token_that_spoils_a_later_batch_is_refused_there(backend):
    """What was checked at the start of an epoch may have changed since: the batch at hand is looked at again."""
    layers, shape = UNITS["tokens"]
    bench = open_net(backend, layers, shape, batch=4)
    x, y = samples_for("tokens", 8)
    bench.fit(x, y, 1, shuffle=False)
    before = bench.params.copy()
    x[6, 2] = 5
    with pytest.raises(el.DataError, match="token 5 at step 2 of sample 6"):
        bench.fit(x, y, 1, shuffle=False, first=1)
    assert np.array_equal(bench.params, before)


REFUSED = [
    ([el.Conv1D(6, 1), el.MultiHeadAttention(4)], (5, 2), "4 heads do not divide a width of 6"),
    ([el.MultiHeadAttention(1)], (4, 4, 2), r"takes sequences .* not \(4, 4, 2\): put Reshape\(\(-1, 2\)\)"),
    ([el.Dense(3), el.PositionEmbedding()], (4,), "takes sequences"),
    ([el.Dense(3), el.Embedding(4, 2)], (4,), "make it the first layer"),
    ([el.Embedding(4, 2)], (3, 3), "takes samples of shape"),
    ([el.Residual([el.Dense(3)])], (4,), r"turn \(4,\) into \(3,\), which cannot be added"),
    ([el.Conv2D(4, 2), el.Reshape((4, 16))], (5, 5), r"into \(-1, 4\) or \(64,\), not \(4, 16\)"),
    ([el.Conv2D(4, 2), el.Reshape((-1, 7))], (5, 5), "does not fill"),
    ([el.LayerNormalization(), el.Dense(2)], (4,), "begins with a layer that has weights"),
]


@pytest.mark.parametrize(("layers", "shape", "message"), REFUSED)
def test_units_that_do_not_fit_are_refused(layers, shape, message):
    with pytest.raises(el.ModelError, match=message):
        build([*layers, el.Dense(2)], shape)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: el.MultiHeadAttention(0), "at least 1 head"),
        (lambda: el.Embedding(0, 3), "at least 1 token"),
        (lambda: el.FeedForward(0), "at least 1 hidden unit"),
        (lambda: el.FeedForward(3, "softmax"), "unknown activation"),
        (lambda: el.Reshape((-1, -1)), "one of them may be -1"),
        (lambda: el.Reshape((0, 3)), "sides from 1 up"),
        (lambda: el.Residual([]), "has nothing to learn"),
        (lambda: el.Residual([el.Activation("relu")]), "has nothing to learn"),
        (lambda: el.Residual(el.Dense(3)), "takes a list of layers"),
        (lambda: el.Residual([el.Residual([el.Dense(3)])]), "one behind the other"),
        (lambda: el.Net(TEXT, input=el.Input(scale=255.0)), "tokens as they are"),
        (lambda: el.Net(TEXT, input=el.Input(standardise=True)), "tokens as they are"),
    ],
)
def test_arguments_that_cannot_be_meant_are_refused(make, message):
    with pytest.raises(el.ModelError, match=message):
        make()
