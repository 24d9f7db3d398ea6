# SPDX-License-Identifier: Apache-2.0
"""Two files of one net in the same runtime and process, timed in turns, one sample at a time on one thread.

Job (JSON) on stdin: files, samples, seconds, rounds. Result: median microseconds of each round for each file, and the
largest difference of their answers.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from edgelearn.export import runtimes


def rounds(answer: Callable[[], Any], seconds: float) -> float:
    """Median microseconds of the calls of a while."""
    times, begin = [], time.perf_counter()
    while time.perf_counter() - begin < seconds:
        start = time.perf_counter()
        answer()
        times.append(time.perf_counter() - start)
    return median(times) * 1e6


def main(job: dict[str, Any]) -> dict[str, Any]:
    """First verify, then time."""
    loaded = [runtimes.load(file, threads=1) for file in job["files"]]
    x = np.load(job["samples"])[:64]
    shapes = [runtime.input_shape for runtime in loaded]
    given = [x if shape == x.shape[1:] else np.moveaxis(x, -1, 1) for shape in shapes]
    answers = [runtime.run(samples) for runtime, samples in zip(loaded, given, strict=True)]
    singles = [runtime.entered(samples[:1]) for runtime, samples in zip(loaded, given, strict=True)]
    calls = [lambda r=r, s=s: r.invoke(s) for r, s in zip(loaded, singles, strict=True)]
    for call in calls:
        rounds(call, job["seconds"])
    measured = [[rounds(call, job["seconds"]) for call in calls] for _ in range(job["rounds"])]
    difference = float(np.abs(answers[0] - answers[1]).max())
    return {"rounds": measured, "difference": difference, "runtime": loaded[0].name}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
