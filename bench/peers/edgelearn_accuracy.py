# SPDX-License-Identifier: Apache-2.0
"""Our rows of the accuracy table, through the public SDK.

Job (JSON) on stdin: data and model (paths), layers, rule, block, epochs, batch, lr, seed, samples, threads.
Result: accuracy (percent) and seconds.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

import edgelearn as el


def widths(net: Any) -> list[int]:
    """Widths of the layers, input first, as the net's weight matrices say."""
    shapes = [w.shape for w in net.weights.values() if w.ndim == 2]
    return [shapes[0][0], *(shape[1] for shape in shapes)]


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Train one net and score it on the test images, in percent; one that refuses to go on scores nothing.

    Raises:
        RuntimeError: the model file does not describe the net that the reference trains.
    """
    with np.load(job["data"], allow_pickle=False) as file:
        x, y = file["x_train"][: job["samples"]], file["y_train"][: job["samples"]]
        x_test, y_test = file["x_test"], file["y_test"]
    net = el.load(job["model"], seed=job["seed"])
    recipe = {key: job[key] for key in ("rule", "block", "epochs", "batch", "lr", "seed", "threads")}
    start = time.perf_counter()
    try:
        net.fit(x, y, **recipe)
    except el.LearningError as error:
        return {"accuracy": 0.0, "seconds": time.perf_counter() - start, "failed": str(error)}
    seconds = time.perf_counter() - start
    if widths(net) != job["layers"]:
        raise RuntimeError(f"the model has widths {widths(net)}, the reference {job['layers']}")
    return {"accuracy": 100 * float(net.score(x_test, y_test)), "seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
