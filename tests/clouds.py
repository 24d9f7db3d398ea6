# SPDX-License-Identifier: Apache-2.0
"""Samples that are quick to learn: one cloud a class."""

from __future__ import annotations

import numpy as np


def clouds(count, classes, shape, noise, seed=0):
    """Samples (count, *shape), float32, around the centre of their class, and labels (count,), the classes in turn."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % classes
    centres = rng.normal(0, 1, (classes, *shape))
    return (centres[y] + rng.normal(0, noise, (count, *shape))).astype(np.float32), y
