# SPDX-License-Identifier: Apache-2.0
"""Answers that say which version gave them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from edgelearn.net import Net


@dataclass(frozen=True)
class Prediction:
    """An answer of the serving net: class index or name, its probability, and the version that said so."""

    label: int | str
    probability: float
    model_id: str


def predictions(net: Net, model_id: str, x: ArrayLike) -> Prediction | list[Prediction]:
    """The answer to one sample of shape *shape, or a list of answers to samples (n, *shape).

    Raises:
        DataError: samples of another shape, or with NaN or infinity.
    """
    samples, shape = np.asarray(x), net.input.shape or ()
    single = samples.shape in (shape, shape[:-1] if shape[-1] == 1 else shape, (net.input.features,))
    outputs = net.forward(samples[None] if single else samples)
    found = [
        Prediction(net.classes[index] if net.classes else index, float(row[index]), model_id)
        for index, row in zip(outputs.argmax(axis=1).tolist(), outputs, strict=True)
    ]
    return found[0] if single else found
