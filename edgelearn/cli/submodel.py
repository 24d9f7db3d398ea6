# SPDX-License-Identifier: Apache-2.0
"""`edgelearn submodel FILE`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from edgelearn.cli import options
from edgelearn.errors import BudgetError, UsageError

EXAMPLE = (
    "edgelearn submodel out/model.safetensors --board raspberry-pi-zero-2w --budget latency=5ms -o small.safetensors"
)

_LISTED = 20

_WRITTEN = (".safetensors", ".onnx", ".tflite", ".h")


def add(commands: options.Commands) -> None:
    """Declare the command."""
    says = "cut a nested model to a width, or to what fits a budget, or skip units of any model"
    parser = options.command(commands, "submodel", says, EXAMPLE)
    parser.add_argument("file", metavar="FILE", help="a .safetensors; for widths and budgets trained with --nested")
    parser.add_argument(
        "--budget", metavar="ram=1MB,latency=5ms", help="take the best submodel that fits: ram, flash, latency, macs"
    )
    parser.add_argument("--width", metavar="W", help="take this one: one number, or one per hidden block, as 0.5,0.25")
    parser.add_argument(
        "--skip", metavar="NAME,..", help="leave out these residual, attention and feed-forward units, by layer name"
    )
    parser.add_argument("--board", metavar="B", help="to be planned for (default this machine): `edgelearn boards`")
    parser.add_argument(
        "--data", metavar="DATA", help="score submodels on its test samples, not as when it was trained"
    )
    parser.add_argument("--pareto", metavar="PNG", help="draw the submodels that no cheaper one equals")
    parser.add_argument(
        "--truncate", action="store_true", help="cut a model that is not nested all the same; it will answer poorly"
    )
    options.add_data(parser)
    parser.add_argument("-o", "--output", metavar="FILE", help="write it: .safetensors, .onnx, .tflite or .h")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Choose, say why, draw, write."""
    from edgelearn import loading

    if (arguments.width or arguments.skip) and arguments.budget:
        raise UsageError("a width or a budget: give one of --width and --budget; --skip goes with --width")
    if not (arguments.width or arguments.skip or arguments.budget or arguments.pareto):
        raise UsageError(
            "there is nothing to choose by: give --budget ram=1MB, --width 0.5, --skip NAME or --pareto PNG"
        )
    _check_files(arguments)
    net = loading.load(arguments.file)
    if arguments.data:
        _score(net, arguments)
    result: dict[str, Any] = {}
    lines: list[str] = []
    small = _cut(net, arguments, result, lines)
    if small is not None:
        lines.append(small.sharing)
        lines += _write(small, arguments.output, result)
    options.say(arguments, "\n".join(lines), result)
    return 0


def _check_files(arguments: argparse.Namespace) -> None:
    """What names alone say, before any work is done."""
    if Path(arguments.file).suffix in ("", ".toml"):
        raise UsageError(
            f"{arguments.file} only describes a net: train it first, with --nested, and give the .safetensors of that"
        )
    if arguments.output and Path(arguments.output).suffix not in _WRITTEN:
        name = Path(arguments.output).name
        raise UsageError(f"no submodel is written as '{name}': end its name in {', '.join(_WRITTEN)}")
    if arguments.pareto:
        from edgelearn.training import plots

        plots.check(Path(arguments.pareto))


def _score(net: Any, arguments: argparse.Namespace) -> None:
    from edgelearn.costs.budget import Budget
    from edgelearn.training.progress import Counting

    budget = Budget.parse(arguments.budget) if arguments.budget else Budget()
    dataset = options.load_data(arguments, arguments.data, net.input, held_out=True)
    tick = Counting("scored", "submodels")
    net.score_submodels(dataset.x_test, dataset.y_test, tick, budget, arguments.board)


