# SPDX-License-Identifier: Apache-2.0
"""Measures this board's table of operations, which then stands in for the roofline of its profile, and keeps it."""

from __future__ import annotations

import itertools
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn import engines, graph
from edgelearn.costs.boards import Board, detect, load
from edgelearn.costs.latency import Axes, Latency, Roofline, Table
from edgelearn.durable import replacing, write_through
from edgelearn.engines import Config
from edgelearn.errors import EdgelearnError, ModelError
from edgelearn.graph import Graph
from edgelearn.layers import (
    GRU,
    LSTM,
    Activation,
    AnyLayer,
    AvgPool,
    BatchNormalization,
    Conv1D,
    Conv2D,
    Dense,
    DepthwiseConv2D,
    LayerNormalization,
    MultiHeadAttention,
    SimpleRNN,
)
from edgelearn.records import Op

ROUNDS, ROUND_SECONDS = 9, 0.004
"""The fastest of so many rounds counts: what else runs on a board only adds to the others."""

DENSE = ((16, 64, 256, 1024, 4096), (4, 16, 32, 64, 128, 256, 1024))
CONV = ((16, 64, 784), (9, 36, 144, 576, 1152), (4, 8, 16, 32, 64, 128))
POINTWISE = ((16, 256), (8, 32, 128), (4, 8, 16, 128))
PLACES = ((16, 256), (8, 64))
STEP = ((8, 64, 256), (16, 64, 256))
HEADS = ((16, 64, 256), (16, 64))
_WIDE, _REPEATED, _STEPS, _HEAD = 4096, 8, 32, 16

_ACTIVATIONS = {op: name for name, op in (("relu", Op.RELU), ("leaky_relu", Op.LEAKY_RELU), ("tanh", Op.TANH),
                ("sigmoid", Op.SIGMOID), ("gelu", Op.GELU), ("softmax", Op.SOFTMAX))}  # fmt: skip

Tick = Callable[[int, int], None]
"""Called with what is done and all there is."""


def silent(done: int, of: int) -> None:
    """A Tick that says nothing."""


def best_seconds(session: Any, x: NDArray[Any], rounds: int = ROUNDS) -> float:
    """Seconds of one forward pass: the fastest round's mean."""
    calls, best = 1, np.inf
    for _ in range(rounds):
        start = time.perf_counter()
        for _ in range(calls):
            session.forward(x)
        spent = time.perf_counter() - start
        best = min(best, spent / calls)
        calls = max(1, min(int(calls * ROUND_SECONDS / max(spent, 1e-7)) + 1, 10_000))
    return float(best)


def of_layers(layers: Sequence[AnyLayer], shape: tuple[int, ...], rounds: int = ROUNDS) -> float:
    """Seconds of one sample through layers."""
    built = graph.build(list(layers), shape, softmax=False)
    return of_graph(built, built.initial(0), rounds)


def of_graph(built: Graph, params: NDArray[np.float32], rounds: int = ROUNDS) -> float:
    """Seconds of one sample through a net."""
    session = engines.load("native").open(built.records, params, Config(batch=1, targets=built.outputs, train=False))
    try:
        return best_seconds(session, np.full((1, built.features), 0.5, np.float32), rounds)
    finally:
        session.close()


def measure(board: Board | None = None, tick: Tick = silent, rounds: int = ROUNDS) -> Table:
    """The table of this machine, in some ten seconds; fewer `rounds` take less and are further off."""
    name = (board or detect()).name
    one = of_layers([Dense(1)], (1,), rounds)
    record = max(of_layers([Dense(1)] * (1 + _REPEATED), (1,), rounds) - one, 0.0) / _REPEATED
    value = max(of_layers([Dense(1)], (_WIDE,), rounds) - one, 1e-12) / _WIDE
    plan = _plan(one - record, value, rounds)
    kinds: dict[str, Axes] = {}
    for done, (kind, measured) in enumerate(plan.items()):
        tick(done, len(plan))
        kinds[kind] = measured()
    tick(len(plan), len(plan))
    return Table(name, engines.load("native").isa, one - record, value, kinds)


