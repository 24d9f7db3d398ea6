# SPDX-License-Identifier: Apache-2.0
"""`edgelearn bench step`: the training step of this machine, beside backpropagation in numpy."""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from edgelearn.cli import calibrate, infer, options
from edgelearn.errors import UsageError

EXAMPLE = "edgelearn bench step --layers 784,128,10 --batch 32 --threads 1"

_ROUNDS, _ROUND_SECONDS = 15, 0.05


def add(commands: options.Commands) -> None:
    """Declare the commands."""
    parser = commands.add_parser("bench", help="measure this machine")
    kinds = parser.add_subparsers(dest="kind", metavar="KIND", required=True)
    step = options.command(kinds, "step", "time one training step beside backpropagation in numpy", EXAMPLE)
    step.add_argument("--layers", default="784,128,10", metavar="I,H,..,O", help="widths (default 784,128,10)")
    step.add_argument("--batch", type=int, default=32, metavar="N", help="default 32")
    step.add_argument("--threads", type=int, default=1, metavar="N", help="of the core and of numpy (default 1)")
    step.add_argument("--rule", default="tp-l2", metavar="R", help="default tp-l2")
    step.set_defaults(run=run)
    infer.add(kinds)
    calibrate.add(kinds)


def run(arguments: argparse.Namespace) -> int:
    """Time both in alternating rounds and print medians."""
    widths = _widths(arguments.layers)
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = str(arguments.threads)  # read when numpy is first imported, below
    ours, session, macs = _our_step(widths, arguments)
    ours()
    memory = _peak_rss()
    seconds, *peers = _alternate(ours, *_numpy_steps(widths, arguments.batch))
    result = _result(arguments, session, macs, seconds, memory, peers)
    options.say(arguments, _text(result), result)
    return 0


def _peak_rss() -> int:
    """Bytes; from the kernel's own mark where there is one, since ru_maxrss begins at the size of the parent."""
    status = Path("/proc/self/status")
    if status.is_file():
        return int(status.read_text().split("VmHWM:")[1].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _widths(text: str) -> list[int]:
    try:
        widths = [int(part) for part in text.split(",")]
    except ValueError:
        widths = []
    if len(widths) < 2 or min(widths) < 1:
        raise UsageError(f"--layers {text}: write at least two widths joined by commas, as 784,128,10")
    return widths


def _our_step(widths: list[int], arguments: argparse.Namespace) -> tuple[Callable[[], Any], Any, int]:
    from edgelearn import engines, graph, layers
    from edgelearn.cli.numpy_backprop import samples
    from edgelearn.training import recipe

    run = recipe.recipe({}, rule=arguments.rule, batch=arguments.batch, threads=arguments.threads, optimizer="sgd")
    hidden = [layers.Dense(width, "relu") for width in widths[1:-1]]
    net = graph.build([*hidden, layers.Dense(widths[-1])], (widths[0],))
    config = engines.Config(
        rule=run.local_rule(),
        optimizer=run.optimizer_record(),
        batch=run.batch,
        targets=widths[-1],
        threads=run.threads,
    )
    session = engines.load("native").open(net.records, net.initial(0), config)
    x, y = samples(widths, run.batch)
    return lambda: session.step(x, y, 1e-3), session, net.macs


def _numpy_steps(widths: list[int], batch: int) -> list[Callable[[], Any]]:
    """With np.matmul and with np.dot."""
    import numpy as np

    from edgelearn.cli.numpy_backprop import NumpyBackprop, samples

    x, y = samples(widths, batch)
    peers = [NumpyBackprop(widths, batch, product) for product in (np.matmul, np.dot)]
    return [partial(peer.step, x, y, 1e-3) for peer in peers]


def _alternate(*steps: Callable[[], Any]) -> list[float]:
    """Median seconds per call of each, over rounds that take turns, so that a slow moment hits both."""
    times: list[list[float]] = [[] for _ in steps]
    for _ in range(_ROUNDS):
        for step, into in zip(steps, times, strict=True):
            calls, start = 0, time.perf_counter()
            while time.perf_counter() - start < _ROUND_SECONDS:
                step()
                calls += 1
            into.append((time.perf_counter() - start) / calls)
    return [statistics.median(into) for into in times]


def _result(
    arguments: argparse.Namespace, session: Any, macs: int, seconds: float, memory: int, peers: list[float]
) -> dict[str, Any]:
    from edgelearn import engines
    from edgelearn.engines.native import peak_flops

    flops = 4 * macs * arguments.batch / seconds  # a forward and an update product, two operations each
    return {
        "us_per_step": seconds * 1e6,
        "samples_per_s": arguments.batch / seconds,
        "arena_bytes": session.sizes.arena,
        "peak_rss_bytes": memory,
        "isa": engines.load("native").isa,
        "gflops": flops / 1e9,
        "fraction_of_peak": flops / (peak_flops() * arguments.threads),
        "numpy_us_per_step": peers[0] * 1e6,
        "numpy_dot_us_per_step": peers[1] * 1e6,
        "times_faster_than_numpy": peers[0] / seconds,
        "times_faster_than_numpy_dot": peers[1] / seconds,
    }


def _text(result: dict[str, Any]) -> str:
    return (
        f"edgelearn {result['us_per_step']:.1f} us per step, {result['samples_per_s']:,.0f} samples/s, "
        f"{result['gflops']:.1f} GFLOP/s on {result['isa']} ({result['fraction_of_peak']:.0%} of its peak), "
        f"arena {result['arena_bytes']:,} bytes, process {result['peak_rss_bytes'] >> 20} MB\n"
        f"numpy     {result['numpy_us_per_step']:.1f} us per step of backpropagation with np.matmul, "
        f"{result['times_faster_than_numpy']:.2f} times as long; {result['numpy_dot_us_per_step']:.1f} us with np.dot, "
        f"{result['times_faster_than_numpy_dot']:.2f} times"
    )
