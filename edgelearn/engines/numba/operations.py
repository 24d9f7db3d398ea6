# SPDX-License-Identifier: Apache-2.0
"""What each operation does with a slice of a batch: forward, with the gradients of its weights, back."""

from __future__ import annotations

from collections.abc import Callable

from edgelearn.engines.numba import features, maps, units
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.nodes import Node
from edgelearn.engines.numba.passes import Pass
from edgelearn.records import Op

_Forward = Callable[[Pass, Node, FloatArray, FloatArray], None]
_Gradients = Callable[[Pass, Node, FloatArray, FloatArray], None]
_Back = Callable[[Pass, Node, FloatArray, FloatArray, FloatArray, FloatArray], None]

_ACTIVATIONS = (Op.RELU, Op.LEAKY_RELU, Op.TANH, Op.SIGMOID, Op.GELU)

FORWARD: dict[Op, _Forward] = {
    Op.RESCALE: features.rescale,
    Op.DENSE: features.dense,
    Op.CONV: maps.conv,
    Op.BATCHNORM: features.batchnorm,
    Op.LAYERNORM: features.layernorm,
    Op.DROPOUT: features.drop,
    Op.SOFTMAX: features.softmax,
    Op.MAXPOOL: maps.max_pool,
    Op.AVGPOOL: maps.average_pool,
    Op.GLOBAL_AVGPOOL: maps.global_average,
    Op.EMBEDDING: units.embed,
    Op.POSITIONS: units.add_positions,
    Op.ATTENTION: units.attend,
    Op.ADD: units.pass_on,
    **dict.fromkeys(_ACTIVATIONS, features.activate),
}

GRADIENTS: dict[Op, _Gradients] = {
    Op.DENSE: features.dense_gradients,
    Op.CONV: maps.conv_gradients,
    Op.BATCHNORM: features.batchnorm_gradients,
    Op.LAYERNORM: features.layernorm_gradients,
    Op.EMBEDDING: units.embed_gradients,
    Op.POSITIONS: units.position_gradients,
}

BACK: dict[Op, _Back] = {
    Op.DENSE: features.dense_back,
    Op.CONV: maps.conv_back,
    Op.BATCHNORM: features.batchnorm_back,
    Op.LAYERNORM: features.layernorm_back,
    Op.DROPOUT: features.drop_back,
    Op.MAXPOOL: maps.max_pool_back,
    Op.AVGPOOL: maps.average_pool_back,
    Op.GLOBAL_AVGPOOL: maps.global_average_back,
    Op.POSITIONS: units.pass_back,
    Op.ATTENTION: units.attend_back,
    Op.ADD: units.pass_back,
    **dict.fromkeys(_ACTIVATIONS, features.activate_back),
}
