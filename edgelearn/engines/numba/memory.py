# SPDX-License-Identifier: Apache-2.0
"""Every array of a session of the Numba engine, and their bytes by use."""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Config, Sizes
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.nodes import CODING, COMPARING, READING, Group
from edgelearn.engines.numba.steps import floats_of, shapes_of
from edgelearn.records import Op
from edgelearn.rules import Loss, Objective

MOVING = (Op.DENSE, Op.CONV, Op.MAXPOOL, Op.AVGPOOL, Op.GLOBAL_AVGPOOL, Op.ATTENTION)
"""Operations whose error changes its place on the way back."""


@dataclass(frozen=True)
class Memory:
    """Every array of a session; `rows` to `weights` hold the batch at hand.

    Errors that go round a branch wait in `round`. Groups of an odd turn read `exit` where slices of a batch, or steps,
    leave while others have yet to come in. `steps` is what `Steps` divides.
    """

    records: NDArray[np.void]
    entry: FloatArray
    exit: FloatArray
    pool: FloatArray
    errors: FloatArray
    spare: FloatArray
    round: FloatArray
    pooled: FloatArray
    steps: FloatArray
    state: NDArray[np.uint8]
    kept: FloatArray
    gradients: FloatArray
    codes: FloatArray
    logits: FloatArray
    prefixes: FloatArray
    compared: FloatArray
    alike: FloatArray
    scores: FloatArray
    statistics: FloatArray
    totals: NDArray[np.float64]
    rows: NDArray[np.int64]
    labels: NDArray[np.int32]
    targets: FloatArray
    weights: FloatArray

    def sizes(self) -> Sizes:
        """Bytes by use."""
        total = {f.name: int(getattr(self, f.name).nbytes) for f in fields(self)}
        handle, state = total.pop("records"), total.pop("state") + total.pop("kept")
        moving = ("entry", "exit", "pool", "errors", "spare", "round", "pooled", "steps")
        activations = sum(total.pop(name) for name in moving)
        scratch = sum(total.values())
        return Sizes(handle + state + activations + scratch, handle, activations, state, scratch)


@dataclass(frozen=True)
class _Extent:
    """What the groups need at most, in floats per sample unless said."""

    entry: int
    exit: int
    pool: int
    errors: int
    spare: int
    round: int
    pooled: int
    hidden: int
    compared: int
    gradients: int  # floats
    scores: int  # floats
    statistics: int  # floats
    channels: int  # columns of a sum over rows


def slice_size(config: Config) -> int:
    """Samples that go through a group at once."""
    return min(config.micro or config.batch, config.batch)


def takes_turns(groups: tuple[Group, ...], config: Config) -> bool:
    """Whether a group's input must not lie where its output goes."""
    return slice_size(config) < config.batch or any(group.stepped for group in groups)


def entry_of(groups: tuple[Group, ...], group: Group) -> int:
    """Values of a sample in front of a group that lie there: those of steps come as they are needed, from the samples
    or from the group before."""
    comes_in_steps = group.stepped and (not group.index or groups[group.index - 1].stepped)
    return 0 if comes_in_steps else group.inputs


def _errors(group: Group) -> tuple[int, int]:
    """Of the two arrays that take turns wherever an error changes its place; the second may stay unused."""
    most, turn = [group.last.features, 0], 0
    for place in range(group.seen - 1, group.stepped - 1 if group.stepped else 0, -1):
        node = group.nodes[place]
        if node.op in MOVING and group.nodes[place - 1].op is not Op.RESCALE:
            turn = 1 - turn
            most[turn] = max(most[turn], node.inputs)
    return most[0], most[1]


def _measure(groups: tuple[Group, ...], config: Config) -> _Extent:
    turns = takes_turns(groups, config)
    entries = [(group.turn if turns else 0, entry_of(groups, group)) for group in groups]
    learning = [group for group in groups if group.learns]
    hidden = [group for group in learning if not group.output]
    nodes = [node for g in groups if config.first_group <= g.index <= config.last_group for node in g.nodes]
    errors = [_errors(group) for group in learning] or [(0, 0)]
    return _Extent(
        entry=max(values for turn, values in entries if not turn),
        exit=max((values for turn, values in entries if turn), default=0),
        pool=max(g.floats for g in groups),
        errors=max(first for first, _ in errors),
        spare=max(second for _, second in errors),
        round=max((node.features for g in learning if g.branching for node in g.nodes if node.op is Op.ADD), default=0),
        pooled=max((g.values for g in hidden if g.pools), default=0),
        hidden=max((g.values for g in hidden), default=0),
        compared=max((g.values for g in hidden), default=0) * (config.rule.objective in COMPARING),
        gradients=max(g.start + g.gradients for g in groups),
        scores=2 * max((n.sides.positions**2 for g in groups for n in g.nodes if n.op is Op.ATTENTION), default=0),
        statistics=max(node.column + node.statistics for node in nodes) * config.train,
        channels=max((node.columns for node in nodes if node.op is not Op.RESCALE), default=0) * config.train,
    )


def allocate(records: NDArray[np.void], params: int, groups: tuple[Group, ...], state: int, config: Config) -> Memory:
    """All arrays of a session, zeroed; `state` in bytes, `params` in floats. Memory that nothing has touched
    costs nothing, so that sizes can be asked for this way."""
    need, batch, size, train = _measure(groups, config), config.batch, slice_size(config), config.train
    objective, labelled = config.rule.objective, config.loss is Loss.CROSS_ENTROPY
    scores = need.hidden > 0 and objective in (Objective.TP_CE, *READING, *COMPARING)
    errors = max(need.errors, config.targets * scores)
    f4 = np.float32
    return Memory(
        records=records.copy(),
        entry=np.zeros(batch * need.entry, f4),
        exit=np.zeros(batch * need.exit, f4),
        pool=np.zeros(size * need.pool, f4),
        errors=np.zeros(size * errors, f4),
        spare=np.zeros(size * need.spare, f4),
        round=np.zeros(size * need.round, f4),
        pooled=np.zeros(2 * size * need.pooled, f4),
        steps=np.zeros(floats_of(shapes_of(groups, config, size)), f4),
        state=np.zeros(state, np.uint8),
        kept=np.zeros(params * config.keep, f4),
        gradients=np.zeros(need.gradients, f4),
        codes=np.zeros(config.targets * need.hidden * (objective in CODING), f4),
        logits=np.zeros(size * config.targets * scores, f4),
        prefixes=np.zeros(size * config.targets * (scores and config.nest is not None), f4),
        compared=np.zeros(2 * size * need.compared, f4),
        alike=np.zeros(size * (size + 1) * (need.compared > 0), f4),
        scores=np.zeros(need.scores, f4),
        statistics=np.zeros(need.statistics, f4),
        totals=np.zeros(need.channels, np.float64),
        rows=np.zeros(batch * train, np.int64),
        labels=np.zeros(batch * (train and labelled), np.int32),
        targets=np.zeros(batch * config.targets * (train and not labelled), f4),
        weights=np.zeros(batch * train, f4),
    )
