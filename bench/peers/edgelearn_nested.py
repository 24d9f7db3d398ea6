# SPDX-License-Identifier: Apache-2.0
"""One net of the nested table, through the public SDK.

Job (JSON) on stdin: data and model (paths), units (of hidden dense layers, or null for the model's), kind (nested, or
the width of a net of its own), settings (of `fit`), seed, samples. Result: accuracy and truncated (percent of the test
samples, by width), seconds. A net of full width is also cut as if it were nested: truncated.
"""

from __future__ import annotations

import json
import sys
import time
import warnings
from dataclasses import replace
from typing import Any

import edgelearn as el
from edgelearn.inputs import data
from edgelearn.nested import WIDTHS


def widened(layers: list[Any], units: int | None) -> list[Any]:
    """The layers with so many units in each hidden Dense."""
    hidden = [layer for layer in layers if isinstance(layer, el.Dense)][:-1]
    return [replace(layer, units=units) if units and layer in hidden else layer for layer in layers]


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Train one net and score its widths on the test samples, in percent."""
    whole, limit = data.load(job["data"]), job["samples"]
    samples = replace(whole, x_train=whole.x_train[:limit], y_train=whole.y_train[:limit])
    model = el.load(job["model"])
    layers = widened(model.layers, job["units"])
    given = {"input": model.input, "train": model.train, "seed": job["seed"]}
    nested = el.Net(layers, nested=True, **given)
    nested.adopt(samples)
    is_nested = job["kind"] == "nested"
    if not is_nested:
        layers = nested.submodel(job["kind"]).compact().layers
    net = nested if is_nested else el.Net(layers, **given)
    start = time.perf_counter()
    net.fit(samples.x_train, samples.y_train, seed=job["seed"], **job["settings"])
    found: dict[str, Any] = {"seconds": time.perf_counter() - start, "accuracy": {}, "truncated": {}}
    for width in WIDTHS if is_nested else (job["kind"],):
        part = net.submodel(width) if is_nested else net
        found["accuracy"][str(width)] = 100 * part.score(samples.x_test, samples.y_test)
    if job["kind"] == 1.0:
        for width in WIDTHS:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                small = net.submodel(width, truncate=True)
            found["truncated"][str(width)] = 100 * small.score(samples.x_test, samples.y_test)
    return found


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
