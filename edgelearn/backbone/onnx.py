# SPDX-License-Identifier: Apache-2.0
"""Any ONNX file as a backbone: cut at its taps, the parts run by onnxruntime one after the other."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from edgelearn.backbone.onnx_graph import OnnxGraph
from edgelearn.backbone.onnx_taps import all_taps, channel_axis, default_taps, find_head, float_end, refusal
from edgelearn.backbone.taps import (
    Backbone,
    FloatArray,
    Statistics,
    Tap,
    arranged,
    described,
    entered,
    sha256,
)
from edgelearn.errors import ModelError
from edgelearn.export.int8 import Affine

PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
"""Of onnxruntime, in order of preference: those that it was built with on this board are taken."""

BATCH = 16

NAMED = 20
"""Taps that an error names: deep nets have hundreds."""

_KINDS: dict[int, Any] = {TensorProto.FLOAT: np.float32, TensorProto.UINT8: np.uint8, TensorProto.INT8: np.int8}


class OnnxBackbone:
    """See `Backbone`; taps are called after their tensors.

    Raises:
        ModelError: taps that do not exist or where the graph cannot be cut, or a missing package.
    """

    def __init__(self, graph: OnnxGraph, digest: str, taps: tuple[str, ...] = ()):
        self.graph, self.name, self.digest = graph, graph.name, digest
        self.linear = find_head(graph)
        self.head = self.linear.head if self.linear else None
        names = taps or default_taps(graph, self.linear)
        if not names:
            raise ModelError(f"{graph.name} can be cut nowhere: see 'edgelearn doctor {graph.name}' for the reasons")
        self._check_taps(names)
        names = tuple(sorted(set(names), key=graph.order.__getitem__))
        self.axes = {name: channel_axis(graph, name) for name in names}
        self.taps = tuple(_tap(graph, name, self.axes[name]) for name in names)
        entries = {entry.key: entry.value for entry in graph.model.metadata_props}
        self.input, self.classes = described(entries, graph.shapes[graph.input][1:], graph.name)
        self.entering = entering(graph)
        self._sessions: dict[int, Any] = {}

    def _check_taps(self, names: tuple[str, ...]) -> None:
        reasons = {name: refusal(self.graph, name, self.linear) for name in names}
        wrong = [f"'{name}' ({why})" for name, why in reasons.items() if why]
        if wrong:
            known = all_taps(self.graph, self.linear)
            more = f" and {len(known) - NAMED} more that 'edgelearn doctor {self.name}' lists"
            choice = ", ".join(known[:NAMED]) + (more if len(known) > NAMED else "")
            raise ModelError(f"no tap at {', '.join(wrong)}: choose from {choice or 'none'}")

    @property
    def features(self) -> str:
        """The tensor that the head reads."""
        return self.linear.source if self.linear else float_end(self.graph)

    def prepare(self, x: NDArray[Any]) -> NDArray[Any]:
        """Samples of the file's shape and type; a side of 1 may be missing, or all of them be flat."""
        rows = arranged(x, self.graph.shapes[self.graph.input][1:], self.name)
        return entered(rows, _KINDS[self.graph.types[self.graph.input]], self.entering, self.name)

    def stage(self, index: int, h: NDArray[Any]) -> FloatArray:
        """A part of the graph by onnxruntime; nothing is computed where the head reads the last tap itself."""
        source, target = self._ends(index)
        values = self._tensor(index - 1, h) if index else h
        if source != target:
            if index not in self._sessions:
                self._sessions[index] = session(self.graph.part(source, target), self.name)
            values = run(self._sessions[index], source, values, self._batch)
        if index == len(self.taps):
            return values.reshape(len(values), -1)
        return self._rows(index, values)

    def _ends(self, index: int) -> tuple[str, str]:
        source = self.taps[index - 1].name if index else self.graph.input
        return source, self.taps[index].name if index < len(self.taps) else self.features

    @property
    def _batch(self) -> int:
        """Samples per call, negative where the file wants exactly so many."""
        fixed = self.graph.shapes[self.graph.input][0]
        return -fixed if fixed > 0 else BATCH

    def _rows(self, index: int, values: FloatArray) -> FloatArray:
        """(n, positions, channels) of a tensor."""
        tap = self.taps[index]
        last = np.moveaxis(values, self.axes[tap.name], -1)
        return np.ascontiguousarray(last).reshape(len(values), tap.positions, tap.channels)

    def _tensor(self, index: int, h: NDArray[Any]) -> FloatArray:
        """The tensor again."""
        tap = self.taps[index]
        axis, shape = self.axes[tap.name], self.graph.shapes[tap.name][1:]
        sides = [side for place, side in enumerate(shape, 1) if place != axis]
        return np.ascontiguousarray(np.moveaxis(h.reshape(len(h), *sides, tap.channels), -1, axis), np.float32)

    def statistics(self, x: NDArray[Any]) -> Statistics:
        """Of BatchNormalization nodes; exporters often fold them away, and then there are none."""
        found, graph, h, source = Statistics(), self.graph, x, self.graph.input
        ends = [self._ends(index)[1] for index in range(len(self.taps) + 1)]
        for target in ends:
            for node in [graph.nodes[i] for i in graph.between({source}, target)] if source != target else []:
                if node.op_type == "BatchNormalization" and all(n in graph.constants for n in node.input[1:]):
                    values = run(session(graph.part(source, node.input[0]), self.name), source, h, self._batch)
                    axes = tuple(axis for axis in range(values.ndim) if axis != 1)
                    mean, variance = values.mean(axes, dtype=np.float64), values.var(axes, dtype=np.float64)
                    new = {"mean": mean.astype(np.float32), "variance": variance.astype(np.float32)}
                    found |= {f"{node.output[0]}.{name}": array for name, array in new.items()}
                    graph = graph.replaced(_places({f"{node.output[0]}.{k}": v for k, v in new.items()}))
            if source != target:
                h = run(session(graph.part(source, target), self.name), source, h, self._batch)
            source = target
        return found

    def restated(self, statistics: Statistics) -> Backbone:
        """A copy of the graph with other statistics."""
        known = {node.output[0]: node for node in self.graph.nodes if node.op_type == "BatchNormalization"}
        for name, values in statistics.items():
            node = known.get(name.rpartition(".")[0])
            if node is None or self.graph.constants[node.input[3]].shape != values.shape:
                raise ModelError(f"{self.name} has no statistics '{name}' of that size: adapt it again")
        graph = self.graph.replaced(_places(statistics))
        return OnnxBackbone(graph, self.digest, tuple(tap.name for tap in self.taps))

    def release(self) -> None:
        """End the sessions."""
        self._sessions.clear()


