# SPDX-License-Identifier: Apache-2.0
"""`edgelearn adapt BACKBONE DATA -o FILE`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from edgelearn.cli import options

EXAMPLE = """edgelearn adapt backbone.onnx user.npz -o adapted.onnx
  edgelearn adapt cnn-small.safetensors user.npz --source factory.npz --readouts r.safetensors -o user.safetensors
  edgelearn adapt cnn-small.safetensors user.npz --source r.safetensors -o adapted.tflite"""

_DESCRIPTION = """Several ways are tried on the training samples (the head trained on; a new head by ridge regression;
normalisation statistics measured again; low-rank adapters behind frozen layers; these together), each judged on samples
that it did not learn from. The best is learned on all of them; where none is better, the backbone is left as it is.
Forward passes only: an adapter learns from its own input and a read-out of the domain that the backbone comes from
(--source), which is fitted once and ships with it. `edgelearn doctor X.onnx` lists where adapters can go."""


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = options.command(commands, "adapt", "adapt a frozen model to a few labelled samples", EXAMPLE)
    parser.description = f"{parser.description}\n\n{_DESCRIPTION}"
    parser.add_argument("backbone", metavar="BACKBONE", help="a trained .safetensors, or any .onnx or .tflite")
    parser.add_argument("data", metavar="DATA", help=".npz or folder of classes; x_test only measures")
    add_rule = parser.add_argument_group("adapters").add_argument
    add_rule("--rank", type=int, metavar="R", help="of adapters (default 8, less at taps of fewer channels)")
    add_rule("--rule", default="readout", metavar="R", help="readout (default), tp-ce or tp-l2: fixed random codes")
    add_rule("--kind", default="lora", metavar="K", help="lora (default), householder, bottleneck, conv1x1 or partly")
    add_rule("--taps", metavar="A,B", help="where adapters go (default: behind every layer with weights)")
    add_rule("--nested", action="store_true", help="the first quarter and half of the ranks of a lora work alone, too")
    add_rule(
        "--optimizer",
        default="adam",
        help="adam (default), adam-8bit, galore, galore-8bit, galore-plain, apollo, apollo-mini, rms-channels",
    )
    parser.add_argument("--source", metavar="S", help="data of the backbone's own domain, or read-outs fitted earlier")
    parser.add_argument("--readouts", metavar="FILE", help="keep the read-outs of --source for other devices")
    parser.add_argument("--ways", metavar="A,B", help="ways to try, as head,statistics+head (default: all)")
    parser.add_argument("--margin", type=float, default=0.0, metavar="X", help="accuracy a way must gain to be taken")
    parser.add_argument("--cache-dir", metavar="DIR", help="keep features of the first layers for the next run")
    parser.add_argument("--merged", action="store_true", help="in an .onnx one product per adapter, no branch")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="(default 0)")
    options.add_data(parser)
    parser.add_argument(
        "-o",
        "--output",
        required=True,
        metavar="FILE",
        help=".safetensors: the adapter alone, as PEFT reads it where the name is adapter_model.safetensors; .onnx or "
        ".tflite: the whole model",
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Fit or load read-outs, adapt, write, report."""
    from edgelearn import adaptation, backbone
    from edgelearn.adaptation import exporting, ways
    from edgelearn.backbone import class_names

    exporting.check(arguments.output, Path(arguments.backbone).suffix)
    options.writable_folder(str(Path(arguments.output).parent))
    frozen = backbone.load(arguments.backbone, names_of(arguments.taps) if _is_onnx(arguments) else ())
    dataset = options.load_data(arguments, arguments.data, frozen.input, trained=class_names(frozen))
    classes, y_train, y_test = _labels(frozen, dataset)
    adapted = adaptation.adapt(
        frozen,
        dataset.x_train,
        y_train,
        classes=classes,
        readouts=_readouts(arguments, frozen),
        cache_dir=arguments.cache_dir,
        tick=_say,
        ways=names_of(arguments.ways),
        margin=arguments.margin,
        **_settings(arguments),
    )
    difference = exporting.export_adapted(adapted, arguments.output, dataset.x_train[:64], arguments.merged)
    result = {
        "accuracy": adapted.score(dataset.x_test, y_test),
        "accuracy_before": _before(frozen, classes, dataset.x_test, y_test),
        **{name: adapted.about[name] for name in ("way", "judged", "rule", "samples", "seconds")},
        "rank": arguments.rank or ways.RANK,
        "bytes": Path(arguments.output).stat().st_size,
        "max_abs_diff": difference,
        "file": arguments.output,
        **_memory(adapted, arguments),
    }
    options.say(arguments, _text(result, len(y_test)), result)
    return 0


