# SPDX-License-Identifier: Apache-2.0
"""What people see while files are read and a net trains: one moving line on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field, replace
from shutil import get_terminal_size
from typing import TextIO

from edgelearn.training.history import Moment
from edgelearn.training.validation import Score

_WIDTH = 24

_BLINK, _PATIENCE = 0.2, 10.0
"""Seconds between two words about reading: on a terminal, which keeps one line, and elsewhere."""


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}" if minutes else f"{rest} s"


def _held_out(score: Score | None) -> str:
    if score is None:
        return ""
    accuracy = "" if score.accuracy is None else f" accuracy {score.accuracy:.4f}"
    return f"  validation loss {score.loss:.4f}{accuracy}"


def describe(moment: Moment) -> str:
    """One line: stage, epoch, loss, accuracy, those on held-out samples, pace."""
    block = f"block {moment.stage + 1}/{moment.stages}  " if moment.stages > 1 else ""
    accuracy = "" if moment.accuracy is None else f"  accuracy {moment.accuracy:.4f}"
    return (
        f"{block}epoch {moment.epoch + 1}/{moment.epochs}  loss {moment.loss:.4f}{accuracy}"
        f"{_held_out(moment.validation)}  {moment.samples_per_s:,.0f} samples/s"
    )


@dataclass
class Progress:
    """A trainer callback that writes to `stream`: a bar with ETA on a terminal, a line per epoch elsewhere. The bar
    shows the last validation until there is another, and is cut to the terminal's width."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    _score: Score | None = field(default=None, init=False, repr=False)

    def __call__(self, moment: Moment) -> None:
        """Show one moment."""
        self._score = moment.validation or self._score
        if self.stream.isatty():
            self._draw(moment)
        elif moment.finished:
            print(describe(moment), file=self.stream, flush=True)

    def _draw(self, moment: Moment) -> None:
        full = int(_WIDTH * moment.done)
        bar = "#" * full + "." * (_WIDTH - full)
        over = moment.done >= 1 or moment.stops
        pace = f"in {_clock(moment.seconds)}" if over else f"ETA {_clock(moment.eta)}"
        line = f"[{bar}] {pace}  {describe(replace(moment, validation=self._score))}"
        self.stream.write(f"\r\033[K{line[: get_terminal_size().columns - 1]}" + ("\n" if over else ""))
        self.stream.flush()


@dataclass
class Reading:
    """Told how many of how many files are read, it writes that to `stream`; nothing if it takes no time."""

    stream: TextIO = field(default_factory=lambda: sys.stderr)
    last: float = field(default_factory=time.monotonic)

    def __call__(self, verb: str, done: int, total: int) -> None:
        """Show how far it is: `verb` says what happens to the files."""
        moving = self.stream.isatty()
        if time.monotonic() - self.last < (_BLINK if moving else _PATIENCE):
            return
        self.last = time.monotonic()
        # The carriage return comes last, so that whatever is printed next takes the line.
        self.stream.write(f"{verb} {done:,} of {total:,} files" + ("\033[K\r" if moving else "\n"))
        self.stream.flush()


@dataclass
class Counting:
    """Told how much of how much is done, it writes that to `stream`; nothing if it takes no time."""

    verb: str
    things: str
    stream: TextIO = field(default_factory=lambda: sys.stderr)
    last: float = field(default_factory=time.monotonic)

    def __call__(self, done: int, total: int) -> None:
        """Show how far it is."""
        moving = self.stream.isatty()
        if time.monotonic() - self.last < (_BLINK if moving else _PATIENCE):
            return
        self.last = time.monotonic()
        self.stream.write(f"{self.verb} {done:,} of {total:,} {self.things}" + ("\033[K\r" if moving else "\n"))
        self.stream.flush()
