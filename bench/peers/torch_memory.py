# SPDX-License-Identifier: Apache-2.0
"""What training by backpropagation in PyTorch adds to the memory of an idle process.

Job (JSON) on stdin: layers, shape, batch, micro, steps, threads. Result: growth and idle, in bytes. Plain SGD. Where
the batch goes through at once, each weight is updated as soon as its gradient is there and the gradient let go of;
with micro-batches gradients are added up, as they must be.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench.peers import resident
from bench.peers.torch_net import network

RATE = 0.01


def update(weight: nn.Parameter) -> None:
    """One step of SGD; the gradient goes."""
    with torch.no_grad():
        weight -= RATE * weight.grad
    weight.grad = None


def step(net: nn.Module, x: Tensor, y: Tensor, micro: int) -> None:
    """One update on a batch."""
    loss = nn.CrossEntropyLoss(reduction="sum")
    for some, labels in zip(x.split(micro), y.split(micro), strict=True):
        (loss(net(some), labels) / len(x)).backward()
    for weight in net.parameters():
        if weight.grad is not None:
            update(weight)


def main(job: dict[str, Any]) -> dict[str, int]:
    """Train and see how far memory rises above that of the idle process, in which a tiny step has loaded the code."""
    torch.set_num_threads(job["threads"])
    net, outputs = network(job["layers"], tuple(job["shape"]))
    net = net.to(memory_format=torch.channels_last)
    x = torch.rand(job["batch"], *job["shape"]).movedim(-1, 1)
    y = torch.arange(job["batch"]) % outputs[0]
    if job["micro"] >= job["batch"]:
        for weight in net.parameters():
            weight.register_post_accumulate_grad_hook(update)
    step(net, x[:2, :, :8, :8].clone(), y[:2], 2)
    idle = resident.now()
    for _ in range(job["steps"]):
        step(net, x, y, job["micro"])
    return {"growth": resident.peak() - idle, "idle": idle}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
