# SPDX-License-Identifier: Apache-2.0
"""A net under a recipe, as engines and plans take it."""

from __future__ import annotations

from functools import partial

from edgelearn import augment, engines, rules
from edgelearn.engines import Config
from edgelearn.errors import UsageError
from edgelearn.geometry import sides_of
from edgelearn.graph import Op
from edgelearn.plan import Planner
from edgelearn.recipe import Recipe
from edgelearn.speed import seconds_per_mac
from edgelearn.structure import Structure

PURPOSES = ("train", "infer")

_PROBE_BATCH = 64
"""Largest batch that the pace is measured with: larger ones are no faster per sample."""


def config_of(
    net: Structure,
    run: Recipe,
    batch: int,
    train: bool = True,
    keep: bool = False,
    class_weights: tuple[float, ...] | None = None,
    micro: int | None = None,
) -> Config:
    """How a session of this net runs; `keep` makes room for the last good weights, `micro` is said over the recipe's.

    Raises:
        UsageError: rates for another number of blocks.
    """
    if run.rates and len(run.rates) != net.graph.blocks:
        raise UsageError(f"{len(run.rates)} rates given: the net has {net.graph.blocks} blocks, give one for each")
    return Config(
        rule=run.local_rule(),
        loss=rules.loss(net.loss),
        optimizer=run.optimizer_record(),
        batch=batch,
        targets=net.graph.outputs,
        group=run.block,
        seed=run.seed,
        train=train,
        keep=keep,
        threads=run.threads,
        class_weights=class_weights,
        micro=run.micro if micro is None else micro,
        clip=run.clip,
        rates=run.rates or None,
    )


def smallest_batch(net: Structure, purpose: str = "train") -> int:
    """Batch statistics of one value say nothing, so where vectors are normalised by them, two samples are the least."""
    normalised = net.graph.records[net.graph.records["op"] == Op.BATCHNORM]
    alone = any(sides_of(int(record["size"])).positions == 1 for record in normalised)
    return 2 if purpose == "train" and alone else 1


def planner(net: Structure, run: Recipe, purpose: str = "train") -> Planner:
    """Plans of this net under a recipe, for `train` or `infer`.

    Raises:
        UsageError: another purpose.
    """
    if purpose not in PURPOSES:
        raise UsageError(f"a plan is for {' or '.join(PURPOSES)}, not '{purpose}'")
    engine, trains = engines.load(run.backend), purpose == "train"

    def measure(batch: int, micro: int) -> tuple[int, float]:
        weighs = trains and run.class_weights != "none"
        weights = (1.0,) * net.graph.outputs if weighs else None  # their number is all that counts
        config = config_of(net, run, batch, train=trains, keep=trains, micro=micro, class_weights=weights)
        adaptive = trains and run.optimizer_record().moments > 0
        pace = seconds_per_mac(run.backend, trains, min(batch, _PROBE_BATCH), adaptive)
        return engine.sizes(net.graph.records, config).arena, pace * net.graph.macs

    gathers = trains and (run.augment or run.validation)
    feed = partial(feed_bytes, net, run) if gathers else lambda batch: 0
    micro = run.micro if trains else 0
    return Planner(net.flat.nbytes, net.graph.macs, net.graph.blocks, measure, feed, micro)


def feed_bytes(net: Structure, run: Recipe, batch: int) -> int:
    """Most that gathering, augmenting or validating a batch takes outside the arena, were the samples float32."""
    samples = 4 * batch * net.input.features + augment.parse(run.augment).extra_bytes(net.sample_shape, 4, batch)
    return samples + 48 * batch * net.graph.outputs