def _plan(call: float, value: float, rounds: int) -> dict[str, Callable[[], Axes]]:
    """How each kind is measured; what is not of the operation itself is taken off."""

    def alone(layer: AnyLayer, *shape: int) -> float:
        return max(of_layers([layer], shape, rounds) - call - value * prod(shape), 1e-8)

    def over(before: list[AnyLayer], layer: AnyLayer, *shape: int) -> float:
        """Of a layer behind others, as the mean of some in a row; softmax ends a net."""
        times = 1 if layer == Activation("softmax") else _REPEATED
        both = of_layers([*before, *[layer] * times], shape, rounds)
        return max((both - of_layers(before, shape, rounds)) / times, 1e-9)

    def square(places: int, channels: int) -> tuple[int, int, int]:
        return int(places**0.5), int(places**0.5), channels

    def on_map(layer: AnyLayer) -> Callable[[], Axes]:
        before: list[AnyLayer] = [DepthwiseConv2D(1)]
        return lambda: _grid(PLACES, lambda places, channels: over(before, layer, *square(places, channels)))

    def step(layer: type[SimpleRNN | GRU | LSTM]) -> Callable[[], Axes]:
        return lambda: _grid(STEP, lambda inputs, units: alone(layer(units), _STEPS, inputs) / _STEPS)

    def scores(places: int, units: int) -> float:
        """Of an attention layer without its two projections."""
        projections: list[AnyLayer] = [Conv1D(3 * units, 1), Conv1D(units, 1)]
        whole = of_layers([MultiHeadAttention(units // _HEAD)], (places, units), rounds)
        return max(whole - of_layers(projections, (places, units), rounds), 1e-9)

    plan = {
        "dense": lambda: _grid(DENSE, lambda inputs, units: alone(Dense(units), inputs)),
        "conv": lambda: _grid(
            CONV, lambda places, rows, units: alone(Conv2D(units, 3, padding="same"), *square(places, rows // 9))
        ),
        "pointwise": lambda: _grid(
            POINTWISE, lambda places, rows, units: alone(Conv2D(units, 1), *square(places, rows))
        ),
        "depthwise": lambda: _scaled(
            _grid(PLACES, lambda places, units: alone(DepthwiseConv2D(3, padding="same"), *square(places, units))), 9
        ),
        "pool": lambda: _scaled(on_map(AvgPool(3, strides=1, padding="same"))(), 9),
        "batchnorm": on_map(BatchNormalization()),
        "layernorm": on_map(LayerNormalization()),
        "simple_rnn": step(SimpleRNN),
        "gru": step(GRU),
        "lstm": step(LSTM),
        "attention": lambda: _grid(HEADS, scores),
    }
    for op, name in _ACTIVATIONS.items():
        plan[op.name.lower()] = partial(_line, partial(over, [Dense(_WIDE)], Activation(name), 1))
    return plan


def _grid(axes: tuple[tuple[int, ...], ...], seconds: Callable[..., float]) -> Axes:
    return Axes(axes, tuple(seconds(*size) for size in itertools.product(*axes)))


def _scaled(found: Axes, taps: int) -> Axes:
    """The same with places counted once for each tap of their window."""
    return Axes((tuple(taps * places for places in found.axes[0]), *found.axes[1:]), found.seconds)


def _line(measured: Callable[[], float]) -> Axes:
    """In proportion to the number of values."""
    seconds = measured()
    return Axes(((1, _WIDE),), (seconds / _WIDE, seconds))


def path() -> Path:
    """Where this machine's table is kept: EDGELEARN_CALIBRATION, or edgelearn/calibration.json in the user's cache."""
    given = os.environ.get("EDGELEARN_CALIBRATION")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "edgelearn" / "calibration.json"


def save(table: Table, target: Path) -> None:
    """Write a table.

    Raises:
        OutputError: it cannot be written.
    """
    from edgelearn.errors import OutputError

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make folder {target.parent} ({error.strerror}): choose a file with -o") from error
    with replacing(target) as partial:
        write_through(partial, [json.dumps(table.to_json()).encode()])


def saved(source: Path | None = None) -> Table | None:
    """The table kept on this machine, if there is one.

    Raises:
        ModelError: the file is damaged.
    """
    source = source or path()
    if not source.is_file():
        return None
    try:
        return Table.from_json(json.loads(source.read_text("utf-8")))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"{source} is not a table of bench calibrate ({error}): run it again") from error


def latency_on(board: str | Board | None) -> Latency | None:
    """How long nets take on a board, by name or file; on this machine for None, if it was measured."""
    if board is not None:
        return latency_of(board if isinstance(board, Board) else load(board))
    table = saved()
    return table if table and set(KINDS) <= set(table.kinds) else None


def latency_of(board: Board) -> Latency:
    """The table where the board is this machine and was measured, else the roofline of its profile."""
    table = saved()
    if table is not None and table.board == board.name:
        try:
            here = detect().name == board.name
        except EdgelearnError:
            here = False
        if here and set(KINDS) <= set(table.kinds):
            return table
    return Roofline(board)


KINDS = (
    *("dense", "conv", "pointwise", "depthwise", "pool", "batchnorm", "layernorm", "relu", "softmax"),
    *("simple_rnn", "gru", "lstm", "attention"),
)
"""Kinds that a table must have to be used."""
