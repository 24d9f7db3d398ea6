# SPDX-License-Identifier: Apache-2.0
"""What a session of the Numba engine is made of: trained weights, nodes and groups, and where each lies."""

from __future__ import annotations

from dataclasses import dataclass

from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.geometry import Sides, Window
from edgelearn.records import RECURRENT, Op
from edgelearn.rules import Objective

COUNT_BYTES = 8
"""Of the number of updates of a group."""

STATISTICS = 6
"""Rows of batch normalisation: mean and variance of the batch, running ones to come, sums of gamma and beta."""


READING = (Objective.READOUT, Objective.READOUT_SIM)
"""Objectives with a read-out."""

COMPARING = (Objective.READOUT_SIM, Objective.TP_CE_SIM)
"""Objectives that compare samples."""

CODING = (*range(Objective.TP_L2, Objective.READOUT), Objective.TP_CE_SIM)
"""Objectives with codes of labels."""


@dataclass(frozen=True)
class Segment:
    """Trained weights (rows, columns) inside a matrix of leading dimension `stride` at `offset`.

    Gradient and moments are packed: at `gradient` of the group's gradients, `moments` of the state's floats. Moments
    are those of all `stored` (rows, columns), of which the segment is the first.
    """

    offset: int
    rows: int
    columns: int
    stride: int
    gradient: int
    moments: int
    stored: tuple[int, int]

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

    def moment(self, kept: FloatArray, index: int) -> FloatArray:
        """(rows, columns) of the first or second moments."""
        size = self.stored[0] * self.stored[1]
        start = self.moments + index * size
        return kept[start : start + size].reshape(self.stored)[: self.rows, : self.columns]


@dataclass(frozen=True)
class Node:
    """One record, reading a map of `sides` and leaving one of `after`, both 1 x 1 where it is flat; `on_map`
    says that its record reads one, which single steps are not.

    `slot` floats per sample lie before its output in the group's pool, and `column` values before its batch
    statistics; `trained` are weights and bias, or gamma and beta. A product is scaled by `gain`, and of the statistics
    that a batch normalisation keeps `pair` is in use. An addition reads the output of node `source` of
    its group too, or with -1 the group's entry. What runs step by step is as it is for one step.
    """

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
    sides: Sides
    after: Sides
    window: Window
    groups: int
    on_map: bool
    slot: int
    column: int
    source: int
    trained: tuple[Segment, ...]
    gain: float
    pair: int

    @property
    def inputs(self) -> int:
        """Values of one sample that it reads."""
        return self.sides.positions * self.fan_in

    @property
    def features(self) -> int:
        """Values of one sample that it leaves."""
        return self.after.positions * self.active

    @property
    def columns(self) -> int:
        """Sums over rows that its weights take: of a recurrent layer those of all gates."""
        return RECURRENT.get(self.op, 1) * self.active

    @property
    def before(self) -> tuple[int, int]:
        """Padding above and on the left."""
        (top, _), (left, _) = self.window.padding(self.sides)
        return top, left

    @property
    def statistics(self) -> int:
        """Floats of its batch statistics."""
        return STATISTICS * self.active if self.op is Op.BATCHNORM else 0


@dataclass(frozen=True)
class Group:
    """Blocks with one objective, which sits on the output of node `seen` - 1, averaged to `cells` where that is a
    map; its `heads` hold the read-out, if the rule has one, and lie in the state. It reads `inputs` values of a sample
    and leaves `outputs`; `gradients` floats of gradients begin at `start`. The nodes up to `stepped` run step by step,
    but for a rescaling in front; groups of odd `turn` find their input at the other place. Codes are made for `coded`
    values, and prefixes that end at `ends` have losses of their own."""

    index: int
    nodes: tuple[Node, ...]
    seen: int
    cells: Sides
    output: bool
    learns: bool
    inputs: int
    outputs: int
    stepped: int
    turn: int
    start: int
    gradients: int
    heads: tuple[Segment, ...]
    coded: int
    ends: tuple[int, ...] = ()

    @property
    def steps_at(self) -> range:
        """Places of the nodes that run step by step."""
        return range(int(self.nodes[0].op is Op.RESCALE and self.stepped > 0), self.stepped)

    @property
    def waits(self) -> bool:
        """Whether its objective waits for the last step."""
        return 0 < self.stepped < self.seen

    @property
    def own(self) -> slice:
        """Its part of the gradients."""
        return slice(self.start, self.start + self.gradients)

    @property
    def last(self) -> Node:
        """The node whose output the objective sees."""
        return self.nodes[self.seen - 1]

    @property
    def pools(self) -> bool:
        """Whether the objective sees averages."""
        return self.cells != self.last.after

    @property
    def values(self) -> int:
        """Values of one sample that the objective sees."""
        return self.cells.positions * self.last.active

    @property
    def floats(self) -> int:
        """Outputs of its nodes for one sample, as far as they are kept; steps are kept elsewhere."""
        return max((node.slot + node.features for node in self.nodes[self.stepped :]), default=0)

    @property
    def branching(self) -> bool:
        """Whether an addition reads what one of its nodes leaves, beside the next node."""
        return any(node.op is Op.ADD and node.source >= 0 for node in self.nodes)

    def addition(self, place: int) -> bool:
        """Whether an addition reads again what the node at `place` reads."""
        return any(node.op is Op.ADD and node.source == place - 1 for node in self.nodes)

    @property
    def normalising(self) -> tuple[Node, ...]:
        """Its batch normalisations."""
        return tuple(node for node in self.nodes if node.op is Op.BATCHNORM)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All of its own weights, which one step updates beside its heads."""
        return tuple(segment for node in self.nodes for segment in node.trained)
