# SPDX-License-Identifier: Apache-2.0
"""Heads on features that stay: trained on from where they are, or made of a regression."""

from __future__ import annotations

import math

import numpy as np

from edgelearn.adapters import lowrank
from edgelearn.adapters.local import Labels, batches, cross_entropy, softmax
from edgelearn.backbone.taps import FloatArray, Head

HEAD_STEPS, HEAD_RATE, HEAD_BATCH = 200, 1e-3, 64


def as_logits(head: Head, features: FloatArray, y: Labels) -> Head:
    """A head of one-hot targets, scaled by the factor that makes the best probabilities of it."""
    plain = head.logits(features)
    factor = min((1.0, 3.0, 10.0, 30.0), key=lambda f: cross_entropy(plain * np.float32(f), y))
    return Head(head.weight * np.float32(factor), head.bias * np.float32(factor))


def tuned(head: Head, features: FloatArray, y: Labels, seed: int = 0) -> Head:
    """A head trained on from where it is: cross-entropy, Adam, cosine; the features stay."""
    weight, bias = head.weight.copy(), head.bias.copy()
    states = [lowrank.optimizer("adam").state(array.shape, 1) for array in (weight, bias)]
    steps = max(HEAD_STEPS, 20 * math.ceil(len(y) / HEAD_BATCH))
    for step, part in zip(range(steps), batches(len(y), HEAD_BATCH, seed), strict=False):
        error = softmax(features[part] @ weight + bias)
        error[np.arange(len(part)), y[part]] -= 1
        error /= len(part)
        rate = HEAD_RATE * 0.5 * (1 + math.cos(math.pi * step / steps))
        states[0].step(weight, features[part].T @ error, rate)
        states[1].step(bias, error.sum(axis=0), rate)
    return Head(weight, bias)
