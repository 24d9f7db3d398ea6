# SPDX-License-Identifier: Apache-2.0
"""What a session of the Numba engine needs, read off the records: groups, trained weights and every array."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.engines import Config, Sizes
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.graph import FLAG_BIAS, Op
from edgelearn.rules import Loss, Objective

COUNT_BYTES = 8


@dataclass(frozen=True)
class Segment:
    """Trained weights (rows, columns) inside a matrix of leading dimension `stride` at `offset`.

    Gradient and moments are packed: at `gradient` of the group's gradients, `moments` of the state's floats.
    """

    offset: int
    rows: int
    columns: int
    stride: int
    gradient: int
    moments: int

    @property
    def size(self) -> int:
        """Number of weights."""
        return self.rows * self.columns

    def weights(self, flat: FloatArray) -> FloatArray:
        """(rows, stride) of the vector that holds them."""
        return flat[self.offset : self.offset + self.rows * self.stride].reshape(self.rows, self.stride)

    def packed(self, flat: FloatArray, start: int) -> FloatArray:
        """(rows, columns) of a packed vector."""
        return flat[start : start + self.size].reshape(self.rows, self.columns)


@dataclass(frozen=True)
class Node:
    """One record. `slot` floats per sample lie before its output in the group's pool, and `column` values
    before its batch statistics; `trained` are weight and bias, or gamma and beta."""

    op: Op
    block: int
    units: int
    active: int
    fan_in: int
    stride: int
    offset: int
    params: int
    biased: bool
    arg: tuple[float, float]
    slot: int
    column: int
    trained: tuple[Segment, ...]

    @property
    def statistics(self) -> int:
        """Floats of its batch statistics."""
        return 2 * self.active if self.op is Op.BATCHNORM else 0


@dataclass(frozen=True)
class Group:
    """Blocks with one objective, which sits on the output of node `seen` - 1; `readout` lies in the state."""

    index: int
    nodes: tuple[Node, ...]
    seen: int
    output: bool
    learns: bool
    gradients: int
    readout: Segment | None

    @property
    def last(self) -> Node:
        """The node whose output the objective sees."""
        return self.nodes[self.seen - 1]

    @property
    def floats(self) -> int:
        """Outputs of all its nodes for one sample."""
        return sum(node.active for node in self.nodes)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All that one step updates."""
        inner = tuple(s for node in self.nodes for s in node.trained)
        return inner if self.readout is None else (*inner, self.readout)


def _is_biased(record: Any) -> bool:
    return bool(record["flags"] & FLAG_BIAS)


def _node(record: Any, slot: int, column: int, trained: tuple[Segment, ...]) -> Node:
    return Node(
        op=Op(int(record["op"])),
        block=int(record["block"]),
        units=int(record["units"]),
        active=int(record["active"]),
        fan_in=int(record["fan_in_active"]),
        stride=int(record["stride"]),
        offset=int(record["offset"]),
        params=int(record["params"]),
        biased=_is_biased(record),
        arg=(float(record["arg"][0]), float(record["arg"][1])),
        slot=slot,
        column=column,
        trained=trained,
    )


