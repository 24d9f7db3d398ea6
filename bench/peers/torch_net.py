# SPDX-License-Identifier: Apache-2.0
"""The net of a model's .toml in PyTorch, started as our nets are. Padding `same` is TensorFlow's.

A layer the .toml may name is one function in LAYERS: (its table, shape before it) -> (module, shape after it). Shapes
are channels last, as in the .toml, without the batch; the modules themselves take channels first, as PyTorch does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional

from bench.peers import torch_units

Table = dict[str, Any]
Shape = tuple[int, ...]
Built = tuple[nn.Module, Shape]

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(0.01),
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "gelu": lambda: nn.GELU("tanh"),
}


class Pad(nn.Module):
    """Constant values around maps, (before, after) for each axis from the last on."""

    def __init__(self, widths: Sequence[int], value: float = 0.0) -> None:
        super().__init__()
        self.widths, self.value = tuple(widths), value

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x, self.widths, value=self.value)


class Flat(nn.Module):
    """Positions before channels, as maps lie in our nets."""

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1).flatten(1)


class Means(nn.Module):
    """The mean of each channel."""

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).mean(2)


def network(layers: Sequence[Table], shape: Shape) -> tuple[nn.Sequential, Shape]:
    """A net for samples of that shape, channels last, and the shape of its output.

    Raises:
        ValueError: a layer or argument that is not built here.
    """
    modules: list[nn.Module] = []
    for table in layers:
        if table["type"] not in LAYERS:
            raise ValueError(f"the PyTorch peer has no layer {table['type']}")
        rest = dict(table)
        module, shape = LAYERS[rest.pop("type")](rest, shape)
        rest.pop("name", None)
        modules += [module, *_activation(rest)]
        if rest:
            raise ValueError(f"the PyTorch peer does not know {', '.join(rest)} of {table['type']}")
    return nn.Sequential(*modules), shape


def _activation(table: Table) -> list[nn.Module]:
    name = table.pop("activation", "linear")
    return [] if name == "linear" else [ACTIVATIONS[name]()]


def _started(module: nn.Linear | nn.Conv1d | nn.Conv2d) -> nn.Module:
    """He-uniform weights, zero biases."""
    nn.init.kaiming_uniform_(module.weight, nonlinearity="relu")
    if module.bias is not None:
        nn.init.zeros_(module.bias)
    return module


def _pair(value: int | list[int], axes: int) -> Shape:
    return tuple(value) if isinstance(value, list) else (value,) * axes


def _slide(table: Table, shape: Shape, size: Shape, strides: Shape) -> tuple[list[int], Shape]:
    """Padding, the last axis first, and the sides behind a window."""
    widths: list[int] = []
    sides = []
    same = table.pop("padding", "valid") == "same"
    for n, k, s in zip(shape, size, strides, strict=False):
        out = -(-n // s) if same else (n - k) // s + 1
        total = max((out - 1) * s + k - n, 0) if same else 0
        widths = [total // 2, total - total // 2, *widths]
        sides.append(out)
    return widths, tuple(sides)


def _convolution(table: Table, shape: Shape, axes: int) -> Built:
    kind = nn.Conv2d if axes == 2 else nn.Conv1d
    size, strides = (_pair(table.pop(key, default), axes) for key, default in (("kernel_size", 3), ("strides", 1)))
    widths, sides = _slide(table, shape, size, strides)
    filters, groups, bias = table.pop("filters"), table.pop("groups", 1), table.pop("use_bias", True)
    even = widths[::2] == widths[1::2]
    padding = tuple(reversed(widths[::2])) if even else 0
    module = kind(shape[-1], filters, size, strides, padding, groups=groups, bias=bias)  # type: ignore[arg-type]
    started = _started(module)
    return (started if even else nn.Sequential(Pad(widths), started)), (*sides, filters)


def _depthwise(table: Table, shape: Shape) -> Built:
    table |= {"filters": shape[-1] * table.pop("depth_multiplier", 1), "groups": shape[-1]}
    return _convolution(table, shape, 2)


def _maxpool(table: Table, shape: Shape) -> Built:
    axes = len(shape) - 1
    size = _pair(table.pop("pool_size", 2), axes)
    strides = _pair(table.pop("strides", list(size)), axes)
    widths, sides = _slide(table, shape, size, strides)
    pool = (nn.MaxPool2d if axes == 2 else nn.MaxPool1d)(size, strides)
    return (nn.Sequential(Pad(widths, -math.inf), pool) if any(widths) else pool), (*sides, shape[-1])


def _dense(table: Table, shape: Shape) -> Built:
    units = table.pop("units")
    linear = _started(nn.Linear(math.prod(shape), units, bias=table.pop("use_bias", True)))
    return (linear if len(shape) == 1 else nn.Sequential(Flat(), linear)), (units,)


def _batchnorm(table: Table, shape: Shape) -> Built:
    kind = (nn.BatchNorm1d, nn.BatchNorm1d, nn.BatchNorm2d)[len(shape) - 1]
    return kind(shape[-1], eps=table.pop("epsilon", 1e-5), momentum=1 - table.pop("momentum", 0.9)), shape


class Recurrent(nn.Module):
    """nn.RNN, nn.GRU or nn.LSTM over maps (batch, features, steps): all steps, or the last one."""

    def __init__(self, cell: nn.RNNBase, every: bool) -> None:
        super().__init__()
        self.cell, self.every = cell, every

    def forward(self, x: Tensor) -> Tensor:
        outputs = self.cell(x.transpose(1, 2))[0]
        return outputs.transpose(1, 2) if self.every else outputs[:, -1]


class Reshaped(nn.Module):
    """Samples of another shape, channels last, with the same values in the same order."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.movedim(1, -1).reshape(len(x), *self.shape).movedim(-1, 1)


