# SPDX-License-Identifier: Apache-2.0
"""Recurrent cells over a stretch: S steps of M samples, D inputs, U units, n = gates U.

SimpleRNN, GRU (Cho et al. 2014, v3 of its preprint: the reset gate multiplies h V with its bias) and LSTM (Hochreiter &
Schmidhuber 1997 with the forget gate of Gers et al. 2000).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from edgelearn.engines.numba import kernels, recurrent, traces
from edgelearn.engines.numba.kernels import FloatArray
from edgelearn.engines.numba.nodes import Node
from edgelearn.engines.numba.passes import Pass
from edgelearn.engines.numba.steps import Place, Steps, Stretch
from edgelearn.records import Op


@dataclass(frozen=True)
class Cell:
    """A recurrent node, with its room for the steps at hand. Behind `back`, gates and inner are errors."""

    steps: Steps
    at: Place
    node: Node
    over: Stretch
    p: Pass

    @property
    def kept(self) -> tuple[FloatArray, FloatArray]:
        """(M,U) output before the first of the steps, and the state of an LSTM."""
        units = self.node.units
        state = units if self.node.op is Op.LSTM else 0
        return self._own("h", self.over.size, units), self._own("c", self.over.size, state)

    @property
    def y(self) -> FloatArray:
        """(S,M,U) outputs."""
        return self.steps.output(self.at, self.node, self.over)

    @property
    def gates(self) -> FloatArray:
        """(S,M,n)."""
        return self._own("gates", self.over.steps, self.over.size, self.node.columns)

    @property
    def inner(self) -> FloatArray:
        """(S,M,U): what the reset gate of a GRU multiplies, or states of an LSTM."""
        units = self.node.units if self.node.op is not Op.SIMPLE_RNN else 0
        return self._own("inner", self.over.steps, self.over.size, units)

    @property
    def squashed(self) -> FloatArray:
        """(S,M,U) tanh of the states of an LSTM."""
        return self._own("squashed", self.over.steps, self.over.size, self.node.units)

    @property
    def is_traced(self) -> bool:
        """Whether traces say what the weights did."""
        return self.steps.has((*self.at, "trace"))

    def _own(self, name: str, *shape: int) -> FloatArray:
        return self.steps.at((*self.at, name), *shape)

    def _hidden(self, columns: int) -> FloatArray:
        return self.steps.at("hidden", self.over.size, columns)

    def _parts(self, matrix: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """W (D,n), V (U,n) and the rows of biases of a matrix of weights, or of their gradients."""
        inputs, end = self.node.fan_in, self.node.fan_in + self.node.units
        return matrix[:inputs], matrix[inputs:end], matrix[end:]

    def _weights(self) -> tuple[FloatArray, FloatArray, FloatArray]:
        node = self.node
        return self._parts(self.p.params[node.offset : node.offset + node.params].reshape(-1, node.columns))

    def forward(self, x: FloatArray) -> None:
        """y = outputs of the steps on x (S,M,D)."""
        w, v, biases = self._weights()
        y, gates, hidden, kept = self.y, self.gates, self._hidden(self.node.columns), self.kept
        rows = gates.reshape(-1, self.node.columns)
        kernels.matmul(x.reshape(len(rows), -1), w, rows)
        if len(biases):
            kernels.add_bias(biases[0], rows)
        for t in range(self.over.steps):
            before = y[t - 1] if t else kept[0]
            kernels.matmul(before, v, hidden)
            if len(biases) > 1:
                kernels.add_bias(biases[1], hidden)
            self._step(t, before, hidden, gates[t], y[t])
            self._pass_over(t, y[t], self.inner[t])

    def _pass_over(self, t: int, *values: FloatArray) -> None:
        """Nothing of samples (M, ...) whose sequences have not begun."""
        late = self.over.late(t)
        for array in values if late is not None else ():
            array[late] = 0

    def _step(self, t: int, before: FloatArray, hidden: FloatArray, gates: FloatArray, h: FloatArray) -> None:
        if self.node.op is Op.GRU:
            recurrent.gru(before, hidden, gates, self.inner[t], h)
        elif self.node.op is Op.LSTM:
            recurrent.lstm(self._state_before(t), hidden, gates, self.inner[t], self.squashed[t], h)
        else:
            recurrent.simple(self.node.arg[0] != 0, hidden, gates, h)

    def _state_before(self, t: int) -> FloatArray:
        return self.inner[t - 1] if t else self.kept[1]

    def back(self, x: FloatArray, d: FloatArray, dx: FloatArray | None) -> None:
        """Add what the errors d (S,M,U) of the outputs say to the gradients; nothing goes back beyond these steps. d is
        used up; dx (S,M,D) becomes the error of x (S,M,D)."""
        self._gates_back(d)
        self._add_gradients(x)
        if dx is not None:
            rows = self.gates.reshape(-1, self.node.columns)
            kernels.matmul_nt(rows, self._weights()[0], dx.reshape(len(rows), -1))

    def _gates_back(self, d: FloatArray) -> None:
        """Errors of all gates, last step first."""
        y, gates, v = self.y, self.gates, self._weights()[1]
        down, state, spare = self.steps.at("carry", 3, self.over.size, self.node.units)
        state[...] = 0
        for t in range(self.over.steps - 1, -1, -1):
            before = y[t - 1] if t else self.kept[0]
            if t + 1 < self.over.steps:
                d[t] += down
            self._pass_over(t, d[t], state)
            through = gates[t]
            if self.node.op is Op.GRU:
                through = self._hidden(self.node.columns)
                recurrent.gru_back(before, d[t], gates[t], self.inner[t], through, spare)
            elif self.node.op is Op.LSTM:
                recurrent.lstm_back(self._state_before(t), d[t], self.squashed[t], gates[t], state)
            else:
                recurrent.simple_back(self.node.arg[0] != 0, y[t], d[t], gates[t])
            kernels.matmul_nt(through, v, down)
            if self.node.op is Op.GRU:
                down += spare

    def _add_gradients(self, x: FloatArray) -> None:
        node, gates = self.node, self.gates.reshape(-1, self.node.columns)
        w, v, biases = self._parts(self.p.gradient(node, 0))
        kernels.matmul_tn(x.reshape(len(gates), -1), gates, w)
        shared = 2 * node.units if node.op is Op.GRU else node.columns
        self._add_recurrent(gates, v[:, :shared])
        if node.op is Op.GRU:
            self._add_recurrent(self.inner.reshape(-1, node.units), v[:, shared:])
        totals = self.p.memory.totals
        if len(biases):
            kernels.sum_rows(gates, totals, biases[0])
        if len(biases) > 1:
            kernels.sum_rows(gates, totals, biases[1][:shared])
            kernels.sum_rows(self.inner.reshape(-1, node.units), totals, biases[1][shared:])

    def _add_recurrent(self, d: FloatArray, gradient: FloatArray) -> None:
        """Each step's errors d (S M, columns) meet the output before it."""
        size = self.over.size
        kernels.matmul_tn(self.kept[0], d[:size], gradient)
        if self.over.steps > 1:
            kernels.matmul_tn(self.y[:-1].reshape(len(d) - size, -1), d[size:], gradient)

    def trace(self, x: FloatArray, d: FloatArray) -> None:
        """Move the traces on by one step on x (1,M,D), and add what they say under the errors d (1,M,U)."""
        node, size = self.node, self.over.size
        keep, signal, _ = self.steps.at("carry", 3, size, node.units)
        direct, (gates,) = self._hidden(3 * node.units), self.gates
        h, state = self.kept
        gradient = self.p.gradient(node, 0)
        reads = self._own("reads", size, len(gradient))
        end = node.fan_in + node.units
        reads[:, : node.fan_in], reads[:, node.fan_in : end], reads[:, end:] = x[0], h, 1
        inner = direct[:, 2 * node.units :]
        if node.op is Op.GRU:
            traces.gru_slopes(h, gates, keep, direct, self.inner[0])
            signal, inner = d[0], self.inner[0]
        else:
            traces.lstm_slopes(state, d[0], self.squashed[0], gates, keep, direct, signal)
            kernels.matmul_tn(reads, gates[:, 3 * node.units :], gradient[:, 3 * node.units :])
        self._pass_over(0, keep, direct, self.inner[0])
        within = np.arange(len(gradient))
        is_inner = (within >= node.fan_in) & (within != end)
        kept = self._own("trace", len(gradient), size, 3, node.units)
        traces.follow(reads, keep, direct, inner, is_inner, signal, kept, gradient)

    def advance(self) -> None:
        """The last of the steps becomes what the next ones find."""
        h, state = self.kept
        h[...] = self.y[-1]
        if self.node.op is Op.LSTM:
            state[...] = self.inner[-1]

    def forget(self) -> None:
        """Nothing came before; traces are of nothing."""
        for values in self.kept:
            values[...] = 0
        if self.is_traced:
            self._own("trace", self.node.params // self.node.columns, self.over.size, 3, self.node.units)[...] = 0
