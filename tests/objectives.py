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


COMPARING = (Objective.READOUT_SIM, Objective.TP_CE_SIM)


def alike(v):
    """Similarities of rows (n,n): cosines of what is left of them without their own mean; and the pullback to v."""
    centred = v - v.mean(1, keepdims=True)
    length = np.linalg.norm(centred, axis=1, keepdims=True)
    length[length < 1e-6] = np.inf  # a blank row has no direction
    unit = centred / length

    def pull(d):
        e = (d + d.T) @ unit
        e = (e - unit * (unit * e).sum(1, keepdims=True)) / length
        return e - e.mean(1, keepdims=True)

    return unit @ unit.T, pull


def similarity_loss(config, v, y):
    """n times the mean square of the differences of two similarity matrices, of v and of the labels; its gradient."""
    found, pull = alike(v)
    difference = found - alike(np.eye(config.targets)[y])[0]
    return (difference**2).sum() / len(v), pull(2 * difference / len(v))


def hidden_loss(config, block, q, y, heads, of=None, ends=None):
    """A hidden group's loss, its gradients with respect to what the objective sees of it, q (n,U), and to the heads;
    codes are made for `of` units, of which the first U count. Of a nested net, each prefix of q up to one of `ends` has
    a loss by scores of its own."""
    rule, kind = config.rule, config.rule.objective
    if kind not in COMPARING:
        return prefix_objectives(config, block, q, y, heads, of, ends)
    share = single(rule.similarity)
    loss, dq, gradients = prefix_objectives(config, block, q, y, heads, of, ends)
    other, dv = similarity_loss(config, q, y)
    gradients = [(1 - share) * gradient for gradient in gradients]
    return (1 - share) * loss + share * other, (1 - share) * dq + share * dv, gradients


def prefix_objectives(config, block, q, y, heads, of, ends):
    """The sum of own_objective over prefixes of q, where it is one by scores."""
    if ends is None or config.rule.objective < Objective.TP_CE:
        return own_objective(config, block, q, y, heads, of)
    total, dq, gradients = 0.0, np.zeros(q.shape), []
    for end in ends:
        cut = [head[:end] for head in heads]
        loss, d, found = own_objective(config, block, q[:, :end], y, cut, of or q.shape[1])
        total, dq[:, :end] = total + loss, dq[:, :end] + d
        padded = [np.pad(gradient, [(0, q.shape[1] - end), (0, 0)]) for gradient in found]
        gradients = [old + new for old, new in zip(gradients, padded, strict=True)] if gradients else padded
    return total, dq, gradients


def own_objective(config, block, q, y, heads, of):
    """The same without what a rule adds by comparing samples."""
    rule, kind = config.rule, config.rule.objective
    s = 1 / (single(rule.temperature) * np.sqrt(q.shape[1]))
    if kind in (Objective.READOUT, Objective.READOUT_SIM):
        loss, e = own_loss(config, q @ heads[0] * s, y)
        return loss, e @ heads[0].T * s, [q.T @ e * s]
    p = codes(rule, config.seed, block, of or q.shape[1], config.targets)[:, : q.shape[1]]
    if kind in (Objective.TP_CE, Objective.TP_CE_SIM):
        loss, e = own_loss(config, q @ p.T * s, y)
        return loss, e @ p * s, []
    t = p[y] if config.loss is Loss.CROSS_ENTROPY else y @ p
    measures = {Objective.TP_L2: l2, Objective.TP_L1: l1, Objective.TP_LINEAR: linear}
    found = huber(q, t, single(rule.huber)) if kind is Objective.TP_HUBER else measures[kind](q, t)
    return *weighed(config, y, *found), []
