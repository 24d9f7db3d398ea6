# SPDX-License-Identifier: Apache-2.0
"""What a net is before it learns: layers, input and weights, and how they follow from the data where undeclared."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgelearn import graph, records, rules, sequences
from edgelearn.errors import BudgetError, DataError, ModelError, UsageError
from edgelearn.geometry import sides_of
from edgelearn.graph import Graph
from edgelearn.inputs import arrays
from edgelearn.inputs.data import Dataset
from edgelearn.inputs.frontend import Input
from edgelearn.inputs.ragged import padded
from edgelearn.layers import AnyLayer, Embedding, Masking
from edgelearn.nested import Grid, Levels, parse
from edgelearn.nested import levels as levels_of
from edgelearn.net.slices import Slice, bytes_used
from edgelearn.prefixes import views


class Structure:
    """Layers, input and weights of a net, without what it learns by; see `Net` for the arguments."""

    def __init__(
        self,
        layers: Iterable[AnyLayer],
        input: Input,
        seed: int,
        loss: str | None,
        classes: list[str] | None,
        nested: Grid = None,
    ) -> None:
        self.layers = list(layers)
        self.input = _as_read(self.layers, input)
        self.seed = seed
        self.classes = classes
        self.nested = parse(nested)
        self.slice: Slice | None = None
        self._loss = loss
        self._graph: Graph | None = None
        self._flat = np.zeros(0, np.float32)
        rules.loss(self.loss)
        if self.input.shape is not None:
            self._build()

    @property
    def loss(self) -> str:
        """Loss of the output."""
        return self._loss or "cross_entropy"

    @property
    def graph(self) -> Graph:
        """Records, parameters and shapes.

        Raises:
            ModelError: the input shape is not known yet.
        """
        if self._graph is None:
            raise ModelError("the input shape is not known: give input_shape, or [input] shape, or fit data first")
        return self._graph

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """Shape of a sample as augmentations see it, channels last. Without a channel axis it is an image where the
        first layer that works on maps reads both axes as sides, and else a sequence.

        Raises:
            ModelError: the input shape is not known yet.
        """
        sides = [sides_of(int(size)) for size in self.graph.records["size"] if size][:1]
        shape = self.input.net_shape
        return (*shape, 1) if shape in sides else shape

    @property
    def padding(self) -> float | None:
        """Value of the steps around sequences that are none of theirs; None without a Masking."""
        return next((layer.mask_value for layer in self.layers if isinstance(layer, Masking)), None)

    def one_length(self, x: ArrayLike) -> ArrayLike:
        """Samples as one array: with a Masking, sequences of several lengths are padded.

        Raises:
            DataError: a sequence without steps, or longer than the net's.
        """
        return x if self.padding is None else padded(x, self.padding, self.input.shape)

    @property
    def flat(self) -> NDArray[np.float32]:
        """All parameters and buffers, one vector; `weights` and `buffers` are views of it."""
        return self._flat

    @property
    def weights(self) -> dict[str, NDArray[np.float32]]:
        """Trained arrays by name, ending in .weight or .bias; writing into one changes the net. Those of a submodel are
        views of the whole net's."""
        if self.slice:
            return views(self.graph, self._flat)
        return {p.name: p.view(self._flat) for p in self.graph.parameters if p.trainable}

    @property
    def buffers(self) -> dict[str, NDArray[np.float32]]:
        """Arrays that are not trained: input scaling and running statistics."""
        return {p.name: p.view(self._flat) for p in self.graph.parameters if not p.trainable}

    @property
    def levels(self) -> Levels | None:
        """What training draws its widths from, None where the net is not nested."""
        return levels_of(self.graph, self.nested, self.slice.most if self.slice else None) if self.nested else None

    @property
    def widths(self) -> tuple[float, ...]:
        """The width in use of each block, the output's included."""
        return self.slice.widths if self.slice else (1.0,) * self.graph.blocks

    @property
    def weight_bytes(self) -> int:
        """Bytes of weights and buffers; of a submodel, those that it takes on its own."""
        return bytes_used(self.graph, self._flat) if self.slice else self._flat.nbytes

    def _build(self) -> None:
        """Lay out the graph for the input as known now; parameters that exist keep their values.

        Raises:
            UsageError: this is a submodel, whose weights are another net's.
        """
        if self.slice:
            raise UsageError("a submodel has the input of its net: fit the whole net first, then cut it again")
        pairs = self.input.pairs() if self.input.is_resolved else None
        count = len(pairs[0]) if pairs else 1
        old, flat = self._graph, self._flat
        softmax = self.loss == "cross_entropy"
        levels = len(self.nested.widths) if self.nested else 0
        built = graph.build(self.layers, self.input.net_shape, count, softmax, levels)
        if self.nested:
            levels_of(built, self.nested)  # refuses widths that do not fit the layers
        sequences.check_order(built.records)
        if not softmax and built.records[-1]["op"] == records.Op.SOFTMAX:
            raise ModelError(f"a softmax output cannot learn by {self.loss}: use cross_entropy, or a linear output")
        if old is None or [p.shape for p in old.parameters] != [p.shape for p in built.parameters]:
            self._flat = built.initial(self.seed)
        self._graph = built
        if old is not None and self._flat is not flat:
            self.take(old, flat)
        if pairs:
            self.buffers["input.scale"][...], self.buffers["input.shift"][...] = pairs

    def take(self, source: Graph, params: NDArray[np.float32]) -> None:
        """Copy the parameters of another graph that have the same names and shapes."""
        known = {p.name: p.view(params) for p in source.parameters}
        for parameter in self.graph.parameters:
            if parameter.name in known and known[parameter.name].shape == parameter.shape:
                parameter.view(self._flat)[...] = known[parameter.name]

    def adopt(self, data: Dataset) -> None:
        """Take from the data what is not declared: input shape, scaling, task and class names.

        Raises:
            DataError: data of another shape, or with more classes than outputs.
        """
        if self._loss is None:
            self._loss = "mse" if data.task == "regression" else "cross_entropy"
        resolved = self.input.resolve(data, self.padding)
        if resolved != self.input or self._graph is None or (self.loss != "cross_entropy") == self._has_softmax():
            self.input = resolved
            self._build()
        self.check_task(data)
        if data.classes is not None:
            spare = range(len(data.classes), self.graph.outputs)
            self.classes = [*data.classes, *(f"unused {i}" for i in spare)]

    @contextmanager
    def as_before_if_refused(self) -> Iterator[None]:
        """Where the block refuses data or settings, the net forgets what it took from them."""
        before = self._loss, self.input, self._graph, self._flat, self.classes
        kept = None if self.input.is_resolved else self._flat.copy()  # scaling is written into it
        try:
            yield
        except (DataError, UsageError, ModelError, BudgetError):
            self._loss, self.input, self._graph, self._flat, self.classes = before
            if kept is not None:
                self._flat[...] = kept
            raise

    def dataset(self, x: ArrayLike, y: ArrayLike, several: bool = True) -> Dataset:
        """Samples x (n, *shape) and their answers y, checked for this net's task; classes are `several`, or may be one.

        Raises:
            DataError: samples or answers that cannot be learned.
        """
        x = self.one_length(x)
        if self.loss != "cross_entropy" or (self._loss is None and np.asarray(y).dtype.kind == "f"):
            return arrays.regression(x, y)
        outputs = self._graph.outputs if self._graph else None
        return arrays.classification(x, y, self.classes, outputs, several)

    def _has_softmax(self) -> bool:
        return bool(self.graph.records[-1]["op"] == records.Op.SOFTMAX)

    def check_task(self, data: Dataset) -> None:
        """Whether the net can answer what the data asks.

        Raises:
            DataError: classes for a regression net or values for a classifier, or other numbers of them than outputs.
        """
        kind = "classification" if self.loss == "cross_entropy" else "regression"
        if kind != data.task:
            raise DataError(f"the data is for {data.task}, the net's loss {self.loss} for {kind}: change one of them")
        fits = data.outputs <= self.graph.outputs if kind == "classification" else data.outputs == self.graph.outputs
        if not fits:
            what, way_out = ("classes", "") if kind == "classification" else ("target values", ", or give whole labels")
            raise DataError(
                f"the data has {data.outputs} {what}, the last layer {self.graph.outputs} units: set its units to "
                f"{data.outputs}{way_out}"
            )


def _as_read(layers: Sequence[AnyLayer], input: Input) -> Input:
    """The input as the first layer reads it: tokens are whole numbers, whatever scale bytes have elsewhere."""
    if not layers or not isinstance(layers[0], Embedding):
        return input
    if input.standardise or input.scale not in (None, 1):
        raise ModelError("an Embedding reads tokens as they are: leave scale and standardise out of [input]")
    return replace(input, scale=1.0)
