# SPDX-License-Identifier: Apache-2.0
"""Nets read back from exported files, and ONNX nets of other tools against onnxruntime."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
from exporting import EXPORTED, random_parameters
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

import edgelearn as el
from edgelearn import importing
from edgelearn.errors import ModelError
from edgelearn.export import runtimes
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


def foreign(path, nodes, shape, output, **constants):
    """An ONNX file: nodes are (operator, input names, attributes), each reads the one before it first."""
    made, value = [], "x"
    for index, (operator, names, attributes) in enumerate(nodes):
        made.append(helper.make_node(operator, [value, *names], [f"y{index}"], f"n{index}", **attributes))
        value = f"y{index}"
    made[-1].output[0] = "y"
    held = [numpy_helper.from_array(np.asarray(a), n) for n, a in constants.items()]
    ends = [
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, ["batch", *s])] for n, s in (("x", shape), ("y", output))
    ]
    body = helper.make_graph(made, "g", *ends, initializer=held)
    model = helper.make_model(body, ir_version=8, opset_imports=[helper.make_opsetid("", 17)])
    onnx.save(model, path)
    return path


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).normal(0, 0.4, shape).astype(np.float32)


def check_foreign(path, shape):
    """The net answers as onnxruntime does, for samples in the file's own layout."""
    net = el.load(path)
    x = normal(7, *shape, seed=9)
    np.testing.assert_allclose(net.forward(x), runtimes.load(path).run(x), rtol=1e-4, atol=1e-5)
    return net


def test_a_convolutional_net_as_pytorch_writes_it_is_read(tmp_path):
    norm = {f"norm{i}": np.abs(normal(6, seed=i)) + 0.5 for i in range(4)}
    path = foreign(
        tmp_path / "net.onnx",
        [
            ("Conv", ["w1", "b1"], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [1, 1]}),
            ("BatchNormalization", list(norm), {"epsilon": 1e-5, "momentum": 0.9}),
            ("Relu", [], {}),
            ("MaxPool", [], {"kernel_shape": [2, 2], "strides": [2, 2]}),
            ("Conv", ["w2"], {"kernel_shape": [2, 2], "group": 2}),
            ("LeakyRelu", [], {"alpha": 0.2}),
            ("Identity", [], {}),
            ("AveragePool", [], {"kernel_shape": [2, 1], "strides": [1, 1]}),
            ("Flatten", [], {"axis": 1}),
            ("Gemm", ["w3", "b3"], {"transB": 1}),
            ("Tanh", [], {}),
            ("MatMul", ["w4"], {}),
            ("Add", ["b4"], {}),
            ("Softmax", [], {"axis": -1}),
        ],
        (2, 8, 7),
        (3,),
        **{"w1": normal(6, 2, 3, 3), "b1": normal(6), **norm, "w2": normal(4, 3, 2, 2)},
        w3=normal(5, 16),
        b3=normal(5),
        w4=normal(5, 3),
        b4=normal(3),
    )
    net = check_foreign(path, (2, 8, 7))
    assert net.loss == "cross_entropy"
    assert net.input.layout == "channels_first"
    kinds = ["Conv2D", "BatchNormalization", "Activation", "MaxPool", "Conv2D", "Activation", "AvgPool", "Dense"]
    assert [type(layer).__name__ for layer in net.layers] == [*kinds, "Activation", "Dense"]
    x, y = normal(40, 2, 8, 7), np.arange(40) % 3
    assert net.fit(x, y, epochs=2, lr=0.01, batch=8).history.epochs


def test_a_net_over_time_with_a_mean_at_its_end_is_read(tmp_path):
    path = foreign(
        tmp_path / "net.onnx",
        [
            ("Conv", ["w1", "b1"], {"kernel_shape": [3], "auto_pad": "SAME_UPPER", "strides": [2]}),
            ("Sigmoid", [], {}),
            ("GlobalAveragePool", [], {}),
            ("Reshape", ["to"], {}),
            ("Gemm", ["w2"], {}),
        ],
        (3, 11),
        (2,),
        w1=normal(4, 3, 3),
        b1=normal(4),
        to=np.array([0, -1]),
        w2=normal(4, 2),
    )
    net = check_foreign(path, (3, 11))
    assert net.loss == "mse"
    assert not net.layers[-1].use_bias


def test_a_convolution_with_padding_at_both_ends_is_one_with_a_larger_kernel(tmp_path):
    """Stride 2 and padding 1 as PyTorch has them: TensorFlow's `same` pads behind only where the side is even."""
    window = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}
    nodes = [("Conv", ["w1", "b1"], window), ("Relu", [], {}), ("Conv", ["w2"], window), ("Flatten", [], {})]
    more = {"w1": normal(4, 2, 3, 3), "b1": normal(4), "w2": normal(6, 4, 3, 3), "w3": normal(24, 3)}
    path = foreign(tmp_path / "net.onnx", [*nodes, ("Gemm", ["w3"], {})], (2, 8, 6), (3,), **more)
    net = check_foreign(path, (2, 8, 6))
    assert [layer.kernel_size for layer in net.layers[:3:2]] == [(4, 4), (4, 3)]
    assert net.fit(normal(40, 2, 8, 6), normal(40, 3), epochs=2, lr=0.01).history.epochs