def _settings(arguments: argparse.Namespace) -> dict[str, Any]:
    """Of the adapters; taps of a graph were chosen when it was cut."""
    given = {name: getattr(arguments, name) for name in ("kind", "rank", "rule", "optimizer", "nested", "seed")}
    return {**given, "taps": () if _is_onnx(arguments) else names_of(arguments.taps)}


def _before(frozen: Any, classes: list[str] | None, x: Any, y: Any) -> float | None:
    """What the backbone reaches as it is, where its head answers these classes."""
    from edgelearn.adaptation import is_of_head
    from edgelearn.adaptation.adapted import Adapted

    if frozen.head is None or not (classes is None or is_of_head(classes, frozen)):
        return None
    return Adapted(frozen).score(x, y)


def _is_onnx(arguments: argparse.Namespace) -> bool:
    """Whether taps are places of a graph, rather than some of those that there are."""
    return Path(arguments.backbone).suffix.lower() == ".onnx"


def names_of(text: str | None) -> tuple[str, ...]:
    """What commas join."""
    return tuple(part for part in (text or "").split(",") if part)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _labels(frozen: Any, dataset: Any) -> tuple[list[str] | None, Any, Any]:
    """Names of the classes, and labels as numbers: those of the backbone where it knows all names."""
    from edgelearn.backbone import class_names
    from edgelearn.errors import DataError
    from edgelearn.inputs import labels

    if dataset.task != "classification":
        raise DataError("adapting needs class labels: give y_train as whole numbers or names")
    names = class_names(frozen)
    count = len(names)
    if dataset.classes is None:
        highest = int(max(dataset.y_train.max(), dataset.y_test.max())) + 1
        known = frozen.classes if highest <= count else [str(number) for number in range(highest)]
        return known, dataset.y_train, dataset.y_test
    if not set(dataset.classes) <= set(names):
        return dataset.classes, dataset.y_train, dataset.y_test
    turned = (labels.renumbered(y, dataset.classes, names) for y in (dataset.y_train, dataset.y_test))
    return frozen.classes, *turned


def _readouts(arguments: argparse.Namespace, frozen: Any) -> Any:
    """Read-outs of the source domain: from their file, or fitted on its data and kept if asked for."""
    from edgelearn.adaptation import readouts
    from edgelearn.backbone import class_names
    from edgelearn.errors import UsageError

    if arguments.source is None:
        if arguments.readouts:
            raise UsageError("--readouts keeps what --source gives: give data of the backbone's own domain as well")
        return None
    if Path(arguments.source).suffix == ".safetensors":
        return readouts.load(arguments.source, frozen)
    source = options.load_data(arguments, arguments.source, frozen.input, trained=class_names(frozen))
    classes, y, _ = _labels(frozen, source)
    count = len(classes) if classes else frozen.head.bias.size
    found = readouts.fit(frozen, source.x_train, y, count, arguments.seed, _say)
    if arguments.readouts:
        found.save(arguments.readouts)
    return found


def _memory(adapted: Any, arguments: argparse.Namespace) -> dict[str, int | None]:
    """What this process took at most, and the plan of learning the adapters, if any were tried."""
    import resource

    from edgelearn.adaptation import ways

    found: dict[str, int | None] = {"peak_process_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}
    if not any("adapters" in way for way in (adapted.about["way"], *(j["way"] for j in adapted.about["judged"]))):
        return found
    settings = ways.Settings(**_settings(arguments))
    return found | ways.plan(adapted.backbone, adapted.about["samples"], adapted.output.bias.size, settings)


def _text(result: dict[str, Any], held_out: int) -> str:
    before = "" if result["accuracy_before"] is None else f", {result['accuracy_before']:.4f} before"
    compared = "" if result["max_abs_diff"] is None else f", its answers within {result['max_abs_diff']:.1e}"
    return (
        f"accuracy {result['accuracy']:.4f} on {held_out:,} held-out samples{before}; adapted by {result['way']} to "
        f"{result['samples']:,} samples in {result['seconds']:.1f} s\n"
        f"wrote {result['file']}, {result['bytes']:,} bytes{compared}\n{_memory_text(result)}"
    )


def _memory_text(result: dict[str, Any]) -> str:
    process = f"{result['peak_process_bytes']:,} bytes of this process at most, Python and runtime included"
    if "adapter_training_bytes" not in result:
        return f"memory: {process}"
    arena = result["inference_arena_bytes"]
    beside = f"the net's {arena:,} of inference" if arena else "what the runtime takes"
    return (
        f"memory: {result['adapter_training_bytes']:,} bytes planned for an adapter that learns, "
        f"{result['optimizer_bytes']:,} of them optimizer state, beside {beside}; {process}"
    )
