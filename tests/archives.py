# SPDX-License-Identifier: Apache-2.0
"""A small set of samples as an .npz archive."""

from __future__ import annotations

import numpy as np


def arrays(**changes):
    """Six training and three test samples of three classes."""
    base = {
        "x_train": np.arange(24, dtype=np.float32).reshape(6, 4),
        "y_train": np.array([0, 1, 2, 0, 1, 2]),
        "x_test": np.ones((3, 4), np.float32),
        "y_test": np.array([2, 1, 0]),
    }
    return {**base, **changes}


def saved(folder, **changes):
    path = folder / "set.npz"
    np.savez(path, **arrays(**changes))
    return path