@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_windows_of_any_kind_answer_as_onnxruntime_does_or_are_named(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("window") / "net.onnx"
    kind = data.draw(st.sampled_from(["Conv", "MaxPool", "AveragePool"]))
    small = st.integers(0, 2)
    kernel = data.draw(st.lists(st.integers(1, 4), min_size=2, max_size=2))
    window = {"kernel_shape": kernel, "strides": data.draw(st.lists(st.integers(1, 3), min_size=2, max_size=2))}
    if data.draw(st.booleans()):
        window["pads"] = [min(data.draw(small), k - 1) for k in (*kernel, *kernel)]
    else:
        # onnxruntime refuses steps past the kernel: it finds padding below zero.
        window["strides"] = [min(pair) for pair in zip(kernel, window["strides"], strict=True)]
        window["auto_pad"] = data.draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))
    if kind != "Conv":
        window["ceil_mode"] = data.draw(st.integers(0, 1)) if "pads" in window else 0
    weight = {"w": normal(2, 2, *kernel)} if kind == "Conv" else {}
    tail = [("GlobalAveragePool", [], {}), ("Flatten", [], {})]
    nodes = [*((("Conv", ["w0"], {}),) if kind != "Conv" else ()), (kind, list(weight), window), *tail]
    path = foreign(
        path,
        nodes,
        (2, *data.draw(st.tuples(st.integers(4, 9), st.integers(4, 9)))),
        (2,),
        w0=normal(2, 2, 1, 1),
        **weight,
    )
    try:
        net = el.load(path)
    except ModelError:
        with pytest.raises(ModelError, match=f"holds what edgelearn has no layer for: {kind} 'n"):
            el.load(path)
    else:
        x = normal(7, *net.input.shape, seed=9)
        np.testing.assert_allclose(net.forward(x), runtimes.load(path).run(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("after", ["BatchNormalization", "LayerNormalization"])
def test_what_normalises_a_flattened_map_keeps_its_order(tmp_path, after):
    count = {"BatchNormalization": 4, "LayerNormalization": 2}[after]
    norm = {f"norm{i}": np.abs(normal(24, seed=i)) + 0.5 for i in range(count)}
    path = foreign(
        tmp_path / "net.onnx",
        [("Conv", ["w1"], {}), ("Flatten", [], {}), (after, list(norm), {}), ("Relu", [], {}), ("Gemm", ["w2"], {})],
        (1, 4, 4),
        (2,),
        **{"w1": normal(4, 1, 2, 3), **norm, "w2": normal(24, 2)},
    )
    check_foreign(path, (1, 4, 4))


def cell(kind, gates, number, features, units, **attributes):
    """A recurrent node as PyTorch writes it, and its constants."""
    names = [f"W{number}", f"R{number}", f"B{number}", "", f"h{number}", *([f"h{number}"] if kind == "LSTM" else [])]
    shapes = {
        f"W{number}": (1, gates * units, features),
        f"R{number}": (1, gates * units, units),
        f"B{number}": (1, 2 * gates * units),
    }
    held = {name: normal(*shape, seed=number) for name, shape in shapes.items()}
    return (kind, names, {"hidden_size": units, **attributes}), {
        **held,
        f"h{number}": np.zeros((1, 7, units), np.float32),
    }


TURN, BACK = ("Transpose", [], {"perm": [1, 0, 2]}), ("Transpose", [], {"perm": [0, 2, 1, 3]})


def test_recurrent_nets_as_pytorch_writes_them_are_read(tmp_path):
    gru, first = cell("GRU", 3, 1, 5, 6, linear_before_reset=1)
    lstm, second = cell("LSTM", 4, 2, 6, 4)
    rnn, third = cell("RNN", 1, 3, 4, 3, activations=["Relu"])
    path = foreign(
        tmp_path / "net.onnx",
        [
            *(TURN, gru, BACK, ("Reshape", ["steps6"], {}), TURN),
            *(TURN, lstm, ("Squeeze", ["direction"], {}), TURN),
            *(TURN, rnn, ("Squeeze", ["direction"], {}), TURN, ("Gather", ["last"], {"axis": 1})),
            ("Gemm", ["w"], {}),
        ],
        (9, 5),
        (2,),
        **{**first, **second, **third, "steps6": np.array([9, -1, 6]), "direction": np.array([1])},
        last=np.array(-1),
        w=normal(3, 2),
    )
    net = check_foreign(path, (9, 5))
    assert [type(layer).__name__ for layer in net.layers] == ["GRU", "LSTM", "SimpleRNN", "Dense"]
    assert [layer.return_sequences for layer in net.layers[:3]] == [True, True, False]
    assert net.input.layout == "channels_last"


@pytest.mark.parametrize(
    ("attributes", "state", "says"),
    [
        ({"linear_before_reset": 0}, 0, "linear_before_reset 0"),
        ({"linear_before_reset": 1}, 1, "it starts from a state that is not zero"),
        ({"linear_before_reset": 1, "direction": "reverse"}, 0, "direction reverse"),
    ],
)
def test_recurrent_nodes_of_another_kind_say_why(tmp_path, attributes, state, says):
    gru, held = cell("GRU", 3, 1, 5, 6, **attributes)
    held["h1"] += state
    nodes = [TURN, gru, ("Squeeze", ["direction"], {}), TURN, ("Gather", ["last"], {"axis": 1}), ("Gemm", ["w"], {})]
    more = {"direction": np.array([1]), "last": np.array(-1), "w": normal(6, 2)}
    path = foreign(tmp_path / "net.onnx", nodes, (9, 5), (2,), **held, **more)
    with pytest.raises(ModelError) as caught:
        el.load(path)
    assert f"GRU 'n1' ({says})" in str(caught.value)


def test_all_that_is_not_known_is_listed_at_once(tmp_path):
    path = foreign(
        tmp_path / "net.onnx",
        [
            ("Conv", ["w1"], {"pads": [2, 2, 2, 2], "strides": [2, 2], "kernel_shape": [3, 3]}),
            ("Erf", [], {}),
            ("Conv", ["w2"], {"dilations": [2, 2]}),
            ("MaxPool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "strides": [2, 2]}),
            ("AveragePool", [], {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1}),
            ("HardSwish", [], {}),
        ],
        (1, 17, 17),
        (2, 4, 4),
        w1=normal(2, 1, 3, 3),
        w2=normal(2, 2, 2, 2),
    )
    with pytest.raises(ModelError, match="learn behind it, edgelearn adapt net.onnx DATA") as caught:
        el.load(path)
    for part in (
        "Conv 'n0' (padding [2, 2, 2, 2], which makes more outputs than stride and 'same' do: pad less)",
        "Erf 'n1'",
        "Conv 'n2' (dilations [2, 2])",
        "MaxPool 'n3' (padding [1, 1, 1, 1], known are none and that of 'same')",
        "AveragePool 'n4' (count_include_pad 1)",
        "HardSwish 'n5'",
    ):
        assert part in str(caught.value)


def test_a_file_with_unknown_nodes_is_taken_as_it_is_and_learned_behind(tmp_path):
    nodes = [("Conv", ["w1"], {}), ("HardSwish", [], {}), ("GlobalAveragePool", [], {}), ("Flatten", [], {})]
    more = {"w1": normal(8, 1, 3, 3), "w2": normal(8, 2) / 100, "b2": normal(2) / 100}
    path = foreign(tmp_path / "net.onnx", [*nodes, ("Gemm", ["w2", "b2"], {})], (1, 6, 6), (2,), **more)
    with pytest.raises(ModelError, match="HardSwish 'n1': .* edgelearn adapt net.onnx DATA -o adapted.onnx"):
        el.load(path)
    y = np.arange(60) % 2
    x = normal(60, 1, 6, 6) + 2 * (2 * y - 1)[:, None, None, None].astype(np.float32)
    adapted = el.adapt(path, x, y, ways=("head",))
    assert adapted.score(x, y) > 0.9


UNREADABLE = {
    "branch": (
        [("Relu", [], {}), ("Add", ["x"], {}), ("Erf", [], {})],
        (3,),
        "Relu 'n0' (a branch or a join); Erf 'n2'",
    ),
    "weight that is computed": ([("MatMul", ["x"], {})], (3, 3), "a branch or a join"),
    "gemm": ([("Gemm", ["w"], {"alpha": 2.0})], (3,), "Gemm 'n0' (alpha 2.0)"),
    "along axis": ([("Softmax", [], {"axis": 1})], (3, 3), "Softmax 'n0' (along axis 1 of samples (3, 3))"),
    "flattened output": ([("Conv", ["k"], {}), ("Flatten", [], {})], (1, 3, 3), "an output that is a flattened map"),
}


@pytest.mark.parametrize("name", UNREADABLE)
def test_nets_that_are_no_chain_of_layers_say_why(tmp_path, name):
    nodes, shape, says = UNREADABLE[name]
    path = foreign(tmp_path / "net.onnx", nodes, shape, shape, w=normal(3, 3), k=normal(2, 1, 2, 2))
    with pytest.raises(ModelError) as caught:
        el.load(path)
    assert says in str(caught.value)


def test_files_of_unknown_shape_or_kind_are_refused(tmp_path):
    path = foreign(tmp_path / "open.onnx", [("Relu", [], {})], (0, 3), (0, 3))
    with pytest.raises(ModelError, match="leaves a side of its samples open"):
        el.load(path)
    with pytest.raises(ModelError, match="cannot be read"):
        el.load(tmp_path / "missing.onnx")
    with pytest.raises(ModelError, match=r"x.pb is not a model to train"):
        el.load(tmp_path / "x.pb")
