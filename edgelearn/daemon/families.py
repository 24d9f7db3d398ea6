# SPDX-License-Identifier: Apache-2.0
"""What Prometheus is told of a daemon."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from edgelearn.daemon.governor import CAUSES
from edgelearn.daemon.metrics import family
from edgelearn.daemon.versions import short

if TYPE_CHECKING:
    from edgelearn.daemon.app import Daemon

STATES = ("idle", "collecting", "training", "validating", "shadow", "live", "paused", "failed")
"""What a daemon may be doing."""


def families(daemon: Daemon) -> Iterable[str]:
    """All of them, line by line."""
    yield from daemon.serving.times.lines("edgelearn_answer_seconds", "Time that predictions took.")
    yield from _answers(daemon)
    yield from _samples(daemon)
    yield from _training(daemon)
    yield from _board(daemon)


def _answers(daemon: Daemon) -> Iterable[str]:
    live = daemon.serving.live
    label = {short(live.version): 1.0} if live else {}
    yield from family("edgelearn_requests_total", "counter", "Requests by route.", daemon.requests, "route")
    yield from family("edgelearn_predictions_total", "counter", "Samples predicted.", daemon.serving.answers)
    yield from family("edgelearn_connections", "gauge", "Open connections.", daemon.server.connections)
    yield from family("edgelearn_live_version", "gauge", "The version that answers.", label, "version")


def _samples(daemon: Daemon) -> Iterable[str]:
    counts = {name or "": float(count) for name, count in dict(daemon.samples.counts).items()}
    yield from family("edgelearn_samples", "gauge", "Samples stored by label.", counts, "label")
    yield from family("edgelearn_sample_bytes", "gauge", "Bytes of samples.", daemon.samples.bytes)
    yield from family("edgelearn_events_total", "counter", "Events by kind.", daemon.events.counts, "kind")
    yield from family("edgelearn_disk_free_bytes", "gauge", "Free space.", daemon.free_bytes)


def _training(daemon: Daemon) -> Iterable[str]:
    jobs, now = daemon.jobs, daemon.state()[0]
    states = {state: float(state == now) for state in STATES}
    trainer = jobs.trainer.bytes if jobs.trainer else 0
    yield from family("edgelearn_state", "gauge", "What goes on.", states, "state")
    yield from family(
        "edgelearn_job_done", "gauge", "Share of the latest job.", jobs.current.done if jobs.current else 0
    )
    decision = jobs.governor.decision
    held = {cause: float(cause == decision.cause) for cause in CAUSES}
    yield from family("edgelearn_duty", "gauge", "Share of time for training.", decision.duty)
    yield from family("edgelearn_held", "gauge", "What holds training back.", held, "cause")
    yield from family("edgelearn_trainer_bytes", "gauge", "Memory of the training process.", trainer)


def _board(daemon: Daemon) -> Iterable[str]:
    """What the board can measure."""
    board = daemon.jobs.reading
    if board.temperature is not None:
        yield from family("edgelearn_temperature_celsius", "gauge", "Hottest zone.", board.temperature)
    if board.throttled is not None:
        yield from family("edgelearn_throttled", "gauge", "Throttling word.", board.throttled)
