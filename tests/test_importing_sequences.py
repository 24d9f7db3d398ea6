# SPDX-License-Identifier: Apache-2.0
"""Nets over time that other tools wrote: convolutions, recurrent layers, and which of them are refused."""

from __future__ import annotations

import numpy as np
import pytest
from foreign_files import check_foreign, foreign, normal

import edgelearn as el
from edgelearn.errors import ModelError


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
