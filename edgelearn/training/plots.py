# SPDX-License-Identifier: Apache-2.0
"""Pictures of training, by matplotlib."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgelearn.errors import OutputError, UsageError
from edgelearn.training.history import History


def _figure(columns: int) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(1, columns, figsize=(4.8 * columns, 3.6), layout="constrained")


def check(path: Path) -> None:
    """Whether a picture can have this name, before any work is done for it.

    Raises:
        UsageError: no kind of picture that matplotlib draws.
        OutputError: its folder is not there.
    """
    from matplotlib.backend_bases import FigureCanvasBase

    if path.suffix[1:].lower() not in FigureCanvasBase.get_supported_filetypes():
        raise UsageError(f"no picture is written as '{path.name}': end its name in .png, .svg or .pdf")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path} (no folder {path.parent}): make the folder, or choose another")


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    try:
        figure.savefig(path, dpi=100)
    except OSError as error:
        raise OutputError(f"cannot write {path} ({error.strerror}): choose another place") from error
    finally:
        pyplot.close(figure)


def _curve(axes: Any, history: History, label: str | None = None) -> None:
    epochs = range(1, len(history.epochs) + 1)
    axes.plot(epochs, [m.loss for m in history.epochs], marker=".", label=label)
    axes.set(xlabel="epoch", ylabel="loss of the trained objective", title="training")
    axes.set_ylim(bottom=0)


def _known(axes: Any, values: Iterable[float | None], label: str) -> None:
    """A curve over the epochs that have a value, if any has."""
    known = [(epoch, value) for epoch, value in enumerate(values, 1) if value is not None]
    if known:
        axes.plot(*zip(*known, strict=True), marker=".", label=label)


def training(history: History, path: Path) -> None:
    """Loss per epoch, and accuracy where an output was trained; beside them the same on held-out samples, where there
    are any, and the epoch that the weights are from, where it is not the last."""
    figure, axes = _figure(2)
    scores = [moment.validation for moment in history.epochs]
    _curve(axes[0], history, "training samples, before their update")
    _known(axes[0], [score.loss if score else None for score in scores], "held-out samples")
    _known(axes[1], [moment.accuracy for moment in history.epochs], "training samples, before their update")
    _known(axes[1], [score.accuracy if score else None for score in scores], "held-out samples")
    axes[1].set(xlabel="epoch", ylabel="accuracy", title="accuracy")
    for each in axes:
        each.xaxis.get_major_locator().set_params(integer=True)
        if 0 < history.kept < len(history.epochs):
            each.axvline(history.kept, color="grey", linestyle=":", label="weights kept")
        if each.has_data():
            each.legend(fontsize="small")
    _save(figure, path)


def comparison(histories: Mapping[str, History], accuracies: Mapping[str, float], path: Path) -> None:
    """Losses of several runs beside their held-out accuracies."""
    figure, axes = _figure(2)
    for name, history in histories.items():
        _curve(axes[0], history, name)
    axes[0].legend()
    bars = axes[1].bar(list(accuracies), list(accuracies.values()), color=["C1", "C0", "C2", "C3"])
    axes[1].bar_label(bars, fmt="%.3f")
    lowest = min(accuracies.values())
    axes[1].set(ylim=(max(0.0, lowest - 0.1), 1.0), ylabel="held-out accuracy", title="accuracy")
    _save(figure, path)


def _engineering(axis: Any, unit: str) -> None:
    """Ticks at 1, 2 and 5 as people say them: 200 k; powers of ten run into each other where an axis is short."""
    from matplotlib.ticker import EngFormatter, LogLocator, NullFormatter

    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_major_formatter(EngFormatter(unit))
    axis.set_minor_formatter(NullFormatter())


Point = tuple[float, float]


@dataclass(frozen=True)
class Trade:
    """Points (cost in `unit`s, score): all, those on the front, and the one that was chosen."""

    cost: str
    unit: str
    points: Sequence[Point]
    front: Sequence[Point]
    chosen: Point | None


def pareto(trades: Sequence[Trade], path: Path, scored: str) -> None:
    """Scores, on what `scored` says, over costs, with the front of what no cheaper one equals."""
    figure, axes = _figure(len(trades))
    for each, trade in zip(axes, trades, strict=True):
        each.scatter(*zip(*trade.points, strict=True), s=8, color="lightgrey", label="all")
        each.plot(*zip(*trade.front, strict=True), marker=".", label="front")
        if trade.chosen is not None:
            each.scatter(*trade.chosen, s=60, color="C1", label="chosen", zorder=3)
        each.set(xlabel=trade.cost, ylabel=f"score on {scored}", xscale="log")
        _engineering(each.xaxis, trade.unit)
        each.legend(fontsize="small")
    _save(figure, path)
