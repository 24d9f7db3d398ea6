# SPDX-License-Identifier: Apache-2.0
"""`edgelearn bench infer FILE...`: how fast files answer on this machine, in every runtime and in the core."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any

from edgelearn.cli import options
from edgelearn.errors import EdgelearnError, ModelError, UsageError

EXAMPLE = """edgelearn bench infer out/model.safetensors out/model.onnx out/model.tflite --threads 1
  edgelearn bench infer out/model.safetensors --width 0.25 --board raspberry-pi-zero-2w"""

CORE = "core"

_ROUNDS, _FEWEST = 3, 10

_PACKAGES = {".onnx": ["onnxruntime"], ".tflite": ["ai_edge_litert.interpreter", "tflite_runtime.interpreter"]}
"""What is in memory before a file is: the memory of a row is that of the file."""


def add(kinds: options.Commands) -> None:
    """Declare the command."""
    summary = "time one sample through files, in every runtime here and in the core, each in a process of its own"
    parser = options.command(kinds, "infer", summary, EXAMPLE)
    parser.add_argument("files", nargs="+", metavar="FILE", help=".onnx, .tflite, .h, .safetensors, .toml, or a name")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="of the runtime (default 1)")
    parser.add_argument("--seconds", type=float, default=1.5, metavar="S", help="per file and runtime (default 1.5)")
    parser.add_argument("--width", metavar="W", help="of nested models: one number, or one per hidden block")
    parser.add_argument("--board", metavar="B", help="whose plan stands beside the core (default this machine)")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Measure in alternating rounds, print a table."""
    if arguments.threads < 1 or not arguments.seconds > 0:
        raise UsageError("bench infer needs at least 1 of --threads and a positive number of --seconds")
    contenders = [(file, runtime) for file in arguments.files for runtime in _runtimes_of(Path(file))]
    rounds = [[_measured(*each, arguments) for each in contenders] for _ in range(_ROUNDS)]
    rows = [_row(*each, found, arguments) for each, found in zip(contenders, zip(*rounds, strict=True), strict=True)]
    options.say(arguments, _table(rows), {"threads": arguments.threads, "models": rows})
    return 0


def _runtimes_of(path: Path) -> list[str]:
    """Names of what runs a file here; the core runs models, and what can be read back.

    Raises:
        ModelError: nothing does.
    """
    from edgelearn import importing
    from edgelearn.export import runtimes

    if path.suffix not in runtimes.LOADERS:
        return [CORE]
    names = [runtime.name for runtime in runtimes.load_all(path)]
    if path.suffix in importing.READERS:
        try:
            importing.read(path)
        except ModelError:  # int8, or of another tool
            return names
        names.append(CORE)
    return names


def _measured(file: str, runtime: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """One round of a file in a runtime, in a process of its own."""
    settings = [str(arguments.threads), str(arguments.seconds / _ROUNDS), arguments.width or ""]
    command = [sys.executable, "-m", "edgelearn.cli.infer", file, runtime, *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ModelError(said)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def _row(file: str, runtime: str, rounds: tuple[dict[str, Any], ...], arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians over the rounds; of the core, what the plan says beside it."""
    path = Path(file)
    medians = {key: statistics.median(found[key] for found in rounds) for key in rounds[0]}
    row = {"file": file, "runtime": runtime, **medians, "file_bytes": path.stat().st_size if path.is_file() else None}
    if runtime == CORE and path.suffix != ".h":
        from edgelearn.costs.calibration import latency_on

        net, latency = _net(file, arguments.width), latency_on(arguments.board)
        predicted = None if latency is None else latency.seconds(net.graph) * 1e3
        row |= {"predicted_ms": predicted, "widths": list(net.widths), "macs": net.graph.macs}
    return row


def _net(file: str, width: str | None) -> Any:
    from edgelearn import loading

    nested = True if width and not file.endswith(".safetensors") else None
    return options.cut(loading.load(file, nested=nested), width)


def _table(rows: list[dict[str, Any]]) -> str:
    width = max(len("file"), *(len(row["file"]) for row in rows))
    head = f"{'file':<{width}}  {'runtime':<14} {'median ms':>10} {'p99 ms':>9} {'planned ms':>11}"
    return "\n".join([f"{head} {'memory KB':>10} {'file KB':>8}", *(_line(row, width) for row in rows)])


def _line(row: dict[str, Any], width: int) -> str:
    planned = row.get("predicted_ms")
    times = f"{row['ms']:>10.4f} {row['ms_p99']:>9.4f} {'-' if planned is None else format(planned, '.4f'):>11}"
    size = "-" if row["file_bytes"] is None else f"{row['file_bytes'] / 1024:,.0f}"
    return f"{row['file']:<{width}}  {row['runtime']:<14} {times} {row['memory_bytes'] / 1024:>10,.0f} {size:>8}"


# In a process of its own


def main(file: str, runtime: str, threads: str, seconds: str, width: str) -> None:
    """Print one measurement: milliseconds for one sample, and what loading and running added to the process."""
    is_core = runtime == CORE and Path(file).suffix != ".h"
    load = _in_core(file, width, int(threads)) if is_core else _in_runtime(Path(file), runtime, int(threads))
    before = _memory()
    answer = load()
    answer()
    times = _times(answer, float(seconds))
    grown = max(_memory() - before, 0)
    print(json.dumps({"ms": _share(times, 0.5), "ms_p99": _share(times, 0.99), "memory_bytes": grown}))


def _in_runtime(path: Path, name: str, threads: int) -> Callable[[], Callable[[], Any]]:
    """Loading the file there, once the runtime itself is in memory."""
    import numpy as np

    from edgelearn.export import runtimes

    for package in _PACKAGES.get(path.suffix.lower(), ()):
        with suppress(ImportError):
            import_module(package)

    def load() -> Callable[[], Any]:
        runtime = next(r for r in runtimes.load_all(path, threads) if r.name == name)
        if -1 in runtime.input_shape:
            raise ModelError(f"{path.name} leaves a side of its samples open: export it with every side but the batch")
        x = runtime.entered(np.random.default_rng(0).normal(0, 1, (1, *runtime.input_shape)).astype(np.float32))
        return lambda: runtime.invoke(x)

    return load


def _in_core(file: str, width: str, threads: int) -> Callable[[], Callable[[], Any]]:
    import numpy as np

    from edgelearn import engines

    net, engine = _net(file, width or None), engines.load("native")

    def load() -> Callable[[], Any]:
        config = engines.Config(batch=1, targets=net.graph.outputs, train=False, threads=threads)
        session = engine.open(net.graph.records, net.flat.copy(), config)
        x = np.random.default_rng(0).normal(0, 1, (1, net.graph.features)).astype(np.float32)
        return lambda: session.forward(x)

    return load


def _times(answer: Callable[[], Any], seconds: float) -> list[float]:
    """Milliseconds of each call, after a tenth of the time to get warm."""
    times: list[float] = []
    begin = time.perf_counter()
    while time.perf_counter() - begin < seconds or len(times) < _FEWEST:
        start = time.perf_counter()
        answer()
        end = time.perf_counter()
        if start - begin > seconds / 10:
            times.append((end - start) * 1e3)
    return sorted(times)


def _share(times: list[float], share: float) -> float:
    """The time that a share of the calls stays within."""
    return times[min(int(share * len(times)), len(times) - 1)]


def _memory() -> int:
    """Resident bytes of this process, 0 where the system does not say."""
    status = Path("/proc/self/status")
    return int(status.read_text().split("VmRSS:")[1].split()[0]) * 1024 if status.is_file() else 0


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except EdgelearnError as error:
        sys.exit(str(error))
