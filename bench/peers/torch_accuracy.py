# SPDX-License-Identifier: Apache-2.0
"""The reference of the accuracy table: a model's net trained by backpropagation in PyTorch.

Job (JSON) on stdin: data (path), definition (a model's .toml), recipe (its [train] as all rows share it), seed,
samples, threads. Result: accuracy (percent of the test samples), seconds, parameters.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[2]))

from bench.peers.torch_augment import augment
from bench.peers.torch_net import network

Recipe = Mapping[str, Any]
KNOWN = {"optimizer", "lr", "lr_schedule", "warmup", "epochs", "batch", "augment", "clip"}
OPTIMIZERS = {
    "adam": lambda weights: torch.optim.Adam(weights, fused=True),
    "momentum": lambda weights: torch.optim.SGD(weights, momentum=0.9, fused=True),
    "sgd": lambda weights: torch.optim.SGD(weights, fused=True),
}


def samples(file: Mapping[str, np.ndarray], given: Recipe, limit: int | None) -> tuple[Tensor, Tensor]:
    """Training and test samples as the net sees them, channels last: scaled and standardised as [input] says."""
    x, x_test = file["x_train"][:limit], file["x_test"]
    scale: Any = given.get("scale", 255.0 if x.dtype == np.uint8 else 1.0)
    scale = file[scale] if isinstance(scale, str) else np.asarray(scale)
    pair = []
    for part in (x, x_test):
        if given.get("layout") == "channels_first":
            part = np.moveaxis(part, 1, -1)
        pair.append(part.astype(np.float32) / scale.astype(np.float32))
    if given.get("standardise"):
        axes = tuple(range(pair[0].ndim - 1))
        mean, std = pair[0].mean(axes, dtype=np.float64), pair[0].std(axes, dtype=np.float64)
        pair = [((part - mean) / np.where(std > 0, std, 1)).astype(np.float32) for part in pair]
    return torch.from_numpy(pair[0]), torch.from_numpy(pair[1])


def as_maps(x: Tensor, first: str) -> Tensor:
    """Images and sequences that the data holds without a channel axis get one, as the first layer needs."""
    missing = {"Conv2D": 4, "DepthwiseConv2D": 4, "Conv1D": 3}.get(first, 0) == x.ndim + 1
    return x[..., None] if missing else x


def rate(recipe: Recipe, step: int, total: int) -> float:
    """Learning rate of a step, as edgelearn's schedules have it.

    Raises:
        ValueError: a schedule that is not built here.
    """
    warmup = min(recipe.get("warmup", 0), max(total - 1, 0))
    if step < warmup:
        return recipe["lr"] * (step + 1) / warmup
    if recipe["lr_schedule"] == "cosine":
        return recipe["lr"] * 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(total - warmup, 1)))
    if recipe["lr_schedule"] != "constant":
        raise ValueError(f"the PyTorch peer has no schedule {recipe['lr_schedule']}")
    return recipe["lr"]


def fit(net: nn.Module, x: Tensor, y: Tensor, recipe: Recipe) -> None:
    """All epochs of shuffled mini-batches, the last one of an epoch smaller if need be.

    Raises:
        ValueError: a setting that is not built here.
    """
    if set(recipe) - KNOWN:
        raise ValueError(f"the PyTorch peer does not know {', '.join(sorted(set(recipe) - KNOWN))} of [train]")
    optimizer = OPTIMIZERS[recipe["optimizer"]]([p for p in net.parameters() if p.requires_grad])
    loss, total, step = nn.CrossEntropyLoss(), recipe["epochs"] * math.ceil(len(x) / recipe["batch"]), 0
    net.train()
    for _ in range(recipe["epochs"]):
        for chosen in torch.randperm(len(x)).split(recipe["batch"]):
            optimizer.param_groups[0]["lr"] = rate(recipe, step, total)
            optimizer.zero_grad(set_to_none=True)
            batch = augment(x[chosen], recipe.get("augment", {}))
            loss(net(batch.movedim(-1, 1)), y[chosen]).backward()
            if recipe.get("clip"):
                nn.utils.clip_grad_norm_(net.parameters(), recipe["clip"])
            optimizer.step()
            step += 1


def right(net: nn.Module, x: Tensor, y: Tensor) -> int:
    """How many samples are answered right."""
    net.eval()
    with torch.no_grad():
        answers = [net(part.movedim(-1, 1)).argmax(1) for part in x.split(500)]
    return int((torch.cat(answers) == y).sum())


def main(job: dict[str, Any]) -> dict[str, float]:
    """Train one net and score it on the test samples, in percent."""
    torch.set_num_threads(job["threads"])
    # Adam's first moments of rarely lit pixels decay into subnormal numbers, which are slow.
    torch.set_flush_denormal(True)
    torch.manual_seed(job["seed"])
    layers = job["definition"]["layer"]
    with np.load(job["data"], allow_pickle=False) as file:
        x, x_test = samples(file, job["definition"].get("input", {}), job["samples"])
        y = torch.from_numpy(file["y_train"][: job["samples"]].astype(np.int64))
        y_test = torch.from_numpy(file["y_test"].astype(np.int64))
    x, x_test = (as_maps(part, layers[0]["type"]) for part in (x, x_test))
    if layers[0]["type"] == "Dense":
        x, x_test = x.flatten(1), x_test.flatten(1)
    net, _ = network(layers, tuple(x.shape[1:]))
    start = time.perf_counter()
    fit(net, x, y, job["recipe"])
    seconds = time.perf_counter() - start
    parameters = sum(p.numel() for p in net.parameters() if p.requires_grad)
    return {"accuracy": 100 * right(net, x_test, y_test) / len(y_test), "seconds": seconds, "parameters": parameters}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
