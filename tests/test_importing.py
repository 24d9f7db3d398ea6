# SPDX-License-Identifier: Apache-2.0
"""Nets read back from the files that edgelearn wrote: every layer and weight, in both formats."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from exporting import EXPORTED, random_parameters
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from onnx import numpy_helper

import edgelearn as el
from edgelearn import importing
from edgelearn.errors import ModelError
from edgelearn.export.tflite_schema import read_constants
from edgelearn.layers import BatchNormalization
from edgelearn.net import architecture
from edgelearn.net.architecture import ENTRY

SUFFIXES = (".onnx", ".tflite")


def net_of(layers, shape, layout="channels_last", seed=0, **arguments):
    """A net with nothing left at its initial value, over samples that are halved."""
    raw = (shape[-1], *shape[:-1]) if layout == "channels_first" else shape
    net = el.Net(layers, input=el.Input(shape=raw, scale=2.0, layout=layout), **arguments)
    net.flat[:] = random_parameters(net.graph, seed)
    net._build()  # brings the scale back
    return net, np.random.default_rng(seed).normal(0, 1, (9, *raw)).astype(np.float32)


def check_round_trip(path, net, x):
    """The same layers and weights; the same answers to 1e-5, to the bit where no normalisation was folded."""
    net.export(path, samples=x)
    back = el.load(path)
    assert back.layers == net.layers
    assert (back.loss, back.classes, back.train, back.input) == (net.loss, net.classes, net.train, net.input)
    folded = path.suffix == ".tflite" and any(isinstance(layer, BatchNormalization) for layer in net.layers)
    if not folded:
        np.testing.assert_array_equal(back.flat, net.flat)
    np.testing.assert_allclose(back.forward(x), net.forward(x), rtol=1e-5, atol=1e-5)
    return back


@pytest.mark.parametrize("layout", ["channels_last", "channels_first"])
@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("name", EXPORTED)
def test_a_net_comes_back_from_its_own_file(tmp_path, name, suffix, layout):
    net, x = net_of(*EXPORTED[name], layout, classes=["a", "b", "c", "d"])
    check_round_trip(tmp_path / f"net{suffix}", net, x)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_net_that_was_read_back_learns_on_as_the_original_does(tmp_path, blobs, suffix):
    layers = [el.Dense(8, use_bias=False), el.BatchNormalization(), el.Activation("relu"), el.Dense(4)]
    net = el.Net(layers).fit(*blobs, epochs=3, batch=16, lr=0.01)
    net.export(tmp_path / f"net{suffix}")
    back = el.load(tmp_path / f"net{suffix}")
    assert back.train == json.loads(json.dumps(net.train))
    before = net.score(*blobs)
    again = [each.fit(*blobs, epochs=2).predict_proba(blobs[0]) for each in (net, back)]
    np.testing.assert_allclose(again[0], again[1], atol=1e-3)
    assert back.score(*blobs) >= before - 0.05


def test_norms_in_a_row_and_channels_that_are_switched_off_come_back(tmp_path):
    norms = [el.BatchNormalization(), el.BatchNormalization(epsilon=0.1)]
    net, x = net_of([el.Conv2D(4, 2), *norms, el.Dense(3)], (4, 4, 2))
    net.weights["batch_normalization.weight"][1] = 0
    back = check_round_trip(tmp_path / "net.tflite", net, x)
    np.testing.assert_array_equal(back.buffers["batch_normalization.mean"], net.buffers["batch_normalization.mean"])
    assert not back.weights["conv2d.weight"][..., 1].any()


@st.composite
def random_nets(draw):
    shape = draw(st.sampled_from([(5,), (6, 3), (5, 6, 2), (4, 4)]))
    maps = len(shape) > 1
    conv = el.Conv1D if shape == (6, 3) else el.Conv2D
    activations = st.sampled_from(["linear", "relu", "leaky_relu", "tanh", "gelu"])
    window = {"kernel_size": st.integers(1, 3), "padding": st.sampled_from(["valid", "same"])}
    wide = st.builds(conv, st.sampled_from([2, 4]), activation=activations, use_bias=st.booleans(), **window)
    dense = st.builds(el.Dense, st.integers(1, 6), activations, st.booleans())
    others = [st.just(el.BatchNormalization()), st.just(el.LayerNormalization(epsilon=0.1)), st.just(el.Flatten())]
    choices = [wide, *others, st.just(el.MaxPool()), st.just(el.GlobalAvgPool())] if maps else [dense, *others]
    layers = [draw(wide if maps else dense), *draw(st.lists(st.one_of(choices), max_size=4)), el.Dense(3)]
    layout = draw(st.sampled_from(["channels_last", "channels_first"])) if len(shape) > 1 else "channels_last"
    try:
        return net_of(layers, shape, layout, draw(st.integers(0, 99)), loss=draw(st.sampled_from([None, "mse"])))
    except el.EdgelearnError:  # a window too large, a convolution of a vector
        reject()


@settings(max_examples=60, deadline=None)
@given(made=random_nets())
def test_any_net_comes_back_from_both_formats(tmp_path_factory, made):
    folder = tmp_path_factory.mktemp("nets")
    for suffix in SUFFIXES:
        check_round_trip(folder / f"net{suffix}", *made)


def test_an_onnx_file_carries_its_records_and_keeps_normalisation(tmp_path):
    net, x = net_of([el.Dense(4), el.BatchNormalization(), el.Dense(3)], (5,))
    net.export(tmp_path / "net.onnx", samples=x)
    model = onnx.load(tmp_path / "net.onnx")
    assert "BatchNormalization" in [n.op_type for n in model.graph.node]
    about = json.loads({p.key: p.value for p in model.metadata_props}[ENTRY])
    assert {"layers", "graph", "records", "train", "loss"} <= set(about)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_int8_files_are_refused_by_name(tmp_path, suffix):
    net, x = net_of([el.Dense(3)], (5,))
    net.export(tmp_path / f"net{suffix}", dtype="int8", calibration=np.tile(x, (4, 1)), max_disagreement=1.0)
    with pytest.raises(ModelError, match="holds int8 weights, which cannot learn: load the model"):
        el.load(tmp_path / f"net{suffix}")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda about: about.update(format=9), "written by a newer edgelearn"),
        (lambda about: about["layers"].pop(), "do not match its records"),
        (lambda about: about.pop("train"), "entry 'edgelearn' is damaged"),
        (lambda about: about["layers"][0].update(units=7, name="other"), "do not match its records"),
        (lambda about: about.update(norms="AAAA"), "entry 'edgelearn' is damaged"),
    ],
)
def test_a_description_that_was_changed_is_refused(tmp_path, change, says):
    net, x = net_of([el.Dense(4), el.BatchNormalization(), el.Dense(4)], (5,))
    net.export(tmp_path / "net.onnx", samples=x)
    model = onnx.load(tmp_path / "net.onnx")
    entry = next(p for p in model.metadata_props if p.key == ENTRY)
    about = json.loads(entry.value)
    change(about)
    entry.value = json.dumps(about)
    onnx.save(model, tmp_path / "changed.onnx")
    with pytest.raises(ModelError, match=says):
        el.load(tmp_path / "changed.onnx")


def test_a_file_without_one_of_its_weights_is_refused(tmp_path):
    net, x = net_of([el.Dense(4), el.Dense(4)], (5,))
    net.export(tmp_path / "net.onnx", samples=x)
    model = onnx.load(tmp_path / "net.onnx")
    held = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    about = architecture.read({p.key: p.value for p in model.metadata_props}[ENTRY])
    del held[next(name for name in held if name.endswith("bias"))]
    with pytest.raises(ModelError, match=r"lacks the weights 'gemm_\d.bias' of its net"):
        importing._from_onnx(about, net.input, held)


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("keep", [0, 20, 300])
def test_a_truncated_file_is_one_clear_sentence(tmp_path, suffix, keep):
    net, x = net_of([el.Dense(40), el.Dense(4)], (5,))
    net.export(tmp_path / f"net{suffix}", samples=x)
    data = (tmp_path / f"net{suffix}").read_bytes()
    (tmp_path / f"cut{suffix}").write_bytes(data[:keep])
    with pytest.raises(ModelError) as caught:
        el.load(tmp_path / f"cut{suffix}")
    assert "\n" not in str(caught.value)


def test_constants_of_a_tflite_file_are_read_in_their_type_and_shape(tmp_path):
    net, x = net_of([el.Dense(4)], (5,))
    net.export(tmp_path / "net.tflite", samples=x)
    held = read_constants((tmp_path / "net.tflite").read_bytes())
    assert {a.shape for a in held.values() if a.dtype == np.float32} == {(4, 5), (4,), (1,)}
    with pytest.raises(ValueError, match="no TFL3 mark"):
        read_constants(b"something else")


# Nets of other tools
