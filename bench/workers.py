# SPDX-License-Identifier: Apache-2.0
"""Runs what is wanted, a few at a time, until nothing is; says how long it will still take."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from bench import process
from bench.runs import Bench, Result, Run


@dataclass
class Workers:
    """`wanted` is asked again after every run, since a result may bring new ones; `more` is the seconds of those that
    are to be expected beside it. A run that fails is reported, kept in `failed` and not tried again."""

    bench: Bench
    wanted: Callable[[], Iterable[Run]]
    more: Callable[[], float]
    jobs: int
    failed: dict[Run, str] = field(default_factory=dict)

    def missing(self) -> list[Run]:
        """Runs without a result."""
        return [run for run in self.wanted() if self.bench.result(run) is None]

    def seconds_left(self) -> float:
        """Of all that is missing, with all workers busy."""
        runs = [run for run in self.missing() if run not in self.failed]
        return (sum(map(self.bench.estimate, runs)) + self.more()) / self.jobs

    def work(self) -> None:
        """Until nothing that is wanted is missing, save what fails."""
        pool = ThreadPoolExecutor(self.jobs)
        try:
            self._work(pool)
        finally:
            process.stop_all()
            pool.shutdown(cancel_futures=True)

    def _work(self, pool: ThreadPoolExecutor) -> None:
        running: dict[Future[Result], Run] = {}
        while True:
            waiting = [r for r in self.missing() if r not in self.failed and r not in running.values()]
            for run in waiting[: self.jobs - len(running)]:
                running[pool.submit(self.bench.measure, run)] = run
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                self._finish(running.pop(future), future)

    def _finish(self, run: Run, future: Future[Result]) -> None:
        try:
            result = future.result()
        except process.MeasurementError as error:
            self.failed[run] = str(error)
            print(f"{run}: {error}", file=sys.stderr, flush=True)
            return
        self.bench.ledger.add(self.bench.key(run), result)
        shown = result.get("failed") or f"{result['accuracy']:.2f} %"
        left = duration(self.seconds_left())
        clock = time.strftime("%H:%M")
        print(f"{clock} {run}: {shown}, {duration(result['seconds'])}; {left} left", file=sys.stderr, flush=True)


def duration(seconds: float) -> str:
    """`2 h 05 min`, `12 min` or `40 s`."""
    minutes = round(seconds / 60)
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{minutes // 60} h {minutes % 60:02d} min" if minutes >= 60 else f"{minutes} min"
