# SPDX-License-Identifier: Apache-2.0
"""The net that edgelearn_export.py left in a file, written as ONNX by torch.onnx.export.

Job (JSON) on stdin: layers, shape, weights, onnx.
"""

from __future__ import annotations

import contextlib
import json
import sys
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[2]))

import numpy as np
import torch
from torch import nn

from bench.peers.torch_gradients import stored
from bench.peers.torch_net import network


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Fill the net, export it for any batch."""
    with np.load(job["weights"], allow_pickle=False) as file:
        arrays = {key: torch.from_numpy(value) for key, value in file.items()}
    net = nn.Sequential(network(job["layers"], tuple(job["shape"]))[0], nn.Softmax(1)).eval()
    kept = [p for name, p in net.state_dict().items() if not name.endswith("num_batches_tracked")]
    with torch.no_grad():
        for i, parameter in enumerate(kept):
            stored(parameter, is_table=False).copy_(arrays[f"array{i}"])
    x = torch.zeros(1, job["shape"][-1], *job["shape"][:-1])
    batch = torch.export.Dim("batch", min=1, max=1024)
    with contextlib.redirect_stdout(sys.stderr):  # it prints its progress, and the result must be the last line
        names = {"input_names": ["input"], "output_names": ["output"], "external_data": False}
        torch.onnx.export(net, (x,), job["onnx"], dynamic_shapes=({0: batch},), **names)
    return {"bytes": Path(job["onnx"]).stat().st_size}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
