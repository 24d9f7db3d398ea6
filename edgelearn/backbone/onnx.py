# SPDX-License-Identifier: Apache-2.0
"""Any ONNX file as a backbone: cut at its taps, the parts run by onnxruntime one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import NodeProto, TensorProto

from edgelearn.backbone.onnx_graph import PASSING, PRODUCTS, OnnxGraph, attributes
from edgelearn.backbone.taps import Backbone, FloatArray, Head, Statistics, Tap, sha256
from edgelearn.errors import DataError, ModelError
from edgelearn.inputs.frontend import Input

PROVIDERS = ("TensorrtExecutionProvider", "CUDAExecutionProvider", "CPUExecutionProvider")
"""Of onnxruntime, in order of preference: those that it was built with on this board are taken."""

MOST_TAPS = 6
"""Of a deep net; spread evenly, the last always among them."""

BATCH = 16

_FLOATS = (TensorProto.FLOAT,)

_KINDS: dict[int, Any] = {TensorProto.FLOAT: np.float32, TensorProto.UINT8: np.uint8, TensorProto.INT8: np.int8}


@dataclass(frozen=True, eq=False)
class OnnxHead:
    """The linear output of a graph: what it reads, its weights, and whether a softmax follows."""

    source: str
    head: Head
    softmax: bool


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
        for name in names:
            why = refusal(graph, name)
            if why:
                raise ModelError(f"no tap at '{name}' ({why}): choose from {', '.join(all_taps(graph)) or 'none'}")
        order = {name: i for i, node in enumerate(graph.nodes) for name in node.output}
        names = tuple(sorted(names, key=order.__getitem__))
        self.axes = {name: channel_axis(graph, name) for name in names}
        self.taps = tuple(_tap(graph, name, self.axes[name]) for name in names)
        self.input = Input(shape=graph.shapes[graph.input][1:])
        self.classes: list[str] | None = None
        self._sessions: dict[int, Any] = {}

    @property
    def features(self) -> str:
        """The tensor that the head reads."""
        return self.linear.source if self.linear else self.graph.output

    def prepare(self, x: NDArray[Any]) -> NDArray[Any]:
        """Samples of the file's shape and type; a side of 1 may be missing, or all of them be flat."""
        shape = self.graph.shapes[self.graph.input][1:]
        kind = _KINDS[self.graph.types[self.graph.input]]
        given = tuple(side for side in x.shape[1:] if side != 1)
        if (
            not len(x)
            or x.dtype.kind not in "biuf"
            or given not in (tuple(s for s in shape if s != 1), (np.prod(shape),))
        ):
            raise DataError(
                f"samples of shape {x.shape[1:]} do not fit the input {shape} of {self.name}: give them in that order "
                "of axes"
            )
        cast = np.ascontiguousarray(x.reshape(len(x), *shape)).astype(kind)
        if kind != np.float32 and not np.array_equal(cast, x.reshape(cast.shape)):
            raise DataError(
                f"{self.name} reads {np.dtype(kind)}: give the samples as such, or export it with floats at its ends"
            )
        if kind == np.float32 and not np.isfinite(cast).all():
            raise DataError("samples hold NaN or infinity: remove or repair them")
        return cast

    def stage(self, index: int, h: NDArray[Any]) -> FloatArray:
        """A part of the graph by onnxruntime; nothing is computed where the head reads the last tap itself."""
        source, target = self._ends(index)
        values = self._tensor(index - 1, h) if index else h
        if source != target:
            if index not in self._sessions:
                self._sessions[index] = _session(self.graph.part(source, target), self.name)
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
                    values = run(_session(graph.part(source, node.input[0]), self.name), source, h, self._batch)
                    axes = tuple(axis for axis in range(values.ndim) if axis != 1)
                    mean, variance = values.mean(axes, dtype=np.float64), values.var(axes, dtype=np.float64)
                    new = {"mean": mean.astype(np.float32), "variance": variance.astype(np.float32)}
                    found |= {f"{node.output[0]}.{name}": array for name, array in new.items()}
                    graph = graph.replaced(_places({f"{node.output[0]}.{k}": v for k, v in new.items()}))
            if source != target:
                h = run(_session(graph.part(source, target), self.name), source, h, self._batch)
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


def _tap(graph: OnnxGraph, name: str, axis: int) -> Tap:
    shape = graph.shapes[name]
    sides = [side for place, side in enumerate(shape) if place not in (0, axis)]
    padded = (1, 1, *sides)[-2:]
    return Tap(name, (padded[0], padded[1]), shape[axis])


def find_head(graph: OnnxGraph) -> OnnxHead | None:
    """The last product of the graph and its bias, if nothing but a softmax follows; None for other ends."""
    tensor, softmax, bias = graph.output, False, None
    while tensor in graph.producers and tensor in graph.flowing:
        node = graph.producers[tensor]
        if node.op_type in ("Softmax", *PASSING) and bias is None:
            softmax |= node.op_type == "Softmax"
        elif node.op_type == "Add" and bias is None:
            fixed = [graph.constants[name] for name in node.input if name in graph.constants]
            bias = fixed[0].reshape(-1) if len(fixed) == 1 else None
            if bias is None:
                return None
        else:
            return _linear(graph, node, bias, softmax)
        tensor = graph.reads(node)[0]
    return None


