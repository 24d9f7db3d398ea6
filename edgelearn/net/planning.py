# SPDX-License-Identifier: Apache-2.0
"""A net under a recipe, as engines and plans take it."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import partial

from edgelearn import augment, engines, rules
from edgelearn.costs.boards import temperature
from edgelearn.costs.budget import Budget
from edgelearn.costs.latency import STEP, Latency, Roofline
from edgelearn.costs.plan import Planner
from edgelearn.costs.speed import seconds_per_mac
from edgelearn.engines import ALL_GROUPS, Config
from edgelearn.errors import UsageError
from edgelearn.geometry import sides_of
from edgelearn.graph import Graph
from edgelearn.net.slices import slice_of
from edgelearn.net.structure import Structure
from edgelearn.records import Op, handed_on
from edgelearn.rules import Objective
from edgelearn.training import cache
from edgelearn.training.recipe import Recipe
from edgelearn.training.stages import Groups

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
    groups: Groups = (0, ALL_GROUPS),
) -> Config:
    """How a session of this net runs; `keep` makes room for the last good weights, `micro` is said over the recipe's,
    `groups` are trained.

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
        window=run.window,
        seed=run.seed,
        train=train,
        keep=keep,
        threads=run.threads,
        class_weights=class_weights,
        micro=run.micro if micro is None else micro,
        clip=run.clip,
        rates=run.rates or None,
        nest=net.levels if train else None,
        first_group=groups[0],
        last_group=groups[1],
    )


def learning_graphs(net: Structure) -> list[Graph]:
    """What learns from each batch: the net, and of a nested one whose widths all learn, the narrower ones, too. Where
    widths are drawn, the widest stands for them."""
    if net.nested is None or net.levels is None or net.nested.sampling != "every":
        return [net.graph]
    narrower = net.nested.widths[: len(net.levels.units) - 1]
    return [*(slice_of(net.graph, net.nested, width).of(net.graph) for width in narrower), net.graph]


def stages_of(net: Structure, run: Recipe) -> tuple[Groups, ...]:
    """Groups that train together, stage by stage."""
    last = -(-net.graph.blocks // run.block) - 1
    if run.schedule == "interleaved":
        return ((0, last),)
    first = last if run.local_rule().objective is Objective.UNTRAINED else 0
    return tuple((group, group) for group in range(first, last + 1))


def cached_shapes(net: Structure, run: Recipe) -> dict[int, tuple[int, int]]:
    """Positions and channels of what a stage reads from disk, by the group that reads it."""
    if run.cached == "none":
        return {}
    return {first: handed_on(net.graph.records, first * run.block - 1) for first, _ in stages_of(net, run) if first}


def cache_bytes(net: Structure, run: Recipe, samples: int) -> int:
    """Most bytes on disk at once for the outputs of so many samples."""
    features = [positions * channels for positions, channels in cached_shapes(net, run).values()]
    return samples * cache.most_bytes(features, run.cached) if features else 0


def smallest_batch(net: Structure, purpose: str = "train") -> int:
    """Batch statistics of one value say nothing, so where vectors are normalised by them, two samples are the least."""
    normalised = net.graph.records[net.graph.records["op"] == Op.BATCHNORM]
    alone = any(sides_of(int(record["size"])).positions == 1 for record in normalised)
    return 2 if purpose == "train" and alone else 1


def planner(
    net: Structure, run: Recipe, purpose: str = "train", samples: int = 1, latency: Latency | None = None
) -> Planner:
    """Plans of this net under a recipe, for `train` on so many samples or for `infer`. Without a `latency` of another
    board they are for this machine.

    Raises:
        UsageError: another purpose, or no samples.
    """
    if samples < 1:
        raise UsageError(f"a plan is for 1 sample or more, not {samples}")
    if purpose not in PURPOSES:
        raise UsageError(f"a plan is for {' or '.join(PURPOSES)}, not '{purpose}'")
    engine, trains = engines.load(run.backend), purpose == "train"
    learning = learning_graphs(net) if trains else [net.graph]

    def measure(batch: int, micro: int) -> tuple[int, float]:
        weighs = trains and run.class_weights != "none"
        weights = (1.0,) * net.graph.outputs if weighs else None  # their number is all that counts
        config = partial(config_of, net, run, batch, train=trains, keep=trains, micro=micro, class_weights=weights)
        stages = stages_of(net, run) if trains else ((0, ALL_GROUPS),)
        arena = max(engine.sizes(net.graph.records, config(groups=groups)).arena for groups in stages)
        if latency is not None:
            return arena, sum(map(latency.seconds, learning)) * (STEP if trains else 1)
        adaptive = trains and run.optimizer_record().moments > 0
        pace = seconds_per_mac(run.backend, trains, min(batch, _PROBE_BATCH), adaptive)
        return arena, pace * sum(graph.macs for graph in learning)

    feed = partial(feed_bytes, net, run) if trains else lambda batch: 0
    micro, disk = (run.micro, cache_bytes(net, run, samples)) if trains else (0, 0)
    heat = heat_on(latency)
    rest = net.flat.nbytes - net.weight_bytes if trains and net.slice else 0
    return Planner(net.weight_bytes, net.graph.macs, net.widths, measure, feed, micro, disk, samples, heat, rest)


def heat_on(latency: Latency | None) -> Callable[[], float | None]:
    """How hot the board is whose times these are: this machine, or one that is not at hand."""
    return Planner.temperature if isinstance(latency, Roofline) else temperature


def warn_unheld(budget: Budget | None, heat: Callable[[], float | None]) -> None:
    """Say where a limit of heat cannot be held."""
    if budget is not None and budget.temperature is not None and heat() is None:
        warnings.warn("the board's temperature cannot be read here, so that its limit is not held", stacklevel=3)


def feed_bytes(net: Structure, run: Recipe, batch: int) -> int:
    """Most that gathering, augmenting or validating a batch, or writing it to disk, takes outside the arena, were the
    samples float32."""
    writing = max((_writing_bytes(*shape, batch) for shape in cached_shapes(net, run).values()), default=0)
    if not (run.augment or run.validation):
        return writing
    samples = 4 * batch * net.input.features + augment.parse(run.augment).extra_bytes(net.sample_shape, 4, batch)
    return max(writing, samples + 48 * batch * net.graph.outputs)


def _writing_bytes(positions: int, channels: int, batch: int) -> int:
    """Outputs and their stored form, and the ranges, scales and shifts of channels."""
    return 6 * batch * positions * channels + 40 * channels
