# SPDX-License-Identifier: Apache-2.0
"""The layers: one class each, which checks its arguments and writes its own records.

A new layer is one class in basic.py, maps.py, recurrent.py or attention.py, one operation in the core and in the Numba
engine, and one lowering in export. Names and arguments are those of Keras.
"""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any, cast

from edgelearn.errors import ModelError
from edgelearn.layers.attention import (
    Embedding,
    FeedForward,
    MultiHeadAttention,
    PositionEmbedding,
    Reshape,
    Residual,
)
from edgelearn.layers.basic import (
    ACTIVATIONS,
    Activation,
    BatchNormalization,
    Dense,
    Dropout,
    Flatten,
    LayerNormalization,
)
from edgelearn.layers.maps import AvgPool, Conv1D, Conv2D, DepthwiseConv2D, GlobalAvgPool, MaxPool
from edgelearn.layers.recurrent import GRU, LSTM, Masking, SimpleRNN

__all__ = [
    "ACTIVATIONS",
    "GRU",
    "LAYERS",
    "LSTM",
    "Activation",
    "AnyLayer",
    "AvgPool",
    "BatchNormalization",
    "Conv1D",
    "Conv2D",
    "Dense",
    "DepthwiseConv2D",
    "Dropout",
    "Embedding",
    "FeedForward",
    "Flatten",
    "GlobalAvgPool",
    "LayerNormalization",
    "Masking",
    "MaxPool",
    "MultiHeadAttention",
    "PositionEmbedding",
    "Reshape",
    "Residual",
    "SimpleRNN",
    "from_config",
    "to_config",
]

_Basic = Dense | Activation | BatchNormalization | LayerNormalization | Dropout | Flatten
_Maps = Conv2D | DepthwiseConv2D | Conv1D | MaxPool | AvgPool | GlobalAvgPool
_Units = Embedding | PositionEmbedding | Reshape | MultiHeadAttention | FeedForward | Residual
_Recurrent = SimpleRNN | GRU | LSTM | Masking
AnyLayer = _Basic | _Maps | _Recurrent | _Units

_CLASSES: tuple[type[AnyLayer], ...] = (
    *(Dense, Conv2D, DepthwiseConv2D, Conv1D, MaxPool, AvgPool, GlobalAvgPool, Flatten),
    *(Masking, SimpleRNN, GRU, LSTM),
    *(Activation, BatchNormalization, LayerNormalization, Dropout),
    *(Embedding, PositionEmbedding, Reshape, MultiHeadAttention, FeedForward, Residual),
)
LAYERS: dict[str, type[AnyLayer]] = {c.__name__: c for c in _CLASSES}
"""Every layer by the name used in .toml and model files."""

_SHORT = {"BatchNorm": "BatchNormalization", "LayerNorm": "LayerNormalization"}
"""Short names that a .toml may use as well."""


def from_config(config: dict[str, Any]) -> AnyLayer:
    """A layer from its table in a .toml or model file, `type` naming it.

    Raises:
        ModelError: unknown type or argument.
    """
    arguments = dict(config)
    kind = arguments.pop("type", None)
    kind = _SHORT.get(kind, kind) if isinstance(kind, str) else kind
    if kind not in LAYERS:
        raise ModelError(f"unknown layer '{kind}': choose one of {', '.join(LAYERS)}")
    known = [f.name for f in fields(LAYERS[kind])]
    for key in arguments:
        if key not in known:
            raise ModelError(f"layer {kind} has no argument '{key}': it takes {', '.join(known)}")
    inner = arguments.get("layers")
    if isinstance(inner, list) and all(isinstance(table, dict) for table in inner):
        arguments["layers"] = [from_config(table) for table in inner]
    lists = {k: tuple(v) for k, v in arguments.items() if isinstance(v, list)}  # as .toml and JSON have pairs
    try:
        return LAYERS[kind](**{**arguments, **lists})
    except TypeError as error:
        raise ModelError(f"layer {kind}: {error}") from error


def to_config(layer: AnyLayer) -> dict[str, Any]:
    """The table that `from_config` reads; arguments at their defaults are left out."""
    defaults = {f.name: f.default for f in fields(layer)}
    kept = {k: v for k, v in asdict(layer).items() if v != defaults[k]}
    if isinstance(layer, Residual):
        kept["layers"] = [to_config(cast(AnyLayer, inner)) for inner in layer.layers]
    return {"type": type(layer).__name__, **kept}
