# SPDX-License-Identifier: Apache-2.0
"""A net that learns as every backend must, in float64 and as plainly as the formulas it is made of.

n samples, U units, K classes or targets.
"""

from __future__ import annotations

import numpy as np
from formulas import (
    batchnorm,
    codes,
    cross_entropy,
    dense,
    dropout_mask,
    huber,
    l1,
    l2,
    linear,
    relu,
    sigmoid,
    single,
    softmax,
    tanh,
)

from edgelearn.graph import FLAG_BIAS, Op
from edgelearn.optim import OptimizerKind
from edgelearn.rules import Loss, Objective


def own_loss(config, z, y):
    """The net's own loss, summed over samples, and its gradient with respect to z (n,K)."""
    if config.loss is Loss.CROSS_ENTROPY:
        return cross_entropy(z, y)
    return l2(z, y) if config.loss is Loss.MSE else huber(z, y, single(config.rule.huber))


def hidden_loss(config, block, h, y, readout):
    """A hidden block's loss, its gradients with respect to h and, for the read-out rule, to M."""
    rule, kind = config.rule, config.rule.objective
    s = 1 / (single(rule.temperature) * np.sqrt(h.shape[1]))
    if kind is Objective.READOUT:
        loss, e = own_loss(config, h @ readout * s, y)
        return loss, e @ readout.T * s, h.T @ e * s
    p = codes(rule, config.seed, block, h.shape[1], config.targets)
    if kind is Objective.TP_CE:
        loss, e = cross_entropy(h @ p.T * s, y)
        return loss, e @ p * s, None
    t = p[y] if config.loss is Loss.CROSS_ENTROPY else y @ p
    measures = {Objective.TP_L2: l2, Objective.TP_L1: l1, Objective.TP_LINEAR: linear}
    found = huber(h, t, single(rule.huber)) if kind is Objective.TP_HUBER else measures[kind](h, t)
    return *found, None


def weights_of(record, flat):
    """The trained weights of a record as views of the flat vector."""
    start, fan_in, stride = int(record["offset"]), int(record["fan_in"]), int(record["stride"])
    used, units = int(record["fan_in_active"]), int(record["active"])
    if record["op"] == Op.BATCHNORM:
        beta = start + int(record["units"])
        return [flat[start : start + units], flat[beta : beta + units]]
    end = start + fan_in * stride
    w = flat[start:end].reshape(fan_in, stride)[:used, :units]
    return [w, flat[end : end + units]] if record["flags"] & FLAG_BIAS else [w]


