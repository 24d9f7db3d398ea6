# SPDX-License-Identifier: Apache-2.0
"""`edgelearn plan MODEL`."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from edgelearn.cli import options
from edgelearn.errors import BudgetError

EXAMPLE = "edgelearn plan vgg8 --board raspberry-pi-zero-2w --budget ram=32MB,latency=50ms"


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = options.command(commands, "plan", "say what a run will take before it runs", EXAMPLE)
    parser.add_argument("model", metavar="MODEL", help="a name in models/, a .toml or a .safetensors")
    parser.add_argument("--for", dest="purpose", choices=("train", "infer"), default="train", help="default: train")
    parser.add_argument(
        "--budget",
        metavar="ram=16MB",
        help="limits: ram, flash, latency, macs, temperature, disk; joined by commas; what fits may be narrower",
    )
    parser.add_argument(
        "--board", metavar="B", help="to plan for (default this machine): `edgelearn boards` lists them"
    )
    parser.add_argument(
        "--samples", type=int, default=1, metavar="N", help="of the training set, which --schedule sequential stores"
    )
    options.add_recipe(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; exit 3 when it does not fit."""
    from edgelearn import loading
    from edgelearn.costs.budget import Budget
    from edgelearn.net.planning import planner

    net = loading.load(arguments.model)
    settings = options.recipe_of(arguments)
    budget = Budget.parse(arguments.budget) if arguments.budget else None
    try:
        plan = _fitting(net, arguments, settings, budget)
    except BudgetError as error:
        run = net.recipe(**{name: value for name, value in settings.items() if name != "batch"})
        trains = arguments.purpose == "train"
        batch = arguments.batch or (run.batch if trains else 1)
        plan = planner(net, run, arguments.purpose, arguments.samples, _latency(arguments)).at(batch, budget)
        options.say(arguments, str(plan), plan.to_json())
        raise error
    options.say(arguments, str(plan), plan.to_json())
    return 0


def _fitting(net: Any, arguments: argparse.Namespace, settings: dict[str, Any], budget: Any) -> Any:
    """The plan of the whole width, or of the widest that fits where the net is nested or was never trained."""
    from edgelearn import loading

    asked = {"purpose": arguments.purpose, "samples": arguments.samples, "board": arguments.board, **settings}
    hint = ""
    try:
        plan = net.plan(budget, **asked)
    except BudgetError:
        if net.nested or arguments.model.endswith(".safetensors"):
            raise
        plan = loading.load(arguments.model, nested=True).plan(budget, **asked)
        hint = ", which needs `edgelearn train --nested`"
    if plan.widths != list(net.widths):
        print(f"the whole width does not fit; {_said(plan.widths)} of it does{hint}", file=sys.stderr)
    return plan


def _said(widths: list[float]) -> str:
    return f"{min(widths):g}"  # blocks that have one width have 1


def _latency(arguments: argparse.Namespace) -> Any:
    from edgelearn.costs.calibration import latency_on

    return latency_on(arguments.board)
