# SPDX-License-Identifier: Apache-2.0
"""A convolutional net that PyTorch builds, trains for two epochs and exports as ONNX, with a residual pair and batch
normalisation.

Job (JSON) on stdin: data (an .npz with x (n, 1, 28, 28) float32 and y), path. Result: accuracy on the training images.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import torch
from torch import Tensor, nn


class Backbone(nn.Module):
    """Two convolutions, a residual pair, global pooling and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2))
        self.inner = nn.Sequential(nn.Conv2d(16, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(16, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU())
        self.head = nn.Linear(32 * 49, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits."""
        x = self.first(x)
        x = self.last(x + self.inner(x))
        return self.head(x.flatten(1))


def main(job: dict[str, str]) -> dict[str, float]:
    """Train and export."""
    torch.manual_seed(0)
    with np.load(job["data"]) as file:
        x, y = torch.from_numpy(file["x"]), torch.from_numpy(file["y"])
    net = Backbone()
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(2):
        for part in torch.randperm(len(x)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[part]), y[part]).backward()
            optimizer.step()
    net.eval()
    torch.onnx.export(
        net, (x[:2],), job["path"], input_names=["images"], output_names=["logits"], dynamo=True, external_data=False,
        dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
    )  # fmt: skip
    with torch.no_grad():
        return {"accuracy": float((net(x[:1000]).argmax(1) == y[:1000]).float().mean())}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
