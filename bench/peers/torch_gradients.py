# SPDX-License-Identifier: Apache-2.0
"""PyTorch's gradients beside those that edgelearn_gradients.py left in a file.

Job (JSON) on stdin: layers, shape, path. Result: arrays, the largest difference as a share of the largest gradient
of its array, and where it is.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import Tensor, nn

from bench.peers.torch_net import network
from bench.peers.torch_units import Table


def stored(values: Tensor, is_table: bool) -> Tensor:
    """A parameter of PyTorch, (outputs, inputs, kernel), in the order of ours: (kernel, inputs, outputs). Tables have
    one order."""
    return values if values.ndim == 1 or is_table else values.permute(*range(2, values.ndim), 1, 0)


def reordered(net: nn.Module) -> set[int]:
    """Parameters of GRUs, whose first two gates PyTorch has the other way round, by identity."""
    return {id(p) for module in net.modules() if isinstance(module, nn.GRU) for p in module.parameters()}


def swapped(values: Tensor) -> Tensor:
    """Rows of gates r, z, n as z, r, n, or back."""
    r, z, n = values.chunk(3)
    return torch.cat([z, r, n])


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Backward through the net with the weights of the file, in float64."""
    with np.load(job["path"], allow_pickle=False) as file:
        arrays = dict(file)
    net = network(job["layers"], tuple(job["shape"]))[0].double().train()
    parameters, gates = [p for p in net.parameters() if p.requires_grad], reordered(net)
    tables = {id(module.weight) for module in net.modules() if isinstance(module, Table)}
    kinds = [id(parameter) in tables for parameter in parameters]
    with torch.no_grad():
        for i, parameter in enumerate(parameters):
            stored(parameter, kinds[i]).copy_(torch.from_numpy(arrays[f"weight{i}"]))
            if id(parameter) in gates:
                parameter.copy_(swapped(parameter))
    x = torch.from_numpy(arrays["x"]).double()
    x = x.flatten(1) if job["layers"][0]["type"] == "Dense" else x.movedim(-1, 1)
    nn.functional.cross_entropy(net(x), torch.from_numpy(arrays["y"]).long()).backward()
    differences = []
    for i, parameter in enumerate(parameters):
        found = swapped(parameter.grad) if id(parameter) in gates else parameter.grad
        theirs = stored(found, kinds[i]).numpy()
        differences.append(float(np.abs(arrays[f"gradient{i}"] - theirs).max() / np.abs(theirs).max()))
    worst = int(np.argmax(differences))
    names = arrays["names"].tolist()
    return {"arrays": len(names), "difference": differences[worst], "where": names[worst]}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
