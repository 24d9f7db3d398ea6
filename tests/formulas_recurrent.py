# SPDX-License-Identifier: Apache-2.0
"""Recurrent cells in float64, a step at a time, and sequences of such steps.

A step reads x (n,D), `read`, the output before it that goes through V (n,U), and the state `kept` (n,U), which gates
carry over. It gives its output, its state, and a pullback from the errors of both to those of x, `read` and `kept` and
the gradients of its weights. Weights are W (D,gates U), V (U,gates U), b and, of a GRU, c (gates U).
"""

from __future__ import annotations

import numpy as np
from formulas import sigmoid

from edgelearn.records import Op


def _split(z, gates):
    return np.split(z, gates, 1)


def _gradients(x, read, d, inner, biases):
    """Of W, V and as many biases, from the errors d of x W + b and `inner` of read V + c."""
    return [x.T @ d, read.T @ inner, d.sum(0), inner.sum(0)][: 2 + biases]


def simple_step(x, read, kept, w, v, *biases, relu=False):
    z = x @ w + read @ v + sum(biases)
    h = np.maximum(z, 0) if relu else np.tanh(z)

    def pull(dh, dstate):
        d = dh * ((z > 0) if relu else 1 - h**2)
        return d @ w.T, d @ v.T, np.zeros_like(kept), _gradients(x, read, d, d, len(biases))

    return h, kept, pull


def gru_step(x, read, kept, w, v, *biases):
    b, c = biases or (0.0, 0.0)
    inner = read @ v + c
    (az, ar, an), (qz, qr, q) = _split(x @ w + b, 3), _split(inner, 3)
    z, r = sigmoid(az + qz)[0], sigmoid(ar + qr)[0]
    n = np.tanh(an + r * q)
    h = z * kept + (1 - z) * n

    def pull(dh, dstate):
        d = dh + dstate
        dn = d * (1 - z) * (1 - n**2)
        dz, dr = d * (kept - n) * z * (1 - z), dn * q * r * (1 - r)
        outer, within = np.hstack([dz, dr, dn]), np.hstack([dz, dr, dn * r])
        return outer @ w.T, within @ v.T, d * z, _gradients(x, read, outer, within, len(biases))

    return h, h, pull


def lstm_step(x, read, kept, w, v, *biases):
    i, f, g, o = _split(x @ w + read @ v + sum(biases), 4)
    (i, _), (f, _), (o, _), g = sigmoid(i), sigmoid(f), sigmoid(o), np.tanh(g)
    state = f * kept + i * g
    t = np.tanh(state)

    def pull(dh, dstate):
        ds = dstate + dh * o * (1 - t**2)
        parts = ds * g * i * (1 - i), ds * kept * f * (1 - f), ds * i * (1 - g**2), dh * t * o * (1 - o)
        d = np.hstack(parts)
        return d @ w.T, d @ v.T, ds * f, _gradients(x, read, d, d, len(biases))

    return o * t, state, pull


STEPS = {Op.SIMPLE_RNN: simple_step, Op.GRU: gru_step, Op.LSTM: lstm_step}


def sequence(step, x, w, v, *biases, window=None, traces=False):
    """Outputs (n,T,U) of all steps on x (n,T,D), and the pullback of their errors.

    An error goes back to the step before unless a window, the last of which ends with the last step, begins between
    them. With traces it goes back through what gates keep, and through nothing else, in any case.
    """
    n, count = x.shape[:2]
    window = window or count
    h = state = np.zeros((n, len(v)))
    outputs, pulls = [], []
    for t in range(count):
        h, state, pull = step(x[:, t], h, state, w, v, *biases)
        outputs.append(h)
        pulls.append(pull)

    def pull_all(d):
        dx, total = np.zeros_like(x), [np.zeros_like(one) for one in (w, v, *biases)]
        dread = dstate = np.zeros((n, len(v)))
        for t in reversed(range(count)):
            dx[:, t], dread, dstate, found = pulls[t](d[:, t] + dread, dstate)
            total = [a + b for a, b in zip(total, found, strict=True)]
            if traces or (count - t) % window == 0:
                dread = np.zeros_like(dread)
            if not traces and (count - t) % window == 0:
                dstate = np.zeros_like(dstate)
        return dx, total

    return np.stack(outputs, 1), pull_all
