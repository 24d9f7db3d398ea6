# SPDX-License-Identifier: Apache-2.0
"""The reference of the accuracy table: an MLP trained by backpropagation in PyTorch.

Job (JSON) on stdin: data (path), layers, epochs, batch, lr, seed, samples, threads. Result: accuracy (%)
and seconds. As in models/mlp.toml: pixels / 255, He-uniform weights, zero biases, Adam, cosine.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn


def pixels(array: np.ndarray) -> Tensor:
    """uint8 images as float32 rows in 0..1."""
    return torch.from_numpy(array.reshape(len(array), -1)).float().div_(255)


def network(layers: Sequence[int]) -> nn.Sequential:
    """Dense layers with relu between them, started as our nets are."""
    parts: list[nn.Module] = []
    for inputs, width in pairwise(layers):
        dense = nn.Linear(inputs, width)
        nn.init.kaiming_uniform_(dense.weight, nonlinearity="relu")
        nn.init.zeros_(dense.bias)
        parts += [dense, nn.ReLU()]
    return nn.Sequential(*parts[:-1])


def fit(net: nn.Module, x: Tensor, y: Tensor, job: dict[str, Any]) -> None:
    """All epochs of shuffled mini-batches, the last one of an epoch smaller if need be."""
    optimizer = torch.optim.Adam(net.parameters(), lr=job["lr"], fused=True)
    loss, total, step = nn.CrossEntropyLoss(), job["epochs"] * math.ceil(len(x) / job["batch"]), 0
    for _ in range(job["epochs"]):
        for chosen in torch.randperm(len(x)).split(job["batch"]):
            optimizer.param_groups[0]["lr"] = job["lr"] * 0.5 * (1 + math.cos(math.pi * step / total))
            optimizer.zero_grad(set_to_none=True)
            loss(net(x[chosen]), y[chosen]).backward()
            optimizer.step()
            step += 1


def main(job: dict[str, Any]) -> dict[str, float]:
    """Train one net and score it on the test images, in percent."""
    torch.set_num_threads(job["threads"])
    # Adam's first moments of rarely lit pixels decay into subnormal numbers, which are slow.
    torch.set_flush_denormal(True)
    torch.manual_seed(job["seed"])
    with np.load(job["data"], allow_pickle=False) as file:
        x, x_test = pixels(file["x_train"][: job["samples"]]), pixels(file["x_test"])
        y = torch.from_numpy(file["y_train"][: job["samples"]].astype(np.int64))
        y_test = torch.from_numpy(file["y_test"].astype(np.int64))
    net = network(job["layers"])
    start = time.perf_counter()
    fit(net, x, y, job)
    seconds = time.perf_counter() - start
    with torch.no_grad():
        right = int((net(x_test).argmax(1) == y_test).sum())
    return {"accuracy": 100 * right / len(y_test), "seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