def _linear(graph: OnnxGraph, node: NodeProto, bias: NDArray[Any] | None, softmax: bool) -> OnnxHead | None:
    if node.op_type not in ("Gemm", "MatMul") or node.input[0] not in graph.flowing:
        return None
    about, weight = attributes(node), graph.constants.get(node.input[1])
    plain = about.get("alpha", 1.0) == about.get("beta", 1.0) == 1.0 and not about.get("transA", 0)
    if weight is None or weight.ndim != 2 or not plain or len(graph.shapes.get(node.input[0], ())) != 2:
        return None
    weight = weight.T if about.get("transB", 0) else weight
    if node.op_type == "Gemm" and len(node.input) > 2:
        bias = graph.constants.get(node.input[2])
    bias = np.zeros(weight.shape[1]) if bias is None else np.broadcast_to(bias.reshape(-1), weight.shape[1:])
    head = Head(np.ascontiguousarray(weight, np.float32), np.ascontiguousarray(bias, np.float32))
    return OnnxHead(node.input[0], head, softmax)


def channel_axis(graph: OnnxGraph, name: str) -> int:
    """Where the channels of a tensor are: as the nearest node before it that mixes or normalises them has them."""
    rank, tensor = len(graph.shapes[name]), name
    while tensor in graph.producers:
        node = graph.producers[tensor]
        if node.op_type in ("Conv", "BatchNormalization", "QLinearConv"):
            return 1
        if node.op_type in ("Gemm", "MatMul", "LayerNormalization"):
            return rank - 1
        if node.op_type in ("Transpose", "Reshape", "Flatten", "Squeeze", "Unsqueeze") or not graph.reads(node):
            break
        tensor = graph.reads(node)[0]
    return 1 if rank != 3 else 2


def refusal(graph: OnnxGraph, name: str) -> str:
    """Why there can be no tap at a tensor; empty where there can."""
    if name not in graph.flowing:
        return "there is no such tensor" if name not in graph.constants else "it does not depend on the input"
    shape = graph.shapes.get(name)
    if shape is None or -1 in shape[1:]:
        return "its shape is not known"
    if graph.types.get(name) not in _FLOATS:
        return "it holds whole numbers: what is quantised stays as it is"
    if name in (graph.input, graph.output) or len(shape) not in (2, 3, 4):
        return "it is an end of the graph" if name in (graph.input, graph.output) else f"{len(shape)} axes are no map"
    return "" if name in graph.cuts else "other paths lead around it"


def all_taps(graph: OnnxGraph) -> list[str]:
    """Every tensor that a tap may be at, in order."""
    return [name for node in graph.nodes for name in node.output if name in graph.flowing and not refusal(graph, name)]


def default_taps(graph: OnnxGraph, linear: OnnxHead | None) -> tuple[str, ...]:
    """What products read, as maps where they were maps: one tap per layer with weights, at most MOST_TAPS."""
    found: dict[str, None] = {}
    learned: set[str] = set()  # tensors behind a product: before the first there is nothing learned to adapt
    for node in graph.nodes:
        read = graph.reads(node)
        if node.op_type in PRODUCTS and read and read[0] in learned:
            found[_before_passing(graph, read[0])] = None
        if (node.op_type in (*PRODUCTS, "QLinearConv") and read) or learned.intersection(read):
            learned.update(node.output)
    last = _before_passing(graph, linear.source if linear else graph.output)
    names = [name for name in dict.fromkeys([*found, last]) if not refusal(graph, name)]
    order = {name: i for i, node in enumerate(graph.nodes) for name in node.output}
    names.sort(key=order.__getitem__)
    if len(names) <= MOST_TAPS:
        return tuple(names)
    return tuple(names[round(i * (len(names) - 1) / (MOST_TAPS - 1))] for i in range(MOST_TAPS))


def _before_passing(graph: OnnxGraph, tensor: str) -> str:
    """The nearest tensor on the way to it where a tap can be, past nodes that only change its form."""
    while tensor in graph.producers:
        passing = graph.producers[tensor].op_type in PASSING
        before = graph.reads(graph.producers[tensor])
        if not before or not (passing or refusal(graph, tensor)):
            break
        tensor = before[0]
    return tensor


def _session(data: bytes, name: str) -> Any:
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
        raise ModelError(
            f"onnxruntime cannot run a part of {name} ({str(error).splitlines()[0]}): export it again"
        ) from error


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
    backbone = OnnxBackbone(OnnxGraph(data, name), sha256(data), taps)
    entries = {entry.key: entry.value for entry in backbone.graph.model.metadata_props}
    if "classes" in entries:
        import json

        backbone.classes = [str(item) for item in json.loads(entries["classes"])]
    return backbone
