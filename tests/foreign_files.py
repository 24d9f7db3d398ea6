# SPDX-License-Identifier: Apache-2.0
"""ONNX files as other tools write them, and whether the net that is read from one answers as it does."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

import edgelearn as el
from edgelearn.export import runtimes


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
