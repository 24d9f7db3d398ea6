# SPDX-License-Identifier: Apache-2.0
"""How the oracle learns groups that run step by step, in float64: what each step is answerable for, and what waits for
the last one. n samples, T steps, U units."""

from __future__ import annotations

from functools import partial

import formulas
import numpy as np
import operations
from formulas_recurrent import STEPS, sequence
from objectives import hidden_loss, own_loss

from edgelearn.records import RECURRENT, Op
from edgelearn.rules import Timing

_ON_STEPS = (*RECURRENT, Op.RELU, Op.LEAKY_RELU, Op.TANH, Op.SIGMOID, Op.GELU, Op.LAYERNORM, Op.DROPOUT)


def stepped(records):
    """Indices of the records that run step by step: from the first recurrent one as far as records work on steps."""
    first = np.flatnonzero(np.isin(records["op"], list(RECURRENT)))[:1]
    last = first.copy()
    while last.size and last[0] + 1 < len(records) and _stays(*records[last[0] : last[0] + 2]):
        last += 1
    return range(first[0], last[0] + 1) if first.size else range(0)


def _stays(before, record):
    """Whether a record is recurrent or stays in a block with one and works on single steps."""
    return record["op"] in RECURRENT or (record["op"] in _ON_STEPS and record["block"] == before["block"])


def recurrent(record, flat, x, window=None, traces=False):
    """Outputs (n,T,U) of a recurrent record on x (n,T,D), and the pullback."""
    step = STEPS[Op(int(record["op"]))]
    if record["op"] == Op.SIMPLE_RNN:
        step = partial(step, relu=bool(record["arg"][0]))
    stored, gains = operations.weights_of(record, flat), operations.recurrent_gains(record)
    used = [
        gain * (w.reshape(len(w), -1) if w.ndim == 3 else w.ravel()) for gain, w in zip(gains, stored, strict=False)
    ]
    y, pull = sequence(step, x, *used, window=window, traces=traces)

    def pull_stored(d):
        d, gradients = pull(d)
        return d, [gain * one.reshape(w.shape) for gain, one, w in zip(gains, gradients, stored, strict=False)]

    return y, pull_stored


def weights_over_time(timing, steps):
    """(T), adding up to one."""
    weights = {
        Timing.EVERY: np.ones(steps),
        Timing.RAMP: np.arange(1, steps + 1),
        Timing.LATE: np.arange(1, steps + 1) ** 2,
        Timing.LAST: np.arange(steps) == steps - 1,
    }[timing]
    return weights / weights.sum()


def on_steps(oracle, index, h, g, first):
    """Output (n,T,U) of a record on h (n,T,C) in training, and the pullback."""
    record, config = oracle.records[index], oracle.config
    if record["op"] in RECURRENT:
        return recurrent(record, oracle.params, h, config.window, config.rule.traces)
    if record["op"] == Op.DROPOUT:
        mask = _mask(oracle, record, h.shape, g, first)
        return h * mask, lambda d: (d * mask, [])
    flat = record.copy()
    flat["size"] = 0
    y, pull = operations.train(flat, oracle.params, h.reshape(-1, h.shape[2]))

    def pull_steps(d):
        d, gradients = pull(d.reshape(y.shape))
        return d.reshape(h.shape), gradients

    return y.reshape(*h.shape[:2], -1), pull_steps


def _mask(oracle, record, shape, g, first):
    """One for all steps where the net hands on the last one only."""
    shape = shape if record["size"] else (shape[0], 1, shape[2])
    rate, block, skipped = float(record["arg"][0]), int(record["block"]), first * shape[1] * shape[2]
    return formulas.dropout_mask(rate, oracle.config.seed, oracle.updates[g], block, shape, skipped)


def objectives(oracle, g, h, y):
    """Loss of a group whose outputs h (n,T,U) are seen step by step, their errors, and the gradients of its heads."""
    config, steps = oracle.config, h.shape[1]
    timing = Timing.LAST if oracle.is_output(g) else config.rule.timing
    d, total, sums = np.zeros_like(h), 0.0, None
    for t, weight in enumerate(weights_over_time(timing, steps)):
        if oracle.is_output(g):
            loss, dh = own_loss(config, h[:, t], y)
            gradients = []
        else:
            block, of = int(oracle.last(g)["block"]), int(oracle.last(g)["units"])
            heads = [head[: h.shape[2]] for head in oracle.heads[g]]
            loss, dh, gradients = hidden_loss(config, block, h[:, t], y, heads, of, oracle.ends(g, 1))
        d[:, t] = weight * dh
        total += weight * loss
        weighed = [weight * gradient for gradient in gradients]
        sums = weighed if sums is None else [a + b for a, b in zip(sums, weighed, strict=True)]
    heads = [head[: h.shape[2]] for head in oracle.heads.get(g, [])]
    return total, d, list(zip(heads, sums, strict=False))


def tail(oracle, g, indices, h, y, first):
    """What waits for the last step of h (n,T,U): as `objectives`, and the gradients of its own weights; its output."""
    out, pulls = oracle.run(indices, h[:, -1], g, first)
    loss, dout, found = oracle.objective(g, out, y)
    dout, own = oracle.pulled(pulls, dout)
    d = np.zeros_like(h)
    d[:, -1] = dout
    return loss, d, found + own, out


def learned(oracle, g, x, y, first):
    """As Oracle.learned."""
    section, seen = stepped(oracle.records), oracle.seen(g)
    steps = operations.sides_of(int(oracle.records[section[0]]["size"])).width
    pulls, h = {}, x
    for index in (i for i in seen if i < section[0]):
        h = oracle.train(index, h, g, first)[0]
    h = h.reshape(len(x), steps, -1)
    for index in (i for i in seen if i in section):
        h, pulls[index] = on_steps(oracle, index, h, g, first)
    rest = [i for i in seen if i > section[-1]]
    if rest:
        loss, d, found, out = tail(oracle, g, rest, h, y, first)
    else:
        (loss, d, found), out = objectives(oracle, g, h, y), h[:, -1]
    return loss, found + oracle.pulled(pulls, d)[1], out
