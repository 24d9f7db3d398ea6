# SPDX-License-Identifier: Apache-2.0
"""`edgelearn demo`: handwritten digits learned by target projection, exported, and run by the real runtimes."""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from edgelearn.cli import options

EXAMPLE = "edgelearn demo -o build/demo"

UNTRAINED = "untrained"


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = options.command(commands, "demo", "learn handwritten digits, export and run both files", EXAMPLE)
    parser.add_argument("-o", "--output", default="build/demo", metavar="DIR", help="default build/demo")
    parser.add_argument("--rule", default="tp-ce", help="default tp-ce")
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Train the net and its control, export, run, print one table."""
    from edgelearn.inputs import data

    start, folder = time.perf_counter(), options.writable_folder(arguments.output)
    digits = data.load("digits")
    net = _trained(digits, arguments.rule, arguments.seed, folder)
    control = _trained(digits, UNTRAINED, arguments.seed, None)
    net.save(folder / "model.safetensors")
    report = {
        "accuracy": net.score(digits.x_test, digits.y_test),
        "accuracy_untrained": control.score(digits.x_test, digits.y_test),
        **_exports(net, digits, folder),
        "peak_training_bytes": net.plan(batch=net.train["batch"]).peak_bytes,
        "seconds": time.perf_counter() - start,
        "rule": arguments.rule,
        "backend": "native",
    }
    (folder / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    _plot(net, control, report, folder / "report.png")
    options.say(arguments, _table(report, folder), report)
    return 0


def _trained(digits: Any, rule: str, seed: int, folder: Path | None) -> Any:
    from edgelearn import loading
    from edgelearn.training.progress import Progress

    net = loading.load("digits", seed=seed)
    net.adopt(digits)
    shown = Progress() if folder else None
    return net.fit(digits.x_train, digits.y_train, rule=rule, seed=seed, progress=shown)


def _exports(net: Any, digits: Any, folder: Path) -> dict[str, float]:
    """Each file is compared with the core before it gets its name; then it answers the held-out samples."""
    from edgelearn.export import runtimes
    from edgelearn.metrics import accuracy

    found: dict[str, float] = {}
    for kind in ("onnx", "tflite"):
        path = folder / f"model.{kind}"
        report = net.export(path, samples=digits.x_test)
        found[f"accuracy_{kind}"] = accuracy(runtimes.load(path).run(digits.x_test), digits.y_test)
        found[f"max_abs_diff_{kind}"] = report.max_abs_diff
    return found


def _plot(net: Any, control: Any, report: dict[str, Any], path: Path) -> None:
    from edgelearn.training.plots import comparison

    accuracies = {
        UNTRAINED: report["accuracy_untrained"],
        report["rule"]: report["accuracy"],
        "ONNX": report["accuracy_onnx"],
        "TFLite": report["accuracy_tflite"],
    }
    comparison({report["rule"]: net.history, UNTRAINED: control.history}, accuracies, path)


def _table(report: dict[str, Any], folder: Path) -> str:
    rows = [
        ("hidden blocks untrained", report["accuracy_untrained"], ""),
        (f"{report['rule']}, C core", report["accuracy"], ""),
        ("the same in onnxruntime", report["accuracy_onnx"], f"{report['max_abs_diff_onnx']:.1e}"),
        ("the same in LiteRT", report["accuracy_tflite"], f"{report['max_abs_diff_tflite']:.1e}"),
    ]
    lines = [f"{'handwritten digits, held out':<30} accuracy   largest difference from the core"]
    lines += [f"{name:<30} {accuracy:8.4f}   {difference}" for name, accuracy, difference in rows]
    peak = f"peak training memory {report['peak_training_bytes']:,} bytes (planned), {report['seconds']:.1f} s"
    return "\n".join(
        [*lines, peak, f"wrote {folder}/: model.safetensors model.onnx model.tflite report.json report.png"]
    )
