# SPDX-License-Identifier: Apache-2.0
"""Options that several commands share, and how a command says its result."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgelearn.errors import OutputError, UsageError

Commands = Any
"""What argparse's add_subparsers returns; its class has no public name."""


def command(commands: Commands, name: str, summary: str, example: str) -> argparse.ArgumentParser:
    """A sub-command whose help ends with an example."""
    parser: argparse.ArgumentParser = commands.add_parser(
        name,
        help=summary,
        description=summary[0].upper() + summary[1:] + ".",
        epilog=f"example:\n  {example}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--json", action="store_true", help="print the result as one JSON object, as last line")
    return parser


_AUGMENT = (
    "random changes of training samples, joined by commas: of images flip, shift=PIXELS, crop=PIXELS; of sequences "
    "time_shift=STEPS, time_mask=STEPS, band_mask=BANDS; of any noise=STD (after scaling), mix=SHARE (up to 0.5); "
    "fill=zero or edge is what shifts move in; none: as they are"
)


def add_recipe(parser: argparse.ArgumentParser) -> None:
    """The settings of a run; what is not given comes from the model's [train]."""
    add = parser.add_argument_group("training, over the model's own [train]").add_argument
    add("--rule", help="tp-l2, tp-l1, tp-huber, drtp, tp-ce, tp-ce+sim, readout, readout+sim or untrained")
    add("--schedule", help="interleaved (each batch updates every block) or sequential (block by block)")
    add("--cache", metavar="C", help="sequential: what blocks hand on, on disk as float16, uint8 or not at all (none)")
    add("--cache-dir", metavar="DIR", help="sequential: keep it there, so that the same command goes on after a stop")
    add("--block", type=int, metavar="G", help="blocks that share one objective; all of them: backpropagation")
    add(
        "--window",
        type=int,
        metavar="W",
        help="steps that an error goes back through in recurrent layers (1: none); all of them: through time",
    )
    add("--optimizer", help="sgd, momentum or adam")
    add("--lr", type=float, metavar="X", help="peak learning rate")
    add("--lr-schedule", help="constant, cosine or step")
    add("--warmup", type=int, metavar="N", help="steps of linear rise")
    add("--epochs", type=int, metavar="N")
    add("--batch", type=int, metavar="N")
    add("--micro", type=int, metavar="M", help="samples that go through a block at once: less memory, the same batch")
    add("--clip", type=float, metavar="X", help="most that the norm of a block's gradient may be")
    add("--augment", metavar="A,B=N", help=_AUGMENT)
    add("--validation", type=float, metavar="X", help="share of the training samples to hold out, as 0.1")
    add(
        "--patience",
        type=int,
        metavar="N",
        help="end after N epochs without a lower validation loss; keep the best",
    )
    add("--class-weights", metavar="W", help="balanced (each class counts alike), none, or one number per class: 1,2,1")
    add("--threads", type=int, metavar="N", help="results do not depend on it")
    add("--backend", help="native (C core) or numba")


RECIPE = (
    *("rule", "schedule", "cache", "cache_dir", "block", "window", "optimizer", "lr", "lr_schedule", "warmup"),
    *("epochs", "batch", "micro", "clip", "augment", "validation", "patience", "class_weights", "threads", "backend"),
)


def recipe_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """The recipe settings that were given.

    Raises:
        UsageError: class weights that are no numbers.
    """
    given = {name: getattr(arguments, name) for name in RECIPE if getattr(arguments, name) is not None}
    if "augment" in given:
        from edgelearn import augment  # after the help is written, which needs no numpy

        given["augment"] = augment.read(given["augment"])
    if "," in given.get("class_weights", ""):
        given["class_weights"] = numbers("--class-weights", given["class_weights"])
    return given


