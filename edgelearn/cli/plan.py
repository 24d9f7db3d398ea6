# SPDX-License-Identifier: Apache-2.0
"""`edgelearn plan MODEL`."""

from __future__ import annotations

import argparse

from edgelearn.cli import options
from edgelearn.errors import BudgetError

EXAMPLE = "edgelearn plan mlp --batch 32 --budget ram=4MB"


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = options.command(commands, "plan", "say what a run will take before it runs", EXAMPLE)
    parser.add_argument("model", metavar="MODEL", help="a name in models/, a .toml or a .safetensors")
    parser.add_argument("--for", dest="purpose", choices=("train", "infer"), default="train", help="default: train")
    parser.add_argument(
        "--budget", metavar="ram=16MB", help="limits: ram, flash, latency, macs, disk; joined by commas"
    )
    parser.add_argument(
        "--samples", type=int, default=1, metavar="N", help="of the training set, which --schedule sequential stores"
    )
    options.add_recipe(parser)
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the plan; exit 3 when it does not fit."""
    from edgelearn import loading
    from edgelearn.budget import Budget
    from edgelearn.planning import planner

    net = loading.load(arguments.model)
    settings = options.recipe_of(arguments)
    batch = settings.pop("batch", None)
    budget = Budget.parse(arguments.budget) if arguments.budget else None
    try:
        plan = net.plan(budget, batch=batch, purpose=arguments.purpose, samples=arguments.samples, **settings)
    except BudgetError as error:
        run = net.recipe(**settings)
        plan = planner(net, run, arguments.purpose, arguments.samples).at(
            batch or (run.batch if arguments.purpose == "train" else 1), budget
        )
        options.say(arguments, str(plan), plan.to_json())
        raise error
    options.say(arguments, str(plan), plan.to_json())
    return 0
