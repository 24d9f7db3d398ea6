# SPDX-License-Identifier: Apache-2.0
"""What the output and the hidden groups of a net minimise, in float64: sums over samples and their gradients."""

from __future__ import annotations

import numpy as np
from formulas import codes, cross_entropy, huber, l1, l2, linear, single

from edgelearn.rules import Loss, Objective


def weighed(config, y, losses, gradient):
    """The sum of the samples' losses (n,), each times the weight of its class, and its gradient."""
    if config.class_weights is None or config.loss is not Loss.CROSS_ENTROPY:
        return losses.sum(), gradient
    weights = np.array([single(w) for w in config.class_weights])[y]
    return weights @ losses, weights[:, None] * gradient


def own_loss(config, z, y):
    """The net's own loss and its gradient with respect to z (n,K)."""
    if config.loss is Loss.CROSS_ENTROPY:
        return weighed(config, y, *cross_entropy(z, y))
    return weighed(config, y, *(l2(z, y) if config.loss is Loss.MSE else huber(z, y, single(config.rule.huber))))


def hidden_loss(config, block, q, y, readout):
    """A hidden group's loss, its gradients with respect to what the objective sees of it, q (n,U), and to M (U,K)."""
    rule, kind = config.rule, config.rule.objective
    s = 1 / (single(rule.temperature) * np.sqrt(q.shape[1]))
    if kind is Objective.READOUT:
        loss, e = own_loss(config, q @ readout * s, y)
        return loss, e @ readout.T * s, q.T @ e * s
    p = codes(rule, config.seed, block, q.shape[1], config.targets)
    if kind is Objective.TP_CE:
        loss, e = own_loss(config, q @ p.T * s, y)
        return loss, e @ p * s, None
    t = p[y] if config.loss is Loss.CROSS_ENTROPY else y @ p
    measures = {Objective.TP_L2: l2, Objective.TP_L1: l1, Objective.TP_LINEAR: linear}
    found = huber(q, t, single(rule.huber)) if kind is Objective.TP_HUBER else measures[kind](q, t)
    return *weighed(config, y, *found), None
