# SPDX-License-Identifier: Apache-2.0
"""`python -m bench.memory`: what training a deep convolutional net adds to the memory of an idle process.

Twelve convolutions on images of 64 x 64, ours beside backpropagation in PyTorch with updates fused into the backward
pass. Exits with 1 when ours takes more than a sixth, planned or measured.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any

from bench import process, report, venvs

SHAPE = (64, 64, 3)
BATCH = 32
STEPS = 3
SHARE = 1 / 6
RULES = ("tp-ce", "readout", "readout+sim")
MICROS = (8, 1)

Rows = list[list[str]]


def layers() -> Iterator[dict[str, Any]]:
    """Twelve blocks of 32 filters, then a mean per channel and ten classes."""
    for _ in range(12):
        yield {"type": "Conv2D", "filters": 32, "kernel_size": 3, "padding": "same", "use_bias": False}
        yield {"type": "BatchNormalization"}
        yield {"type": "Activation", "activation": "relu"}
    yield {"type": "GlobalAvgPool"}
    yield {"type": "Dense", "units": 10}


def job(**more: Any) -> dict[str, Any]:
    """What both sides are told."""
    return {"layers": list(layers()), "shape": SHAPE, "batch": BATCH, "steps": STEPS, "threads": 1} | more


def torch(micro: int) -> int:
    """Growth of PyTorch's process with batches of BATCH in parts of `micro`, bytes."""
    growth: int = process.run("torch_memory", job(micro=micro), "torch")["growth"]
    print(f"PyTorch, micro-batch {micro}: {megabytes(growth)} MB", file=sys.stderr, flush=True)
    return growth


def ours(rule: str, block: int = 1, micro: int = 0) -> dict[str, int]:
    """Planned bytes and growth of our process."""
    settings = {"rule": rule, "block": block} | ({"micro": micro} if micro else {})
    found = process.run("edgelearn_memory", job(settings=settings))
    print(f"{rule}, micro-batch {micro or BATCH}: {megabytes(found['growth'])} MB", file=sys.stderr, flush=True)
    return found


def largest_micro(limit: int, measure: Callable[[int], int]) -> tuple[int, int] | None:
    """The largest micro-batch below BATCH whose growth stays within a limit, with that growth; None if 1 does not."""
    best, low, high = None, 1, BATCH - 1
    while low <= high:
        middle = (low + high) // 2
        growth = measure(middle)
        if growth <= limit:
            best, low = (middle, growth), middle + 1
        else:
            high = middle - 1
    return best


def megabytes(value: int) -> str:
    """In units of 2**20 bytes."""
    return f"{value / 2**20:.1f}"


def verdict(found: dict[str, int], reference: int) -> str:
    """Whether a rule keeps the promise, planned and measured."""
    return "pass" if max(found["planned"], found["growth"]) <= SHARE * reference else "miss"


def line(
    title: str, micro: int, reference: int, growth: int, planned: int | None = None, judged: str = ""
) -> list[str]:
    """A row of the table."""
    plan = "" if planned is None else megabytes(planned)
    return [title, str(micro), plan, megabytes(growth), f"{reference / growth:.1f}", judged]


def measured() -> Rows:
    """All contenders."""
    whole = torch(BATCH)
    local = {rule: ours(rule) for rule in RULES}
    everything = {
        "two blocks share a gradient": ours(RULES[-1], block=2),
        "one group of all blocks (backprop)": ours(RULES[-1], block=0),
    }
    parts = {micro: ours(RULES[-1], micro=micro) for micro in MICROS}
    matching = largest_micro(max(found["growth"] for found in local.values()), torch)
    rows = [line("PyTorch, backprop", BATCH, whole, whole)]
    if matching:
        rows.append(line("PyTorch, the micro-batch that matches ours", matching[0], whole, matching[1]))
    for rule, found in local.items():
        rows.append(line(rule, BATCH, whole, found["growth"], found["planned"], verdict(found, whole)))
    for title, found in everything.items():
        rows.append(line(f"{RULES[-1]}, {title}", BATCH, whole, found["growth"], found["planned"]))
    for micro, found in parts.items():
        rows.append(line(RULES[-1], micro, whole, found["growth"], found["planned"]))
    return rows


def section(rows: Rows) -> str:
    """The text of the page."""
    head = ["", "micro-batch", "planned, MB", "growth, MB", "times less than PyTorch", "at most 1/6"]
    return f"""## Memory of training: `python -m bench.memory`

Twelve convolutions of 3 x 3 with 32 filters, each with BatchNormalization and relu, on {SHAPE[0]} x {SHAPE[1]} colour
images, batch {BATCH}, plain SGD, float32, 1 thread. MB is 2^20 bytes. {report.cpu()}; {venvs.installed("torch")}.

Growth is the peak of resident memory (VmHWM) over {STEPS} steps above that of the same process, idle, with net and
samples in it and after a step on two images of 8 x 8, which loads the code. Planned is what `plan` says before the run,
weights and kept copy included. PyTorch updates each weight as soon as its gradient is there and gets memory from the
system in whole tensors (MALLOC_MMAP_THRESHOLD_), without which its heap fragments and it grows by half as much again.
With a micro-batch gradients are added up over the parts of a batch to one update, and BatchNormalization sees the
statistics of a part only, on both sides alike.

{report.table(head, rows)}"""


def main() -> int:
    """Measure, print, write the section."""
    argparse.ArgumentParser(prog="python -m bench.memory", description=__doc__).parse_args()
    os.environ["MALLOC_MMAP_THRESHOLD_"] = str(1 << 20)
    rows = measured()
    text = section(rows)
    print(text)
    report.write_section("bench.memory", text)
    return int(any("miss" in row for row in rows))


if __name__ == "__main__":
    process.command(main)
