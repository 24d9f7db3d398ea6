# SPDX-License-Identifier: Apache-2.0
"""The net that edgelearn_export.py left in a file, written as int8 TFLite by TensorFlow's converter.

Job (JSON) on stdin: layers, shape, weights, samples, tflite.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"

import numpy as np
import tensorflow as tf
from tensorflow.keras import layers

Table = dict[str, Any]

LAYERS: dict[str, Callable[[Table], Any]] = {
    "Conv2D": lambda t: layers.Conv2D(
        t["filters"], t["kernel_size"], t.get("strides", 1), t.get("padding", "valid"), use_bias=t.get("use_bias", True)
    ),
    "BatchNormalization": lambda t: layers.BatchNormalization(epsilon=t.get("epsilon", 1e-5)),
    "Activation": lambda t: layers.Activation(t["activation"]),
    "MaxPool": lambda t: layers.MaxPooling2D(t.get("pool_size", 2), t.get("strides"), t.get("padding", "valid")),
    "Dense": lambda t: layers.Dense(t["units"]),
}
"""What the nets that are compared are made of."""


def network(tables: list[Table], shape: tuple[int, ...]) -> Any:
    """The net in Keras."""
    made: list[Any] = [layers.Input(shape)]
    for table in tables:
        made += [layers.Flatten()] if table["type"] == "Dense" else []
        made.append(LAYERS[table["type"]](table))
    return tf.keras.Sequential([*made, layers.Softmax()])


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Fill the net and convert it: int8 inside and at both ends, batch 1."""
    shape = tuple(job["shape"])
    with np.load(job["weights"], allow_pickle=False) as file:
        arrays = [file[f"array{i}"] for i in range(len(file.files))]
    net = network(job["layers"], shape)
    net.set_weights(arrays)
    samples = np.load(job["samples"])

    def representative() -> Iterator[list[Any]]:
        for sample in samples:
            yield [sample[None]]

    converter = tf.lite.TFLiteConverter.from_keras_model(net)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = representative
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    return {"bytes": Path(job["tflite"]).write_bytes(converter.convert())}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
