# SPDX-License-Identifier: Apache-2.0
"""A nested net of four blocks that learns clouds, and its 256 mixes of widths."""

from __future__ import annotations

from clouds import clouds

import edgelearn as el


def data():
    """600 samples of six classes."""
    return clouds(600, 6, (12,), 1.2)


def deep(blocks=4, **settings):
    return el.Net([*(el.Dense(16, "relu") for _ in range(blocks)), el.Dense(6)], input_shape=(12,), **settings)


def fitted():
    """The net, trained and with all its mixes scored."""
    return deep(nested=True, seed=1).fit(*data(), rule="readout", epochs=12, batch=30, lr=0.01, validation=0.2)