def _places(statistics: Statistics) -> dict[tuple[str, int], FloatArray]:
    """Inputs of BatchNormalization: 3 is the mean, 4 the variance."""
    ends = {name: name.rpartition(".") for name in statistics}
    return {(ends[name][0], 3 if ends[name][2] == "mean" else 4): array for name, array in statistics.items()}


def entering(graph: OnnxGraph) -> Affine | None:
    """What bytes at the input stand for, by the DequantizeLinear that reads them; None where nothing says it."""
    readers = graph.consumers(graph.input)
    if [node.op_type for node in readers] != ["DequantizeLinear"]:
        return None
    known = [graph.constants.get(name) for name in readers[0].input[1:]]
    if any(array is None or array.size != 1 for array in known):
        return None
    scale, zero = (float(array.reshape(-1)[0]) for array in [*known, np.zeros(1)][:2] if array is not None)
    return Affine(scale, int(zero))


def _tap(graph: OnnxGraph, name: str, axis: int) -> Tap:
    shape = graph.shapes[name]
    sides = [side for place, side in enumerate(shape) if place not in (0, axis)]
    padded = (1, 1, *sides)[-2:]
    return Tap(name, (padded[0], padded[1]), shape[axis])


def session(data: bytes, name: str) -> Any:
    """A file, or a part of one, in onnxruntime.

    Raises:
        ModelError: onnxruntime is missing, or cannot run it.
    """
    try:
        runtime = import_module("onnxruntime")
    except ImportError as error:
        raise ModelError("onnxruntime is not installed: pip install 'edgelearn[onnx]'") from error
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # fatal: what fails comes as an exception, not as text on stderr
    options.intra_op_num_threads = 1
    available = runtime.get_available_providers()
    try:
        return runtime.InferenceSession(
            data, options, providers=[p for p in PROVIDERS if p in available], enable_fallback=0
        )
    except Exception as error:  # onnxruntime's own errors have no common class
        raise ModelError(f"onnxruntime cannot run {name} ({str(error).splitlines()[0]}): export it again") from error


def run(session: Any, source: str, values: NDArray[Any], batch: int) -> FloatArray:
    """The output of a part, at most `batch` samples at a time; exactly -batch, the last filled up, where negative."""
    size, found = abs(batch), []
    for start in range(0, len(values), size):
        chunk = values[start : start + size]
        missing = size - len(chunk) if batch < 0 else 0
        filled = np.concatenate([chunk, np.repeat(chunk[-1:], missing, axis=0)]) if missing else chunk
        found.append(session.run(None, {source: filled})[0][: len(chunk)])
    out: FloatArray = np.concatenate(found)
    return out


def load(data: bytes, name: str, taps: tuple[str, ...] = ()) -> OnnxBackbone:
    """The file as a backbone, with these taps or those of `default_taps`."""
    return OnnxBackbone(OnnxGraph(data, name), sha256(data), taps)