def _cut(net: Any, arguments: argparse.Namespace, result: dict[str, Any], lines: list[str]) -> Any:
    """The submodel that was asked for, None where only the front was."""
    if (arguments.width or arguments.skip) and not arguments.pareto:
        return _by_width(net, arguments, result, lines)
    from edgelearn.costs.budget import Budget
    from edgelearn.net import choice

    chooser = net.chooser(arguments.board)
    among = chooser.candidates()
    front = choice.pareto(among, lambda one: one.plan.predicted_ms or one.plan.macs)
    result["considered"], result["scored_on"] = len(among), net.scored_on
    result["pareto"] = [one.to_json() for one in front]
    lines += _table(front, net.scored_on)
    chosen = None
    if arguments.budget:
        budget = Budget.parse(arguments.budget)
        try:
            chosen = chooser.best(budget, among)
        except BudgetError as error:
            options.say(arguments, "\n".join(lines), {"fits": False, **result})
            raise error
        why = choice.explain(chosen, among, budget)
        fitting = [one for one in among if not choice.broken(one.plan, budget)]
        result.update(chosen.to_json(), fits=True, feasible=len(fitting), why=why)
        lines.append(why)
    if arguments.pareto:
        _draw(among, chosen, Path(arguments.pareto), net.scored_on)
        lines.append(f"drew {len(among)} submodels in {arguments.pareto}")
    if arguments.width or arguments.skip:
        return _by_width(net, arguments, result, lines)
    return net.submodel(chosen.widths) if chosen else None


def _by_width(net: Any, arguments: argparse.Namespace, result: dict[str, Any], lines: list[str]) -> Any:
    from edgelearn.costs.calibration import latency_on
    from edgelearn.net.planning import planner

    width = options.width_of(arguments.width)
    skip = [name.strip() for name in arguments.skip.split(",")] if arguments.skip else None
    small = net.submodel(width, truncate=arguments.truncate, skip=skip)
    plan = planner(small, small.recipe(), "infer", latency=latency_on(arguments.board)).at(1)
    result.update(plan.to_json())
    lines.append(str(plan))
    known = {tuple(one["widths"]): one["score"] for one in net.provenance.get("submodels", [])}
    if skip is None and small.widths in known:
        result["accuracy"] = known[small.widths]
        lines.append(f"scored {result['accuracy']:.4f} on {net.scored_on}")
    return small


def _write(small: Any, output: str | None, result: dict[str, Any]) -> list[str]:
    if output is None:
        return []
    path = Path(output)
    if path.suffix == ".safetensors":
        small.save(path)
        said = ""
    else:
        said = f"; {small.export(path)}"
    result.update(file=str(path), bytes=path.stat().st_size)
    return [f"wrote {path}, {path.stat().st_size:,} bytes{said}"]


def _table(front: list[Any], scored: str) -> list[str]:
    """The front in lines, or some of it, evenly."""
    step = max(1, -(-len(front) // _LISTED))
    shown = front[::-1][::step][::-1]
    lines = [f"  {_said(one)}" for one in shown]
    some = ", some of them" if step > 1 else ""
    return [f"{len(front)} submodels that no cheaper one equals{some}, by their score on {scored}:", *lines]


def _said(one: Any) -> str:
    plan, widths = one.plan, ", ".join(f"{w:g}" for w in one.widths[:-1])
    time = f"{plan.predicted_ms or 0:9.4g} ms"
    return f"{one.score:.4f}  {time}  {plan.macs:>12,} macs  {plan.peak_bytes:>11,} bytes  widths {widths}"


def _draw(among: list[Any], chosen: Any, path: Path, scored: str) -> None:
    from edgelearn.net.choice import pareto
    from edgelearn.training.plots import Trade
    from edgelearn.training.plots import pareto as draw

    costs: dict[tuple[str, str], Callable[[Any], float]] = {
        ("predicted time of a sample", "s"): lambda one: one.plan.predicted_ms / 1e3,
        ("multiply-adds of a sample", ""): lambda one: one.plan.macs,
        ("memory", "B"): lambda one: one.plan.peak_bytes,
    }
    trades = []
    for (name, unit), cost in costs.items():
        points = [[(cost(one), one.score) for one in some] for some in (among, pareto(among, cost))]
        trades.append(Trade(name, unit, points[0], points[1], (cost(chosen), chosen.score) if chosen else None))
    draw(trades, path, scored)
