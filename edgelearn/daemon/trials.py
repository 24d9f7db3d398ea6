# SPDX-License-Identifier: Apache-2.0
"""A version in shadow, judged on samples that were labelled while it was there."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from edgelearn.daemon.database import COLUMNS, connect, whole
from edgelearn.daemon.sections import Train
from edgelearn.daemon.serving import Serving, Shadow

if TYPE_CHECKING:
    from edgelearn.learning.gate import Verdict

_MOST = 1000


def judged(serving: Serving, shadow: Shadow, path: Path, since: int, train: Train) -> Verdict:
    """The gate's verdict on the samples labelled after the label number `since`, the latest of them.

    Raises:
        ModelError: a model does not answer.
    """
    from edgelearn.learning.gate import Gate

    live = serving.ready()
    sql = f"SELECT {COLUMNS} FROM samples WHERE labelled > ? ORDER BY labelled DESC LIMIT ?"
    with closing(connect(path, writes=False)) as base:
        found = [whole(row) for row in base.execute(sql, (since, _MOST))]
    known = set(live.names) & set(shadow.model.names)
    size = live.input.features
    kept = [s for s in found if s and s.label in known and len(s.x) == size * np.dtype(s.dtype).itemsize]
    place = {name: index for index, name in enumerate(shadow.model.names)}
    labels = np.array([place[s.label or ""] for s in kept], np.int64)
    gate = Gate(min_samples=train.min_samples, max_drop=train.max_drop)
    if not kept:
        return gate.judge(labels, labels, labels)
    x = np.stack([np.frombuffer(s.x, s.dtype).astype(np.float32) for s in kept])
    before, after = (serving.answer_now(x, model).argmax(axis=1) for model in (live, shadow.model))
    return gate.judge(labels, before, after, names=shadow.model.names)
