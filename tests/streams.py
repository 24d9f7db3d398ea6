# SPDX-License-Identifier: Apache-2.0
"""Streams that learners are tested on: blobs that tiny nets learn quickly, labels that are wrong, images that turn."""

import numpy as np

import edgelearn as el


def blobs(n, seed=0, classes=4, features=20, spread=1.6):
    """Overlapping clouds: x (n, features) float32, y (n,)."""
    centres = np.random.default_rng(99).normal(0, 1, (classes, features))
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, n)
    return (centres[y] + rng.normal(0, spread, (n, features))).astype(np.float32), y


def novice(seed=0, n=40, **data):
    """A small net that has seen little."""
    x, y = blobs(n, seed=1000 + seed, **data)
    net = el.Net([el.Dense(24, "relu"), el.Dense(int(y.max()) + 1)], input_shape=x.shape[1:], seed=seed)
    return net.fit(x, y, epochs=5, batch=16, lr=3e-3, seed=seed)


def flipped(y, share, classes, rng):
    """Labels of which a share is another one."""
    other = (y + 1 + rng.integers(0, classes - 1, len(y))) % classes
    return np.where(rng.random(len(y)) < share, other, y)


def rotated(images, degrees=45):
    """Images (n, side, side) uint8 turned about their centre, bilinear, black where nothing was."""
    side = images.shape[1]
    centre, angle = (side - 1) / 2, np.deg2rad(degrees)
    row, column = np.mgrid[:side, :side] - centre
    source = np.stack([np.cos(angle) * row - np.sin(angle) * column, np.sin(angle) * row + np.cos(angle) * column])
    source += centre
    first = np.floor(source).astype(int)
    part, out = source - first, np.zeros(images.shape, np.float32)
    for down in (0, 1):
        for right in (0, 1):
            weight = np.abs(1 - down - part[0]) * np.abs(1 - right - part[1])
            r, c = first[0] + down, first[1] + right
            inside = (r >= 0) & (r < side) & (c >= 0) & (c < side)
            out += np.where(inside, weight, 0) * images[:, r.clip(0, side - 1), c.clip(0, side - 1)]
    return out.round().astype(np.uint8)


def feed(learner, x, y, portion=50, **settings):
    """Learn a stream portion by portion, as sensors give it; the steps. A portion that is refused is passed over."""
    steps = []
    for start in range(0, len(x), portion):
        part = slice(start, start + portion)
        try:
            steps.append(learner.partial_fit(x[part], y[part], **settings))
        except el.DataError as error:
            steps.append(el.Step(refused=len(x[part]), reason=str(error)))
    return steps


def learned(n=1500, net=None, **settings):
    """A learner that took the first n of 3,000 samples."""
    x, y = blobs(3000)
    learner = el.Learner(net or novice(), **settings)
    feed(learner, x[:n], y[:n])
    return learner


def kinds(learner):
    """The kinds of the events that it noted."""
    return [event.kind for event in learner.events]