class Oracle:
    """A net that learns as the engines must; `params` is its float64 copy of the flat vector."""

    def __init__(self, records, params, config):
        self.records, self.config = records, config
        self.params = params.astype(np.float64)
        groups = records["block"] // config.group
        self.groups = [list(np.flatnonzero(groups == g)) for g in range(groups[-1] + 1)]
        self.updates = [0] * len(self.groups)
        self.moments = {}
        self.readouts = {}
        for g in range(len(self.groups) - 1):
            self.readouts[g] = np.zeros((int(records[self.seen(g)[-1]]["active"]), config.targets))

    def seen(self, g):
        """Records up to the objective: what comes before a last dropout and softmax."""
        kept = list(self.groups[g])
        while self.records[kept[-1]]["op"] in (Op.DROPOUT, Op.SOFTMAX):
            kept.pop()
        return kept

    def forward(self, x):
        """Outputs (n, K) in inference."""
        for record in self.records:
            x = self.infer(record, x)
        return x

    def infer(self, record, x):
        op, first = record["op"], float(record["arg"][0])
        if op == Op.SOFTMAX:
            return softmax(x)
        if op == Op.DROPOUT:
            return x
        if op == Op.BATCHNORM:
            gamma, beta, mean, variance = self.statistics(record)
            return gamma * (x - mean) / np.sqrt(variance + first) + beta
        return self.train(record, x, 0)[0]

    def statistics(self, record):
        start = int(record["offset"])
        stored = self.params[start : start + int(record["params"])].reshape(4, -1)
        return stored[:, : record["active"]]

    def train(self, record, x, g):
        """Output and pullback of a record in training."""
        op, first = record["op"], float(record["arg"][0])
        if op == Op.RESCALE:
            start = int(record["offset"])
            scale, shift = self.params[start : start + int(record["params"])].reshape(2, -1)
            times = x.shape[1] // len(scale)
            return x * np.tile(scale, times) + np.tile(shift, times), lambda d: (d, [])
        if op == Op.DENSE:
            w, *bias = weights_of(record, self.params)
            return dense(x, w, bias[0] if bias else 0.0)
        if op == Op.BATCHNORM:
            return batchnorm(x, *weights_of(record, self.params), first)
        if op == Op.DROPOUT:
            mask = dropout_mask(first, self.config.seed, self.updates[g], int(record["block"]), x.shape)
            return x * mask, lambda d: (d * mask, [])
        return {Op.TANH: tanh, Op.SIGMOID: sigmoid}.get(op, lambda x: relu(x, first))(x)

    def learned(self, g, x, y):
        """Loss of a group, [(weights, gradient)] of the mean loss, and right answers."""
        pulls, h = [], x
        for index in self.seen(g):
            h, pull = self.train(self.records[index], h, g)
            pulls.append((self.records[index], pull))
        if g == len(self.groups) - 1:
            (loss, d), dm = own_loss(self.config, h, y), None
        else:
            block = int(self.records[self.seen(g)[-1]]["block"])
            loss, d, dm = hidden_loss(self.config, block, h, y, self.readouts[g])
        found = [] if dm is None else [(self.readouts[g], dm / len(x))]
        d = d / len(x)
        for record, pull in reversed(pulls):
            d, gradients = pull(d)
            own = weights_of(record, self.params) if gradients else []
            found += zip(own, gradients[: len(own)], strict=True)
        return loss, found, int((h.argmax(1) == y).sum()) if self.config.loss is Loss.CROSS_ENTROPY else 0

    def step(self, x, y, lr, first=0, last=1 << 30):
        """One step on one batch: loss of the last trained objective, right answers."""
        loss, correct, x = 0.0, 0, x.astype(np.float64)
        for g, group in enumerate(self.groups[: last + 1]):
            output = g == len(self.groups) - 1
            if g < first:
                for index in group:
                    x = self.infer(self.records[index], x)
                continue
            after, statistics = self.through(group, x, g)
            if output or self.config.rule.objective is not Objective.UNTRAINED:
                loss, gradients, right = self.learned(g, x, y)
                correct = right if output else 0
                for place, (weights, gradient) in enumerate(gradients):
                    weights -= self.change(gradient, (g, place), self.updates[g] + 1, single(lr))
                for running, batch, momentum in statistics:
                    running[...] = momentum * running + (1 - momentum) * batch
            self.updates[g] += 1
            x = after
        return loss, correct

    def through(self, group, x, g):
        """A group's output in training, and what its running statistics follow."""
        statistics = []
        for record in self.records[group]:
            if record["op"] == Op.BATCHNORM:
                _, _, mean, variance = self.statistics(record)
                momentum = float(record["arg"][1])
                statistics += [(mean, x.mean(0), momentum), (variance, x.var(0), momentum)]
            if record["op"] != Op.SOFTMAX:
                x = self.train(record, x, g)[0]
        return x, statistics

    def change(self, gradient, name, count, lr):
        """What the optimizer takes off the weights at its update number `count`."""
        o = self.config.optimizer
        first, second = self.moments.get(name, (0.0, 0.0))
        if o.kind is OptimizerKind.SGD:
            return lr * gradient
        if o.kind is OptimizerKind.MOMENTUM:
            first = single(o.momentum) * first + gradient
            self.moments[name] = first, second
            return lr * first
        beta1, beta2 = single(o.beta1), single(o.beta2)
        first, second = beta1 * first + (1 - beta1) * gradient, beta2 * second + (1 - beta2) * gradient**2
        self.moments[name] = first, second
        mhat, vhat = first / (1 - beta1**count), second / (1 - beta2**count)
        return lr * mhat / (np.sqrt(vhat) + single(o.epsilon))