def _reshape(table: Table, shape: Shape) -> Built:
    """One side may be -1: what is left."""
    sides = tuple(table.pop("target_shape"))
    known = math.prod(side for side in sides if side != -1)
    whole = tuple(math.prod(shape) // known if side == -1 else side for side in sides)
    return Reshaped(whole), whole


def _recurrent(kind: type[nn.RNNBase], table: Table, shape: Shape) -> Built:
    """Started as our nets are. Where we have one bias, the second of PyTorch stays at zero."""
    units, every = table.pop("units"), table.pop("return_sequences", False)
    given = {"nonlinearity": table.pop("activation", "tanh")} if kind is nn.RNN else {}
    cell = kind(shape[-1], units, bias=table.pop("use_bias", True), batch_first=True, **given)
    for name, parameter in cell.named_parameters():
        fan_in = {"weight_ih_l0": shape[-1], "weight_hh_l0": 3 * units}.get(name)
        bound = math.sqrt(3 / fan_in) if fan_in else 0.0
        nn.init.uniform_(parameter, -bound, bound)
        parameter.requires_grad_(name != "bias_hh_l0" or kind is nn.GRU)
    return Recurrent(cell, every), (shape[0], units) if every else (units,)


def _layernorm(table: Table, shape: Shape) -> Built:
    return torch_units.LastNorm(shape[-1], table.pop("epsilon", 1e-5)), shape


def _embedding(table: Table, shape: Shape) -> Built:
    features = table.pop("output_dim")
    return torch_units.Embedding((table.pop("input_dim"), features), 1.0), (*shape[:1], features)


def _positions(table: Table, shape: Shape) -> Built:
    return torch_units.Positions(shape, 2 / sum(shape)), shape


def _attention(table: Table, shape: Shape) -> Built:
    return torch_units.Attention(shape[-1], table.pop("num_heads"), table.pop("use_bias", True)), shape


def _feed_forward(table: Table, shape: Shape) -> Built:
    activation = _activation({"activation": table.pop("activation", "gelu")})
    return torch_units.FeedForward(shape[-1], table.pop("units"), table.pop("use_bias", True), activation), shape


def _residual(table: Table, shape: Shape) -> Built:
    return torch_units.Residual(network(table.pop("layers"), shape)[0]), shape


LAYERS: dict[str, Callable[[Table, Shape], Built]] = {
    "Dense": _dense,
    "Conv2D": lambda table, shape: _convolution(table, shape, 2),
    "Conv1D": lambda table, shape: _convolution(table, shape, 1),
    "DepthwiseConv2D": _depthwise,
    "BatchNormalization": _batchnorm,
    "LayerNormalization": _layernorm,
    "Embedding": _embedding,
    "PositionEmbedding": _positions,
    "MultiHeadAttention": _attention,
    "FeedForward": _feed_forward,
    "Residual": _residual,
    "Activation": lambda table, shape: (nn.Identity(), shape),
    "Dropout": lambda table, shape: (nn.Dropout(table.pop("rate")), shape),
    "MaxPool": _maxpool,
    "GlobalAvgPool": lambda table, shape: (Means(), shape[-1:]),
    "SimpleRNN": lambda table, shape: _recurrent(nn.RNN, table, shape),
    "GRU": lambda table, shape: _recurrent(nn.GRU, table, shape),
    "LSTM": lambda table, shape: _recurrent(nn.LSTM, table, shape),
    "Reshape": _reshape,
    "Flatten": lambda table, shape: (Flat(), (math.prod(shape),)),
}