class _Planner:
    """Places segments one behind the other: moments over the whole state, gradients within a group."""

    def __init__(self, records: NDArray[np.void], config: Config) -> None:
        self.records, self.config, self.state, self.gradients = records, config, 0, 0
        self.last_group = int(records["block"][-1]) // config.group

    def segment(self, offset: int, rows: int, columns: int, stride: int) -> Segment:
        placed = Segment(offset, rows, columns, stride, self.gradients, self.state)
        self.gradients += placed.size
        self.state += placed.size * self.config.optimizer.moments
        return placed

    def trained(self, record: Any) -> tuple[Segment, ...]:
        offset, active, stride = (int(record[name]) for name in ("offset", "active", "stride"))
        if record["op"] == Op.BATCHNORM:
            beta = offset + int(record["units"])
            return self.segment(offset, 1, active, active), self.segment(beta, 1, active, active)
        if record["op"] != Op.DENSE:
            return ()
        weight = self.segment(offset, int(record["fan_in_active"]), active, stride)
        bias = offset + int(record["fan_in"]) * stride
        return (weight, self.segment(bias, 1, active, active)) if _is_biased(record) else (weight,)

    def readout(self, units: int) -> Segment:
        """The read-out itself comes before its moments."""
        at, targets = self.state, self.config.targets
        self.state += units * targets
        return self.segment(at, units, targets, targets)

    def group(self, index: int) -> Group:
        self.gradients = 0
        rule, output = self.config.rule, index == self.last_group
        learns = self.config.train and (output or rule.objective != Objective.UNTRAINED)
        nodes = self.nodes(self.records[self.records["block"] // self.config.group == index], learns)
        tail = [node.op in (Op.DROPOUT, Op.SOFTMAX) for node in reversed(nodes)]
        seen = len(nodes) - tail.index(False)
        reads = learns and not output and rule.objective == Objective.READOUT
        readout = self.readout(nodes[seen - 1].active) if reads else None
        return Group(index, tuple(nodes), seen, output, learns, self.gradients, readout)

    def nodes(self, records: NDArray[np.void], learns: bool) -> list[Node]:
        nodes: list[Node] = []
        slot = column = 0
        for record in records:
            trained = self.trained(record) if learns else ()
            node = _node(record, slot, column, trained)
            slot += node.active
            column += node.statistics
            nodes.append(node)
        return nodes


def groups_of(records: NDArray[np.void], config: Config) -> tuple[tuple[Group, ...], int]:
    """The groups of a checked table, and the bytes of state they keep."""
    planner = _Planner(records, config)
    groups = tuple(planner.group(i) for i in range(planner.last_group + 1))
    counts = COUNT_BYTES * len(groups) if config.train else 0
    return groups, counts + 4 * planner.state


@dataclass(frozen=True)
class Memory:
    """Every array of a session; `rows` to `targets` hold the batch at hand."""

    records: NDArray[np.void]
    entry: FloatArray
    pool: FloatArray
    errors: FloatArray
    spare: FloatArray
    state: NDArray[np.uint8]
    kept: FloatArray
    gradients: FloatArray
    codes: FloatArray
    logits: FloatArray
    statistics: FloatArray
    rows: NDArray[np.int64]
    labels: NDArray[np.int32]
    targets: FloatArray

    def sizes(self) -> Sizes:
        """Bytes by use."""
        total = {f.name: int(getattr(self, f.name).nbytes) for f in fields(self)}
        handle, state = total.pop("records"), total.pop("state") + total.pop("kept")
        activations = sum(total.pop(name) for name in ("entry", "pool", "errors", "spare"))
        scratch = sum(total.values())
        return Sizes(handle + state + activations + scratch, handle, activations, state, scratch)


def allocate(records: NDArray[np.void], params: int, groups: tuple[Group, ...], state: int, config: Config) -> Memory:
    """All arrays of a session, zeroed; `state` in bytes, `params` in floats. Memory that nothing has touched
    costs nothing, so that sizes can be asked for this way."""
    batch, train, objective = config.batch, config.train, config.rule.objective
    hidden = max((g.last.active for g in groups[:-1] if g.learns), default=0)
    wide = batch * max(n.active for g in groups for n in g.nodes)
    deep = any(sum(n.op is Op.DENSE for n in g.nodes) > 1 for g in groups)
    projects = Objective.TP_L2 <= objective <= Objective.TP_CE
    scores = objective in (Objective.TP_CE, Objective.READOUT)
    labelled = config.loss is Loss.CROSS_ENTROPY
    columns = max(n.column + n.statistics for g in groups for n in g.nodes)
    f4 = np.float32
    return Memory(
        records=records.copy(),
        entry=np.zeros(batch * max(g.nodes[0].fan_in for g in groups), f4),
        pool=np.zeros(batch * max(g.floats for g in groups), f4),
        errors=np.zeros(wide * train, f4),
        spare=np.zeros(wide * (train and deep), f4),
        state=np.zeros(state, np.uint8),
        kept=np.zeros(params * config.keep, f4),
        gradients=np.zeros(max(g.gradients for g in groups), f4),
        codes=np.zeros(config.targets * hidden * projects, f4),
        logits=np.zeros(batch * config.targets * scores * (hidden > 0), f4),
        statistics=np.zeros(columns * train, f4),
        rows=np.zeros(batch * train, np.int64),
        labels=np.zeros(batch * (train and labelled), np.int32),
        targets=np.zeros(batch * config.targets * (train and not labelled), f4),
    )
