# SPDX-License-Identifier: Apache-2.0
"""A net that learns as every backend must, in float64 and as plainly as the formulas it is made of.

n samples, U units, K classes or targets.
"""

from __future__ import annotations

import formulas
import numpy as np
import operations
import sequences
from formulas import single
from formulas_maps import adaptive
from numpy.lib.stride_tricks import as_strided
from objectives import hidden_loss, own_loss

from edgelearn.optim import OptimizerKind
from edgelearn.records import FLAG_NESTED, Op
from edgelearn.rules import Loss, Objective

ALL = 1 << 30


def batches(n, batch, seed, epochs, shuffle=True):
    """The samples of each step of a run, one list per batch."""
    for epoch in range(epochs):
        order = [formulas.shuffle(seed, epoch, n, p) if shuffle else p for p in range(n)]
        yield from (order[start : start + batch] for start in range(0, n, batch))


class Oracle:
    """A net that learns as the engines must; `params` is its float64 copy of the flat vector."""

    def __init__(self, records, params, config):
        self.records, self.config = records, config
        self.params = params.astype(np.float64)
        groups = records["block"] // config.group
        self.groups = [list(np.flatnonzero(groups == g)) for g in range(groups[-1] + 1)]
        self.updates = [0] * len(self.groups)
        self.moments = {}  # as large as what they are of: the parameters, or a head
        self.section = sequences.stepped(records)
        self.heads = {g: self.fresh_heads(g) for g in range(len(self.groups) - 1)}

    def seen(self, g):
        """Records up to the objective: what comes before a last dropout and softmax."""
        kept = list(self.groups[g])
        while self.records[kept[-1]]["op"] in (Op.DROPOUT, Op.SOFTMAX):
            kept.pop()
        return kept

    def last(self, g):
        """The record whose output the objective sees."""
        return self.records[self.seen(g)[-1]]

    def fresh_heads(self, g):
        """What a rule may learn beside a group: a read-out of zeros (U,K)."""
        units, sides = int(self.last(g)["active"]), operations.map_after(self.last(g))
        if sides and not self.in_steps(g):
            grid = self.config.rule.grid
            units *= int(np.prod([min(grid, side) if grid else side for side in sides]))
        return [np.zeros((units, self.config.targets))]

    def in_steps(self, g):
        """Whether the objective sees a group step by step."""
        return self.seen(g)[-1] in self.section

    def learns(self, g):
        """Whether a group is trained at all when its turn comes."""
        rule = self.config.rule
        is_frozen = rule.frozen and not self.in_steps(g) and operations.map_after(self.last(g)) is not None
        return self.is_output(g) or not (is_frozen or rule.objective is Objective.UNTRAINED)

    def is_output(self, g):
        return g == len(self.groups) - 1

    def forward(self, x):
        """Outputs (n, K) in inference."""
        return self.outputs(x, len(self.groups) - 1)

    def outputs(self, x, last, entry=0):
        """What the group after `last` reads, in inference, of what the group `entry` reads."""
        indices = np.concatenate(self.groups[entry : last + 1])
        return operations.chain(
            self.records, indices, x, lambda i, x: operations.infer(self.records[i], self.params, x)
        )

    def train(self, index, x, g, first):
        """Output and pullback of a record in training, on samples `first`, first + 1, ... of the batch."""
        record, seed = self.records[index], self.config.seed
        if record["op"] != Op.DROPOUT:
            return operations.train(record, self.params, x)
        rate, block = float(record["arg"][0]), int(record["block"])
        mask = formulas.dropout_mask(rate, seed, self.updates[g], block, x.shape, first * x.shape[1])
        return operations.train(record, self.params, x, mask)

    def learned(self, g, x, y, first=0):
        """Loss of a group, [(weights, gradient)] with its heads in front, and right answers: sums over samples."""
        if any(index in self.section for index in self.groups[g]):
            loss, found, h = sequences.learned(self, g, x, y, first)
        else:
            h, pulls = self.run(self.seen(g), x, g, first)
            loss, d, found = self.objective(g, h, y)
            found += self.pulled(pulls, d)[1]
        return loss, found, int((h.argmax(1) == y).sum()) if self.config.loss is Loss.CROSS_ENTROPY else 0

    def run(self, indices, x, g, first):
        """Output of records in training, and the pullback of each."""
        pulls = {}

        def forward(index, h):
            h, pulls[index] = self.train(index, h, g, first)
            return h

        return operations.chain(self.records, indices, x, forward), pulls

    def pulled(self, pulls, d):
        """The error d pulled back through {record: pullback}, and [(weights, gradient)] on the way."""
        found, rounds = [], {}
        for index in sorted(pulls, reverse=True):
            record = self.records[index]
            if record["op"] == Op.ADD:
                rounds[int(record["input"][1])] = d
            d, gradients = pulls[index](d)
            d = d + rounds.pop(index - 1, 0.0)
            own = operations.weights_of(record, self.params)
            found += zip(own, gradients[: len(own)], strict=True)
        return d, found

    def ends(self, g, cells):
        """Where prefixes end that have losses of their own; None: there are none."""
        return None

    def objective(self, g, h, y):
        """Loss of a group, its gradient with respect to the output h, and [(head, gradient)] beside."""
        if self.is_output(g):
            return *own_loss(self.config, h, y), []
        q, pull = h, lambda d: (d, [])
        sides, last = operations.map_after(self.last(g)), self.last(g)
        if sides:
            q, pull = adaptive(h.reshape(len(h), *sides, -1), self.config.rule.grid)
        is_nested = bool((self.records[self.groups[g]]["flags"] & FLAG_NESTED).any())
        cells = q.shape[1] // int(last["active"])
        if is_nested:  # channel by channel, so that a prefix of channels is one of what is seen
            q = q.reshape(len(q), cells, -1).swapaxes(1, 2).reshape(len(q), -1)
        of = cells * int(last["units"]) if is_nested else q.shape[1]
        heads = [head[: q.shape[1]] for head in self.heads[g]]
        loss, d, gradients = hidden_loss(self.config, int(last["block"]), q, y, heads, of, self.ends(g, cells))
        if is_nested:
            d = d.reshape(len(d), -1, cells).swapaxes(1, 2).reshape(len(d), -1)
        return loss, pull(d)[0].reshape(h.shape), list(zip(heads, gradients, strict=False))

    def step(self, x, y, lr, first=0, last=ALL, entry=0):
        """One step on a batch that enters at group `entry`: loss of the last trained objective, right answers."""
        loss, correct, x = 0.0, 0, x.astype(np.float64)
        first, last = max(first, self.config.first_group), min(last, self.config.last_group, len(self.groups) - 1)
        for g in range(entry, last + 1):
            if g < first:
                x = self.outputs(x, g, g)
                continue
            size = self.config.micro or len(x)
            slices = [slice(start, start + size) for start in range(0, len(x), size)]
            passed = [self.through(g, x[part], part.start) for part in slices]
            if self.learns(g):
                found = [self.learned(g, x[part], y[part], part.start) for part in slices]
                self.update(g, total([one[1] for one in found], len(x)), lr)
                loss, correct = sum(one[0] for one in found), sum(one[2] for one in found) * self.is_output(g)
            self.follow(passed)
            self.updates[g] += 1
            x = np.concatenate([output for output, _ in passed])
        return loss, correct

    def through(self, g, x, first=0):
        """A group's output in training, and what its running statistics follow."""
        statistics = []

        def forward(index, x):
            record = self.records[index]
            if record["op"] == Op.BATCHNORM:
                read, momentum = operations.shaped(record, x), float(record["arg"][1])
                rows = tuple(range(read.ndim - 1))
                mean, variance = operations.statistics_of(record, self.params)
                statistics.extend([(mean, read.mean(rows), momentum), (variance, read.var(rows), momentum)])
            return x if record["op"] == Op.SOFTMAX else self.train(index, x, g, first)[0]

        return operations.chain(self.records, self.groups[g], x, forward), statistics

    def follow(self, passed):
        """Running statistics move once for each slice."""
        for running, batch, momentum in (one for _, statistics in passed for one in statistics):
            running[...] = momentum * running + (1 - momentum) * batch

    def update(self, g, found, lr):
        """Move weights by their mean gradients; the limit on the norm is for the group without its heads."""
        rates, clip = self.config.rates, single(self.config.clip)
        lr = single(lr) * (single(rates[self.records[self.groups[g][-1]]["block"]]) if rates else 1.0)
        norm = np.sqrt(sum((gradient**2).sum() for weights, gradient in found if self.is_ours(weights)))
        limit = clip / norm if 0 < clip < norm else 1.0
        for weights, gradient in found:
            share = limit if self.is_ours(weights) else 1.0
            weights -= self.change(share * gradient, self.moments_of(weights, g), self.updates[g] + 1, lr)

    def is_ours(self, weights):
        """Whether weights are the net's and not a head's."""
        return np.may_share_memory(weights, self.params)

    def moments_of(self, weights, g):
        """First and second moments of weights, which may be a part of what is stored."""
        bases = [self.params] if self.is_ours(weights) else self.heads[g]
        base = next(one for one in bases if np.may_share_memory(weights, one))
        both = self.moments.setdefault(id(base), (np.zeros_like(base), np.zeros_like(base)))
        first = (weights.ctypes.data - base.ctypes.data) // base.itemsize
        return [as_strided(one.ravel()[first:], weights.shape, weights.strides) for one in both]

    def change(self, gradient, moments, count, lr):
        """What the optimizer takes off the weights at its update number `count`."""
        o = self.config.optimizer
        first, second = moments
        if o.kind is OptimizerKind.SGD:
            return lr * gradient
        if o.kind is OptimizerKind.MOMENTUM:
            first[...] = single(o.momentum) * first + gradient
            return lr * first
        beta1, beta2 = single(o.beta1), single(o.beta2)
        first[...] = beta1 * first + (1 - beta1) * gradient
        second[...] = beta2 * second + (1 - beta2) * gradient**2
        mhat, vhat = first / (1 - beta1**count), second / (1 - beta2**count)
        return lr * mhat / (np.sqrt(vhat) + single(o.epsilon))


def total(slices, n):
    """[(weights, mean gradient)] of a batch of n samples from the sums of its slices."""
    return [(same[0][0], sum(gradient for _, gradient in same) / n) for same in zip(*slices, strict=True)]
