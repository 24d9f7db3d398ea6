# SPDX-License-Identifier: Apache-2.0
"""What training adds to the memory of an idle process of ours, and what the plan said.

Job (JSON) on stdin: layers, shape, batch, settings (of `partial_fit`; block 0 is one group of all blocks), steps,
threads. Result: planned, growth and idle, in bytes.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

# Last on the path, so that an installed edgelearn is not hidden by the checkout's sources.
sys.path.append(str(Path(__file__).resolve().parents[2]))

import numpy as np

import edgelearn as el
from bench.peers import resident
from edgelearn.layers import from_config


def trained(job: dict[str, Any], shape: list[int], batch: int, steps: int) -> tuple[int, int]:
    """Planned bytes of a net on images of some shape, and memory before it was trained a few steps."""
    net = el.Net([from_config(table) for table in job["layers"]], tuple(shape))
    x = np.random.default_rng(0).random((batch, *shape), np.float32)
    y = np.arange(batch, dtype=np.int32) % net.graph.outputs
    settings = job["settings"] | {"batch": batch, "optimizer": "sgd", "lr": 0.01, "threads": job["threads"]}
    settings["block"] = settings["block"] or net.graph.blocks
    planned, idle = net.plan(**settings).peak_bytes, resident.now()
    for _ in range(steps):
        net.partial_fit(x, y, **settings)
    return planned, idle


def main(job: dict[str, Any]) -> dict[str, int]:
    """Train and see how far memory rises above that of the idle process, in which a tiny step has loaded the code and
    which has net and samples."""
    trained(job, [8, 8, job["shape"][-1]], 2, 1)
    planned, idle = trained(job, job["shape"], job["batch"], job["steps"])
    return {"planned": planned, "growth": resident.peak() - idle, "idle": idle}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
