# SPDX-License-Identifier: Apache-2.0
"""A file with an adaptation in it takes its name only when its runtime answers as the adaptation does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.adaptation.adapted import Adapted
from edgelearn.adapters.local import softmax
from edgelearn.durable import replacing, write_through
from edgelearn.errors import VerificationError
from edgelearn.export import runtimes

FloatArray = NDArray[np.float32]

TOLERANCE = 1e-4
"""Largest difference of a probability or a logit, relative above 1."""

DISAGREEMENT = 0.05
"""Share of samples that may get another label where values are rounded to bytes behind an adapter, as in int8 exports:
the last bit before may be another."""


def write(
    path: str | Path, data: bytes, adapted: Adapted, samples: NDArray[Any], is_softmax: bool, rounds: bool = False
) -> float:
    """Write a file and return the largest difference of its answers, probabilities or logits, on `samples` (n, *shape)
    as the data holds them; `rounds` says whether the graph rounds to bytes behind an adapter.

    Raises:
        VerificationError: the runtime gives other answers; nothing was written.
        OutputError: the file cannot be written.
    """
    with replacing(Path(path)) as partial:
        write_through(partial, [data])
        answers = runtimes.load(partial).run(adapted.backbone.prepare(samples))
        expected = adapted.output.logits(adapted.features(samples))
        if is_softmax:
            expected = softmax(expected)
        return _compared(answers.reshape(expected.shape), expected, rounds)


def _compared(answers: FloatArray, expected: FloatArray, rounds: bool) -> float:
    diff = np.abs(answers - expected)
    others = float((answers.argmax(axis=1) != expected.argmax(axis=1)).mean())
    is_close = (diff <= TOLERANCE * np.maximum(1, np.abs(expected))).all()
    if not (is_close or (rounds and np.isfinite(diff).all() and others <= DISAGREEMENT)):
        raise VerificationError(
            f"the grafted file answers up to {diff.max():.3g} away from the adaptation and gives {others:.0%} of the "
            "samples another label: it was not kept; save the adapter alone as .safetensors"
        )
    return float(diff.max())
