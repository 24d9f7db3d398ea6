# SPDX-License-Identifier: Apache-2.0
"""How a batch comes into a session's memory: drawn, gathered where it enters, checked, with its answers and weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Entry, Run
from edgelearn.engines.numba import kernels, samples
from edgelearn.engines.numba.layers import Layers
from edgelearn.engines.numba.memory import Memory
from edgelearn.engines.numba.passes import view
from edgelearn.engines.numba.random import order_into
from edgelearn.engines.numba.steps import Feed
from edgelearn.engines.padding import padded_steps
from edgelearn.engines.settings import check_entry
from edgelearn.engines.tokens import check_tokens
from edgelearn.errors import UsageError
from edgelearn.rules import Loss
from edgelearn.sequences import padding_of


@dataclass(frozen=True)
class Batch:
    """Samples `rows` of x and of their answers y, which enter at `entry`."""

    x: NDArray[Any]
    y: NDArray[Any]
    rows: NDArray[np.int64]
    entry: Entry


def order(memory: Memory, n: int, run: Run, step: int) -> NDArray[np.int64]:
    """Places among n samples of those of a step; they lie in the session's memory until the next step."""
    epoch, index = divmod(step, -(-n // run.batch))
    start = index * run.batch
    rows = memory.rows[: min(run.batch, n - start)]
    if run.shuffle:
        order_into(run.seed, epoch, n, start, rows)
    else:
        rows[...] = np.arange(start, start + len(rows))
    return rows


def check_samples(layers: Layers, x: NDArray[Any], entry: Entry) -> None:
    """Raise UsageError for a group that is not there, or scales that do not fit it; DataError for samples of another
    shape or type."""
    if not 0 <= entry.group < len(layers.groups):
        raise UsageError(f"samples enter at group {entry.group}: choose one of 0 to {len(layers.groups) - 1}")
    features = layers.groups[entry.group].inputs
    check_entry(entry, features)
    samples.check_shape(x, features)


def check_values(layers: Layers, x: NDArray[Any], entry: Entry, rows: NDArray[np.int64] | None = None) -> None:
    """Raise DataError for values that are not finite, tokens that there are none of, or steps in no sequence."""
    samples.check_values(x, rows)
    if not entry.group:
        check_tokens(layers.memory.records, layers.params, x, rows)
        padded_steps(layers.memory.records, x, rows)


def take(layers: Layers, x: NDArray[Any], rows: NDArray[np.int64], entry: Entry) -> Feed | None:
    """Gather samples into the entry of their group; where it runs step by step, say where its steps come from."""
    if layers.groups[entry.group].stepped:
        pairs = () if entry.scale is None or entry.shift is None else ((entry.scale, entry.shift),)
        padded = padding_of(layers.memory.records) is not None
        if padded and entry.group:
            raise UsageError("padding cannot be told between groups: let samples enter in front of the first")
        padding = padded_steps(layers.memory.records, x[rows], rows) if padded else None
        return Feed(x, rows, pairs, padding)
    samples.gather(x, rows, entry, layers.entry(entry.group, len(rows)))
    return None


def load(layers: Layers, batch: Batch) -> Feed | None:
    """Bring samples, answers and weights of a batch into the session's memory, and check them."""
    memory, config, rows, n = layers.memory, layers.config, batch.rows, len(batch.rows)
    feed = take(layers, batch.x, rows, batch.entry)
    if feed is None:
        check_values(layers, layers.entry(batch.entry.group, n), batch.entry, rows)
    else:
        layers.check_steps(batch.entry.group, feed)
    memory.weights[:n] = 1
    if config.loss is not Loss.CROSS_ENTROPY:
        targets = view(memory.targets, n, config.targets)
        kernels.gather(batch.y, rows, targets)
        samples.check_values(targets, rows)
        return feed
    samples.check_answers(batch.y[rows], config, rows)
    memory.labels[:n] = batch.y[rows]
    if config.class_weights is not None:
        memory.weights[:n] = np.array(config.class_weights, np.float32)[batch.y[rows]]
    return feed
