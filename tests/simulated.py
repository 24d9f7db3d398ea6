# SPDX-License-Identifier: Apache-2.0
"""A board at the end of a line, in one thread and on a clock of its own, so that hours of a bad line take no time: the
host's code and the board's code, with the pace, the faults and the power cuts of a virtual board."""

from collections import deque
from types import SimpleNamespace

from edgelearn.flash import baud, client, faults, host, session, upload
from edgelearn.flash.board import Board, Identity, Policy
from edgelearn.flash.endpoint import Endpoint
from edgelearn.flash.faults import FaultyDisk, FaultyProbe, Frames, PowerCut
from edgelearn.flash.virtual import BOOT_LOG, IDLE, KERNEL_LOG, _garbage

TIMED = (baud, client, faults, host, session, upload)
"""Modules that look at a clock or sleep."""


class Simulated:
    """A Link. `now` is the time there in seconds, `cuts` how often the power went, `struck` how many frames were.
    `spoils` is asked for everything that travels whether it arrives as garbage: the line, whether it goes to the board,
    its rate, its bytes."""

    name, has_baud = "simulated", True

    def __init__(self, folder, struck, seed, monkeypatch, identity=None):
        self.now, self.cuts, self.baud = 0.0, 0, 115_200
        self.folder, self.faults, self.identity = folder, struck, identity or Identity()
        self.disk = FaultyDisk(struck, seed + 2)
        self._strikes = (Frames(struck, seed), Frames(struck, seed + 1))
        self._waiting = deque()
        self.spoils = lambda line, to_board, baud, data: False
        clock = SimpleNamespace(monotonic=lambda: self.now, sleep=self._pass)
        for module in TIMED:
            monkeypatch.setattr(module, "time", clock)
        self._start()

    @property
    def struck(self):
        return sum(strikes.struck for strikes in self._strikes)

    def _start(self):
        while True:
            self.disk.power_on()
            runner = FaultyProbe(self.faults)
            board = Board(self.folder, self.identity, Policy(unsigned=True), runner, disk=self.disk, clock=self._clock)
            try:
                board.boot()
            except PowerCut:
                self.cuts += 1
                continue
            self.endpoint = Endpoint(board, self._clock)
            self._waiting.append((self.endpoint.baud, BOOT_LOG % (self.now, self.now)))
            return

    def _clock(self):
        return self.now

    def _pass(self, seconds):
        self.now += seconds

    def _powered(self, work):
        """Have the board do something; it starts again if the power goes meanwhile, or if that was asked for."""
        try:
            work()
        except PowerCut:
            self.cuts += 1
            self._start()
        if self.endpoint.board.restarting:
            self._start()

    def write(self, data):
        """What the board hears, at the pace of the line, and what it says to that."""
        self._pass(len(data) * 10 / self.baud)
        same = self.baud == self.endpoint.baud
        heard = _garbage(data) if not same or self.spoils(self, True, self.baud, data) else data
        self._powered(lambda: self._serve(heard))

    def _serve(self, heard):
        self.endpoint.tick(idle=False)
        rate = self.endpoint.baud  # an answer leaves at the rate that it came for
        for answer in self.endpoint.feed(self._strikes[0].pass_on(heard)):
            noisy = self.faults.noise > self._strikes[0].chance() if self.faults.noise else False
            text = KERNEL_LOG % self.now if noisy else b""
            self._waiting.append((rate, self._strikes[1].pass_on(text + answer)))
            rate = self.endpoint.baud

    def read(self, timeout):
        """What the board said, or nothing after a while."""
        end = self.now + timeout
        while not self._waiting and self.now < end:
            self._pass(IDLE)
            self._powered(self.endpoint.tick)
        if not self._waiting:
            return b""
        rate, data = self._waiting.popleft()
        self._pass(len(data) * 10 / rate)
        return _garbage(data) if rate != self.baud or self.spoils(self, False, rate, data) else data

    def set_baud(self, baud):
        self.baud = baud

    def close(self):
        pass