def numbers(option: str, text: str) -> list[float]:
    """Numbers joined by commas.

    Raises:
        UsageError: something else.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise UsageError(f"{option} {text}: write numbers joined by commas, as 1,2.5,1") from error


def add_nested(parser: argparse.ArgumentParser) -> None:
    """What makes a net nested."""
    parser.add_argument(
        "--nested",
        action="store_true",
        help="train submodels of 1/8, 1/4 and 1/2 of the width inside the net, to be cut by `edgelearn submodel`",
    )
    parser.add_argument("--widths", metavar="A,B,..,1", help="another grid of widths for --nested, as 0.25,0.5,1")
    parser.add_argument(
        "--sampling",
        choices=("same", "independent", "every"),
        help="which widths learn from a batch: one that is drawn, one per block, or (default) every one",
    )
    parser.add_argument(
        "--chances",
        metavar="P,..",
        help="of each width, where one is drawn: uniform, weighted (0.41 for the whole), or one number each",
    )


def nested_of(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """The table of the grid that was asked for, None where the net is not to be nested.

    Raises:
        UsageError: widths or chances that are no numbers, or a sampling of a net that is not nested.
    """
    if not (arguments.nested or arguments.widths):
        if arguments.sampling or arguments.chances:
            raise UsageError("--sampling and --chances are for widths of nested nets: add --nested")
        return None
    table: dict[str, Any] = {"sampling": arguments.sampling} if arguments.sampling else {}
    if arguments.widths:
        table["widths"] = numbers("--widths", arguments.widths)
    if arguments.chances:
        said = arguments.chances
        table["chances"] = said if said in ("weighted", "uniform") else numbers("--chances", said)
    return table


def width_of(text: str | None) -> float | list[float] | None:
    """A width, or one for each hidden block, joined by commas."""
    if text is None:
        return None
    found = numbers("--width", text)
    return found[0] if len(found) == 1 else found


def cut(net: Any, text: str | None, truncate: bool = False) -> Any:
    """The net, or its submodel of a --width."""
    width, trained = width_of(text), net.provenance.get("trained_width")
    if width is None and trained is not None:
        print(f"only widths up to {trained:g} were trained, under a budget: give --width {trained:g}", file=sys.stderr)
    return net if width is None else net.submodel(width, truncate=truncate)


_LISTED = 10
"""Skipped files that are named; the number of all of them is always said."""


def add_data(parser: argparse.ArgumentParser) -> None:
    """How data is read."""
    parser.add_argument(
        "--skip-broken", action="store_true", help="leave out files of a folder that cannot be read, and say which"
    )


def load_data(
    arguments: argparse.Namespace, path: str, input: Any, held_out: bool = False, trained: Sequence[str] = ()
) -> Any:
    """The data at a path as the net of `input`, with the classes `trained`, takes it; on stderr, what the files of a
    folder are and which were skipped."""
    from edgelearn.inputs import data
    from edgelearn.training.progress import Reading

    dataset = data.load(
        path, input, held_out=held_out, skip_broken=arguments.skip_broken, trained=trained, tick=Reading()
    )
    if dataset.front is not None:
        count = f"{len(dataset.x_train):,} to train on and " if len(dataset.x_train) else ""
        print(f"{dataset.front}: {count}{len(dataset.x_test):,} to test on", file=sys.stderr)
    if dataset.skipped:
        more = len(dataset.skipped) - _LISTED
        listed = [*dataset.skipped[:_LISTED], *([f"and {more:,} more"] if more > 0 else [])]
        head = f"skipped because they cannot be read, {len(dataset.skipped):,} of the files:"
        print(head, *listed, sep="\n  ", file=sys.stderr)
    return dataset


def writable_folder(path: str) -> Path:
    """The folder, made if missing.

    Raises:
        OutputError: it cannot be made or written to.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make folder {folder} ({error.strerror}): choose another with -o") from error
    if not os.access(folder, os.W_OK):
        raise OutputError(f"cannot write to folder {folder}: choose another with -o")
    return folder


def say(arguments: argparse.Namespace, text: str, result: dict[str, Any]) -> None:
    """Text for people, then the JSON line if asked for."""
    if text:
        print(text)
    if arguments.json:
        print(json.dumps(result), flush=True)
