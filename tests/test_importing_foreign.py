# SPDX-License-Identifier: Apache-2.0
"""ONNX nets of other tools: what is read, what is named as unknown, what stays frozen."""

from __future__ import annotations

import numpy as np
import pytest
from foreign_files import check_foreign, foreign, normal
from hypothesis import given, settings
from hypothesis import strategies as st

import edgelearn as el
from edgelearn.errors import ModelError
from edgelearn.export import runtimes


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
