# SPDX-License-Identifier: Apache-2.0
"""Puts an adaptation into the ONNX file that it was made for: statistics as constants, adapters as branches or as one
product, the head in place of the old one. The file is run beside the adaptation before it takes its name."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgelearn.adaptation import verifying
from edgelearn.adaptation.adapted import Adapted
from edgelearn.adapters import Adapter, Bottleneck, Convolution, Householder, Lora
from edgelearn.backbone.onnx import OnnxBackbone
from edgelearn.errors import ModelError
from edgelearn.export import runtimes

FloatArray = NDArray[np.float32]

ROUNDING = ("QuantizeLinear", "DynamicQuantizeLinear")
"""Nodes whose output jumps where their input hardly changes."""


def write(path: str | Path, adapted: Adapted, samples: NDArray[np.float32], merged: bool = False) -> float:
    """Write the grafted graph and return the largest difference of its answers on `samples`, as the data holds them.

    With `merged` each linear adapter is one product instead of a branch of two.

    Raises:
        ModelError: another backbone than an ONNX file.
        VerificationError: onnxruntime gives other answers; nothing was written.
        OutputError: the file cannot be written.
    """
    if not isinstance(adapted.backbone, OnnxBackbone):
        raise ModelError(f"{adapted.backbone.name} is no ONNX file: only those take a graft")
    linear = adapted.backbone.linear
    data = grafted(adapted, merged).SerializeToString()
    rounds = bool(adapted.adapters) and _rounds(adapted.backbone)
    return verifying.write(path, data, adapted, samples, linear is not None and linear.softmax, rounds)


def _rounds(backbone: OnnxBackbone) -> bool:
    """Whether a graph goes through bytes."""
    return any(node.op_type in ROUNDING for node in backbone.graph.nodes)


def grafted(adapted: Adapted, merged: bool = False) -> ModelProto:
    """The original graph with everything that was learned in it."""
    frozen = adapted.frozen
    assert isinstance(frozen, OnnxBackbone)
    model = ModelProto()
    model.CopyFrom(frozen.graph.model)
    graft = _Graft(model.graph, frozen)
    for tap, adapter in adapted.adapters.items():
        graft.adapter(tap, adapter, merged)
    is_float = frozen.graph.types[frozen.graph.output] == TensorProto.FLOAT
    if adapted.head is not None or not is_float:  # bytes would round what was learned
        graft.head(adapted.output.weight, adapted.output.bias)
    _describe(model, adapted)
    return model


def _describe(model: ModelProto, adapted: Adapted) -> None:
    entries = {entry.key: entry.value for entry in model.metadata_props}
    entries["edgelearn_adapted"] = json.dumps(adapted.about)
    entries.pop("classes", None)
    if adapted.class_names:
        entries["classes"] = json.dumps(adapted.class_names)
    if runtimes.QUANTIZATION in entries:
        ends = json.loads(entries[runtimes.QUANTIZATION])
        entries[runtimes.QUANTIZATION] = json.dumps({end: said for end, said in ends.items() if end == "input"})
    helper.set_model_props(model, entries)


class _Graft:
    """Adds nodes to a graph; nodes stay in the order in which they can run."""

    def __init__(self, graph: GraphProto, backbone: OnnxBackbone) -> None:
        self.graph, self.backbone = graph, backbone

    def constant(self, name: str, array: FloatArray) -> str:
        self.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array, np.float32), name))
        return name

    def adapter(self, tap: str, adapter: Adapter, merged: bool) -> None:
        """The adapter behind a tap; whatever read the tap reads the adapter's output."""
        out, prefix = f"{tap}.adapted", f"edgelearn.{tap}"
        shape = self.backbone.graph.shapes[tap]
        product = _Product(self, prefix, len(shape), self.backbone.axes[tap])
        nodes = _branch(product, adapter, tap, out, merged, _rounds(self.backbone))
        place = next(i for i, node in enumerate(self.graph.node) if tap in node.output)
        for node in list(self.graph.node)[place + 1 :]:
            for i, name in enumerate(node.input):
                if name == tap:
                    node.input[i] = out
        self._insert(place + 1, nodes)

    def head(self, weight: FloatArray, bias: FloatArray) -> None:
        """The new head, in place of all that came behind what the old one read."""
        linear, output = self.backbone.linear, self.graph.output[0]
        source = self._kept(self.backbone.features)
        softmax = linear is not None and linear.softmax
        result = output.name if linear is not None else "edgelearn.logits"
        flat, logits = "edgelearn.features", "edgelearn.head" if softmax else result
        nodes = [
            helper.make_node("Flatten", [self._current(source)], [flat], axis=1),
            helper.make_node(
                "Gemm",
                [flat, self.constant("edgelearn.head.weight", weight), self.constant("edgelearn.head.bias", bias)],
                [logits],
            ),
        ]
        if softmax:
            nodes.append(helper.make_node("Softmax", [logits], [result], axis=1))
        self._insert(len(self.graph.node), nodes)
        batch = self.backbone.graph.shapes[self.backbone.graph.input][0]
        sides = [batch if batch > 0 else "batch", weight.shape[1]]
        self.graph.output[0].CopyFrom(helper.make_tensor_value_info(result, TensorProto.FLOAT, sides))

    def _kept(self, source: str) -> str:
        """Take out the nodes behind the features."""
        end = self.backbone.graph.output
        gone = {self.backbone.graph.nodes[i].output[0] for i in self.backbone.graph.between({source}, end)}
        kept = [node for node in self.graph.node if node.output[0] not in gone]
        del self.graph.node[:]
        self.graph.node.extend(kept)
        used = {name for node in kept for name in node.input}
        constants = [t for t in self.graph.initializer if t.name in used]
        del self.graph.initializer[:]
        self.graph.initializer.extend(constants)
        return source

    def _current(self, source: str) -> str:
        """The features, or the output of an adapter right at them."""
        adapted = f"{source}.adapted"
        return adapted if any(adapted in node.output for node in self.graph.node) else source

    def _insert(self, place: int, nodes: list[NodeProto]) -> None:
        after = list(self.graph.node)[place:]
        del self.graph.node[place:]
        self.graph.node.extend([*nodes, *after])


