# SPDX-License-Identifier: Apache-2.0
"""ONNX nodes as layers: one table entry per operator.

Shapes are those of ONNX: (features,), (channels, steps) or (channels, height, width) of one sample.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.geometry import Sides, Window
from edgelearn.importing import windows
from edgelearn.layers import (
    Activation,
    AnyLayer,
    AvgPool,
    BatchNormalization,
    Conv1D,
    Conv2D,
    Dense,
    Flatten,
    GlobalAvgPool,
    LayerNormalization,
    MaxPool,
)

Shape = tuple[int, ...]


class Unknown(Exception):
    """Why a node has no layer here."""


@dataclass(frozen=True, eq=False)
class Node:
    """A node: operator, attributes, its constant inputs behind the data (None where they are no constants), shape of a
    sample before it, the constant that the node after it adds, and `order`: where the features before it were, as
    ONNX counts them, if a map was flattened."""

    operator: str
    attributes: Mapping[str, Any]
    arrays: list[NDArray[Any] | None]
    shape: Shape
    term: NDArray[Any] | None = None
    order: NDArray[np.int64] | None = None

    def array(self, place: int, name: str) -> NDArray[Any]:
        """A constant that must be there."""
        array = self.arrays[place] if place < len(self.arrays) else None
        if array is None:
            raise Unknown(f"its {name} is no constant")
        return array


@dataclass(frozen=True, eq=False)
class Found:
    """What a node is: a layer, its weights in the order of its parameters, the shape of a sample behind it, whether it
    takes the sum after it as its bias, and the order of the features behind it, where that is not the one of ONNX."""

    layer: AnyLayer
    shape: Shape
    weights: dict[str, NDArray[Any]] = field(default_factory=dict)
    takes_term: bool = False
    order: NDArray[np.int64] | None = None


def _gemm(node: Node) -> Found:
    expected = {"transA": 0, "alpha": 1.0, "beta": 1.0}
    for name, value in expected.items():
        if node.attributes.get(name, value) != value:
            raise Unknown(f"{name} {node.attributes[name]}")
    weight = node.array(0, "weight")
    bias = node.array(1, "bias") if len(node.arrays) > 1 else None
    return _dense(node, weight.T if node.attributes.get("transB", 0) else weight, bias)


def _matmul(node: Node) -> Found:
    weight = node.array(0, "weight")
    units = weight.shape[-1]
    takes = node.term is not None and node.term.size == units
    return _dense(node, weight, node.term.reshape(-1) if takes and node.term is not None else None, takes)


def _dense(node: Node, weight: NDArray[Any], bias: NDArray[Any] | None, takes_term: bool = False) -> Found:
    if weight.ndim != 2 or len(node.shape) != 1:
        raise Unknown(f"a product of weights {weight.shape} with samples {node.shape}")
    units = weight.shape[1]
    rows = weight if node.order is None else weight[node.order]
    weights = {"weight": rows} | ({} if bias is None else {"bias": np.broadcast_to(bias, (units,))})
    return Found(Dense(units, use_bias=bias is not None), (units,), weights, takes_term)


def _conv(node: Node) -> Found:
    weight = node.array(0, "weight")
    axes, groups = weight.ndim - 2, int(node.attributes.get("group", 1))
    if axes not in (1, 2) or len(node.shape) != axes + 1:
        raise Unknown(f"a convolution along {axes} axes of samples {node.shape}")
    window, weight = _convolution(node, weight)
    bias = node.array(1, "bias") if len(node.arrays) > 1 else None
    weights = {"weight": weight.transpose(*range(2, axes + 2), 1, 0)} | ({} if bias is None else {"bias": bias})
    kind: type[Conv1D] | type[Conv2D] = Conv1D if axes == 1 else Conv2D
    sides = window.kernel[-axes:], window.strides[-axes:]
    layer = kind(weight.shape[0], *sides, _padding(window), groups, use_bias=bias is not None)
    return Found(layer, _after(node, window, weight.shape[0]), weights)


def _convolution(node: Node, weight: NDArray[Any]) -> tuple[Window, NDArray[Any]]:
    """The window of a convolution and its weights (filters, channels, *kernel), with zeros where padding asks for
    them."""
    axes = _axes(node, weight.shape[2:])
    window = windows.exact(axes)
    if window is not None:
        return window, weight
    larger = windows.grown(axes)
    if larger is None:
        raise Unknown(f"padding {_pads(axes)}, which makes more outputs than stride and 'same' do: pad less")
    return larger[0], windows.with_zeros(weight, larger[1])


def _pool(node: Node) -> Found:
    kernel = node.attributes.get("kernel_shape", ())
    axes = len(kernel)
    if axes not in (1, 2) or len(node.shape) != axes + 1:
        raise Unknown(f"pooling along {axes} axes of samples {node.shape}")
    of_axes = _axes(node, tuple(kernel))
    window = windows.exact(of_axes)
    if window is None:
        raise Unknown(f"padding {_pads(of_axes)}, known are none and that of 'same'")
    pads = any(axis.before or axis.behind for axis in of_axes)
    if node.operator == "AveragePool" and pads and node.attributes.get("count_include_pad", 0):
        raise Unknown("count_include_pad 1")
    kind: type[MaxPool] | type[AvgPool] = MaxPool if node.operator == "MaxPool" else AvgPool
    layer = kind(window.kernel[-axes:], window.strides[-axes:], _padding(window))
    return Found(layer, _after(node, window, node.shape[0]))


def _padding(window: Window) -> str:
    return "same" if window.same else "valid"


def _axes(node: Node, kernel: Shape) -> list[windows.Axis]:
    """The window of a node along each axis of its maps."""
    if set(node.attributes.get("dilations", (1,))) != {1}:
        raise Unknown(f"dilations {list(node.attributes['dilations'])}")
    return windows.axes_of(node.attributes, kernel, node.shape[1:])


def _pads(axes: list[windows.Axis]) -> list[int]:
    return [*(axis.before for axis in axes), *(axis.behind for axis in axes)]


def _sides(node: Node) -> Sides:
    return Sides(*(1, *node.shape[1:])[-2:])


def _after(node: Node, window: Window, channels: int) -> Shape:
    sides = window.over(_sides(node))
    return (channels, *sides[-(len(node.shape) - 1) :])


def _batchnorm(node: Node) -> Found:
    names = ("weight", "bias", "mean", "variance")
    weights = {name: _ordered(node, node.array(place, name)) for place, name in enumerate(names)}
    epsilon, momentum = node.attributes.get("epsilon", 1e-5), node.attributes.get("momentum", 0.9)
    return Found(BatchNormalization(float(momentum), float(epsilon)), node.shape, weights, order=node.order)


def _ordered(node: Node, array: NDArray[Any]) -> NDArray[Any]:
    return array if node.order is None else array[node.order]


def _layernorm(node: Node) -> Found:
    if node.attributes.get("axis", -1) not in (-1, 1) or len(node.shape) != 1:
        raise Unknown(f"along axis {node.attributes.get('axis', -1)} of samples {node.shape}")
    weight = _ordered(node, node.array(0, "gain"))
    bias = _ordered(node, node.array(1, "shift")) if len(node.arrays) > 1 else np.zeros_like(weight)
    epsilon = float(node.attributes.get("epsilon", 1e-5))
    return Found(LayerNormalization(epsilon), node.shape, {"weight": weight, "bias": bias}, order=node.order)


def _global_pool(node: Node) -> Found:
    if len(node.shape) < 2:
        raise Unknown(f"samples {node.shape} are no maps")
    return Found(GlobalAvgPool(), (node.shape[0], *(1,) * (len(node.shape) - 1)))


def _flatten(node: Node) -> Found:
    """One vector of a sample. Channels come last here, so that its features stand in another order."""
    if node.operator == "Flatten" and node.attributes.get("axis", 1) != 1:
        raise Unknown(f"axis {node.attributes['axis']}")
    features = math.prod(node.shape)
    if node.operator == "Reshape":
        target = node.array(0, "shape").tolist()
        if len(target) != 2 or target[1] not in (-1, features):
            raise Unknown(f"to {target}")
    places = np.arange(features).reshape(node.shape)
    return Found(Flatten(), (features,), order=np.moveaxis(places, 0, -1).ravel() if places.ndim > 1 else node.order)


def _activation(name: str) -> Callable[[Node], Found]:
    return lambda node: Found(Activation(name), node.shape, order=node.order)


def _leaky_relu(node: Node) -> Found:
    return Found(Activation("leaky_relu", float(node.attributes.get("alpha", 0.01))), node.shape, order=node.order)


def _gelu(node: Node) -> Found:
    if node.attributes.get("approximate", b"none") != b"tanh":
        raise Unknown("approximate none, known is tanh")
    return Found(Activation("gelu"), node.shape, order=node.order)


def _softmax(node: Node) -> Found:
    if len(node.shape) != 1 or node.attributes.get("axis", -1) not in (-1, 1):
        raise Unknown(f"along axis {node.attributes.get('axis', -1)} of samples {node.shape}")
    return Found(Activation("softmax"), node.shape, order=node.order)


CONVERTERS: dict[str, Callable[[Node], Found]] = {
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Conv": _conv,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "GlobalAveragePool": _global_pool,
    "BatchNormalization": _batchnorm,
    "LayerNormalization": _layernorm,
    "Flatten": _flatten,
    "Reshape": _flatten,
    "Squeeze": _flatten,
    "Relu": _activation("relu"),
    "LeakyRelu": _leaky_relu,
    "Tanh": _activation("tanh"),
    "Sigmoid": _activation("sigmoid"),
    "Gelu": _gelu,
    "Softmax": _softmax,
}
"""What each operator is."""
