# SPDX-License-Identifier: Apache-2.0
"""Our rows of the accuracy table, through the public SDK.

Job (JSON) on stdin: data and model (paths), settings (of `fit`; block 0 is one group of all blocks), seed, samples,
threads. Result: accuracy (percent of the test samples), seconds, parameters.
"""

from __future__ import annotations

import json
import sys
import time
from dataclasses import replace
from typing import Any

import edgelearn as el
from edgelearn.inputs import data


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Train one net and score it on the test samples, in percent; one that refuses to go on scores nothing."""
    whole, limit = data.load(job["data"]), job["samples"]
    samples = replace(whole, x_train=whole.x_train[:limit], y_train=whole.y_train[:limit])
    net = el.load(job["model"], seed=job["seed"])
    net.adopt(samples)
    settings = job["settings"] | {"seed": job["seed"], "threads": job["threads"]}
    settings["block"] = settings["block"] or net.graph.blocks
    found = {"parameters": sum(w.size for w in net.weights.values())}
    start = time.perf_counter()
    try:
        net.fit(samples.x_train, samples.y_train, **settings)
    except el.LearningError as error:
        return found | {"accuracy": 0.0, "seconds": time.perf_counter() - start, "failed": str(error)}
    seconds = time.perf_counter() - start
    return found | {"accuracy": 100 * float(net.score(samples.x_test, samples.y_test)), "seconds": seconds}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