class _Product:
    """Products over the channels of a tensor, as the layout asks: 1x1 convolutions where channels are axis 1 of a map,
    MatMul where they come last."""

    def __init__(self, graft: _Graft, prefix: str, rank: int, axis: int) -> None:
        self.graft, self.prefix, self.rank, self.axis = graft, prefix, rank, axis

    @property
    def is_convolution(self) -> bool:
        """Whether channels come before positions."""
        return self.axis == 1 and self.rank > 2

    def node(self, source: str, matrix: FloatArray, name: str, bias: FloatArray | None = None) -> list[NodeProto]:
        """out = matrix h (+ bias), matrix (units, channels)."""
        out = f"{self.prefix}.{name}"
        if self.is_convolution:
            kernel = matrix.reshape(*matrix.shape, *(1 for _ in range(self.rank - 2)))
            constants = [self.graft.constant(f"{out}.weight", kernel)]
            constants += [] if bias is None else [self.graft.constant(f"{out}.bias", bias)]
            return [helper.make_node("Conv", [source, *constants], [out])]
        weight = self.graft.constant(f"{out}.weight", matrix.T)
        if bias is None:
            return [helper.make_node("MatMul", [source, weight], [out])]
        shift = self.graft.constant(f"{out}.bias", bias)
        return [
            helper.make_node("MatMul", [source, weight], [f"{out}.product"]),
            helper.make_node("Add", [f"{out}.product", shift], [out]),
        ]


def _branch(
    product: _Product, adapter: Adapter, tap: str, out: str, merged: bool, rounds: bool = False
) -> list[NodeProto]:
    """Nodes from a tap to the adapter's output. A lone product amid a graph that `rounds` would have its weights made
    bytes by onnxruntime, which a sum behind it prevents."""
    weights, prefix = adapter.weights, product.prefix
    if isinstance(adapter, Lora | Convolution | Householder) and (merged or not isinstance(adapter, Lora)):
        kept = np.eye(adapter.channels, dtype=np.float32) if rounds else np.float32(0)
        nodes = product.node(tap, adapter.matrix() - kept, "adapter")
        if rounds:
            return [*nodes, helper.make_node("Add", [tap, f"{prefix}.adapter"], [out])]
        nodes[-1].output[0] = out
        return nodes
    if isinstance(adapter, Lora):
        down = product.node(tap, weights["lora_A"], "lora_A")
        up = product.node(f"{prefix}.lora_A", adapter.scaling * weights["lora_B"], "lora_B")
        return [*down, *up, helper.make_node("Add", [tap, f"{prefix}.lora_B"], [out])]
    if isinstance(adapter, Bottleneck):
        down = product.node(tap, weights["down"], "down", weights["bias"])
        bent = helper.make_node("Relu", [f"{prefix}.down"], [f"{prefix}.relu"])
        up = product.node(f"{prefix}.relu", weights["up"], "up")
        return [*down, bent, *up, helper.make_node("Add", [tap, f"{prefix}.up"], [out])]
    raise ModelError(f"an adapter of kind {adapter.kind} has no place in an ONNX graph: save it alone as .safetensors")
