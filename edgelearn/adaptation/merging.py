# SPDX-License-Identifier: Apache-2.0
"""An adaptation inside the weights of a net of ours: merged into the layers behind the taps, and taken out again.

A linear adapter h' = M h before a product W is the product of W M. The weights from before are kept, so that taking it
out gives them back to the bit, which computing them back would not.
"""

from __future__ import annotations

import copy
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from edgelearn.adaptation.adapted import Adapted
from edgelearn.adapters import Adapter, Convolution, Householder, Lora
from edgelearn.backbone.own import OwnBackbone
from edgelearn.errors import ModelError
from edgelearn.layers import Dense
from edgelearn.net import Net
from edgelearn.records import Op, groups_of_record

FloatArray = NDArray[np.float32]


class Merged:
    """What `merge` returns: the net with the adaptation in its weights."""

    def __init__(self, net: Net, kept: FloatArray) -> None:
        self.net, self._kept = net, kept

    def detach(self) -> Net:
        """Put the kept weights back, to the bit."""
        self.net.flat[...] = self._kept
        return self.net


def merge(net: Net, adapted: Adapted) -> Merged:
    """Write an adaptation into the weights of the net that it was made for.

    Raises:
        ModelError: another net, a head for another number of classes, an adapter that is not linear, or a layer behind
            it that does not mix all channels; the weights have not changed.
    """
    frozen = _frozen(net, adapted)
    if adapted.head is not None and adapted.head.bias.size != net.graph.outputs:
        more = f"the new head has {adapted.head.bias.size} classes, this net {net.graph.outputs}"
        raise ModelError(f"{more}: make a new net by `merged`")
    changed = frozen.flat.copy()
    _write(net, adapted, changed)
    kept = net.flat.copy()
    net.flat[...] = changed
    return Merged(net, kept)


def _frozen(net: Net, adapted: Adapted) -> OwnBackbone:
    """The backbone on its new statistics, if the net still is what it was made of."""
    frozen = adapted.frozen
    if not isinstance(frozen, OwnBackbone) or OwnBackbone(net, "net").digest != adapted.backbone.digest:
        raise ModelError("the adaptation was made for other weights: merge it into the net that it was made for")
    return frozen


def _write(net: Net, adapted: Adapted, flat: FloatArray) -> None:
    """The head, and the adapters into what reads them, which behind the last tap is the head."""
    _write_head(net, adapted, flat)
    for index, tap in enumerate(adapted.backbone.taps):
        if tap.name in adapted.adapters:
            _fold(net, adapted.adapters[tap.name], index + 1, tap.channels, flat)


def merged(adapted: Adapted) -> Net:
    """A new net with the adaptation in its weights and a head as wide as the new one; the backbone stays as it was.

    Raises:
        ModelError: as `merge`, but for the number of classes.
    """
    backbone = adapted.backbone
    if not isinstance(backbone, OwnBackbone) or not isinstance(backbone.net, Net):
        raise ModelError(f"{backbone.name} is no net of ours: export the adaptation as .onnx, or save it alone")
    net = copy.deepcopy(backbone.net)
    if adapted.head is None or adapted.head.bias.size == net.graph.outputs:
        merge(net, adapted)
    else:
        net.flat[...] = _frozen(net, adapted).flat
        net = _with_outputs(net, adapted.head.bias.size)
        _write(net, adapted, net.flat)
    net.classes = adapted.class_names
    net.restore(None, {**backbone.net.provenance, "adapted": adapted.about.get("way", "none")})
    return net


def _with_outputs(net: Net, outputs: int) -> Net:
    """A new net whose last product has so many units, all before it as it is."""
    place, last = [(i, layer) for i, layer in enumerate(net.layers) if isinstance(layer, Dense)][-1]
    layers = [*net.layers[:place], replace(last, units=outputs, use_bias=True), *net.layers[place + 1 :]]
    made = Net(layers, seed=net.seed, loss=net.loss, input=net.input, train=net.train, nested=net.nested)
    known = {parameter.name: parameter for parameter in net.graph.parameters}
    for parameter in made.graph.parameters:
        if known[parameter.name].shape == parameter.shape:
            parameter.view(made.flat)[...] = known[parameter.name].view(net.flat)
    return made


def _write_head(net: Net, adapted: Adapted, flat: FloatArray) -> None:
    if adapted.head is None:
        return
    record = next(r for r in net.graph.records if r["block"] == net.graph.blocks - 1 and r["op"] == Op.DENSE)
    first, size = int(record["offset"]), adapted.head.weight.size
    flat[first : first + size] = adapted.head.weight.reshape(-1)
    if int(record["params"]) > size:
        flat[first + size : first + size + adapted.head.bias.size] = adapted.head.bias
    elif adapted.head.bias.any():
        raise ModelError("the net's head has no bias to merge one into: save the adapter alone as .safetensors")


def _fold(net: Net, adapter: Adapter, block: int, channels: int, flat: FloatArray) -> None:
    """Into the weight (..., channels, units) of the product that opens a block."""
    records = net.graph.records
    place = int(np.flatnonzero(records["block"] == block)[0])
    record, readers = records[place], int((records["input"] == place - 1).sum())
    if record["op"] not in (Op.DENSE, Op.CONV) or readers > 1:
        raise ModelError(f"block {block} does not begin with one product: save the adapter alone as .safetensors")
    if not isinstance(adapter, Lora | Convolution | Householder):
        raise ModelError(f"an adapter of kind {adapter.kind} is no product: save it alone, or export an ONNX backbone")
    if record["op"] == Op.CONV and groups_of_record(record) > 1:
        raise ModelError(f"the layer behind tap {block - 1} keeps channels apart: save the adapter alone")
    units, first = int(record["units"]), int(record["offset"])
    size = int(record["params"]) // units // channels * channels * units
    weight = flat[first : first + size].reshape(-1, channels, units)
    weight[...] = np.einsum("ij,pio->pjo", adapter.matrix(), weight)
