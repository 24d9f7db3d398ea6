# SPDX-License-Identifier: Apache-2.0
"""Pictures of training, by matplotlib."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgelearn.trainer import History


def _figure(columns: int) -> tuple[Any, Any]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    return pyplot.subplots(1, columns, figsize=(4.8 * columns, 3.6), layout="constrained")


def _save(figure: Any, path: Path) -> None:
    from matplotlib import pyplot

    figure.savefig(path, dpi=100)
    pyplot.close(figure)


def _curve(axes: Any, history: History, label: str | None = None) -> None:
    epochs = range(1, len(history.epochs) + 1)
    axes.plot(epochs, [m.loss for m in history.epochs], marker=".", label=label)
    axes.set(xlabel="epoch", ylabel="loss of the trained objective", title="training")
    axes.set_ylim(bottom=0)


def training(history: History, path: Path) -> None:
    """Loss per epoch, and accuracy where an output was trained."""
    figure, axes = _figure(2)
    _curve(axes[0], history)
    known = [(i + 1, m.accuracy) for i, m in enumerate(history.epochs) if m.accuracy is not None]
    axes[1].plot([i for i, _ in known], [a for _, a in known], marker=".")
    axes[1].set(xlabel="epoch", ylabel="accuracy", title="training samples, before their update")
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
