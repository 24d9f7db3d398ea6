# SPDX-License-Identifier: Apache-2.0
"""A board without hardware: on a pseudo-terminal or a TCP port, as fast as a line of its rate, with the faults asked
for. It is the board's own code; only line, disk and power are not real.

Three threads, as a board has: bytes come in at the pace of the line, are worked on, and go out at that pace, so that
the line goes on while the board writes to its disk.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edgelearn.flash.board import Board, Identity, Policy
from edgelearn.flash.endpoint import Endpoint
from edgelearn.flash.faults import Faults, FaultyDisk, FaultyProbe, Frames, PowerCut
from edgelearn.flash.wires import PIECE, Pacer, Wire

IDLE = 0.05
"""Seconds after which a silent line lets the board look at its clock."""
KERNEL_LOG = b"[ %7.3f] edgelearn: model serves, nothing to report\r\n"
BOOT_LOG = b"\r\n[ %7.3f] Booting virtual board\r\n[ %7.3f] login: "


@dataclass
class Virtual:
    """A board on a wire. `latency` is how long an answer takes beside its bytes, `baud` None is as fast as it goes,
    `boot_seconds` what a start takes."""

    wire: Wire
    folder: Path
    identity: Identity = field(default_factory=Identity)
    policy: Policy = field(default_factory=Policy)
    faults: Faults = field(default_factory=Faults)
    paced: bool = True
    latency: float = 0.0
    boot_seconds: float = 0.2
    seed: int = 0
    told: Callable[[str], None] = lambda text: None

    def __post_init__(self) -> None:
        """Lay it out; nothing runs yet."""
        self._in: queue.Queue[bytes] = queue.Queue(64)
        self._out: queue.Queue[tuple[float, bytes, int]] = queue.Queue()
        self._stop = threading.Event()
        self._runner = FaultyProbe(self.faults)
        self._disk = FaultyDisk(self.faults, self.seed + 2)
        self.cuts = 0
        self._started = time.monotonic()
        self._strikes = (Frames(self.faults, self.seed), Frames(self.faults, self.seed + 1))
        self.endpoint = self._powered()
        self._runner.trust()
        self.baud = self.endpoint.baud

    def _powered(self) -> Endpoint:
        """The board as it comes up, at the second time if the power goes meanwhile."""
        while True:
            self._disk.power_on()
            board = Board(self.folder, self.identity, self.policy, self._runner, disk=self._disk)
            try:
                board.boot()
                return Endpoint(board)
            except PowerCut:
                self._lost_power()

    def _lost_power(self) -> None:
        self.cuts += 1
        self.told(f"power cut at operation {self.faults.cut} of the disk, starting again")

    def run(self) -> None:
        """Serve until `stop`."""
        threads = [threading.Thread(target=work, daemon=True) for work in (self._receive, self._transmit)]
        for thread in threads:
            thread.start()
        try:
            self._work()
        finally:
            self._stop.set()
            for thread in threads:
                thread.join()
            self.wire.close()
            with suppress(PowerCut):
                self.endpoint.tick()  # what has arrived is made durable

    def stop(self) -> None:
        """End `run`."""
        self._stop.set()

    def _receive(self) -> None:
        """Bytes from the line, at its pace; at another rate than the board's they are garbage."""
        pacer = Pacer()
        while not self._stop.is_set():
            try:
                data = self.wire.read(0.0)
                if idle := not data:
                    data = self.wire.read(IDLE)
            except (OSError, ValueError):
                return
            if self.paced and data:
                pacer.wait(len(data), self.baud, idle)
            self._hand_in(data if not data or self._same_rate() else _garbage(data))

    def _hand_in(self, data: bytes) -> None:
        """For the board to work on, which may be busy for long, or end meanwhile."""
        while True:
            with suppress(queue.Full):
                return self._in.put(data, timeout=IDLE)
            if self._stop.is_set():
                return None

    def _same_rate(self) -> bool:
        theirs = self.wire.rate()
        return theirs is None or theirs == self.baud

    def _transmit(self) -> None:
        """Answers to the line, at its pace."""
        pacer = Pacer()
        while not self._stop.is_set():
            with suppress(queue.Empty):
                due, data, after = self._out.get(timeout=IDLE)
                time.sleep(max(0.0, due - time.monotonic()))
                for at in range(0, len(data), PIECE):
                    if self.paced:
                        pacer.wait(len(data[at : at + PIECE]), self.baud, waited=not at)
                    self.wire.write(data[at : at + PIECE])
                self.baud = after  # an answer leaves at the rate that it came for
                self._out.task_done()

    def _work(self) -> None:
        while not self._stop.is_set():
            data = self._in.get()
            try:
                self._serve(data)
            except PowerCut:
                self._lost_power()
                self._restart()

    def _serve(self, data: bytes) -> None:
        before = self.endpoint.baud
        self.endpoint.tick(idle=not data)
        if self.endpoint.baud != before:
            self.baud = self.endpoint.baud
        for answer in self.endpoint.feed(self._strikes[0].pass_on(data)):
            self._send(answer)
        if self.endpoint.board.restarting:
            self._restart()

    def _send(self, answer: bytes) -> None:
        """Put an answer on the line, a line of the kernel's log before it if that is asked for."""
        if self._noise():
            answer = KERNEL_LOG % (time.monotonic() - self._started) + answer
        struck = self._strikes[1].pass_on(answer)
        self._out.put((time.monotonic() + self.latency, struck, self.endpoint.baud))

    def _sent_all(self) -> None:
        """Wait until the last answer is out."""
        while self._out.unfinished_tasks and not self._stop.is_set():
            time.sleep(0.001)

    def _noise(self) -> bool:
        return self.faults.noise > 0 and self._strikes[0].chance() < self.faults.noise

    def _restart(self) -> None:
        """Off and on: what is on the way is gone, the console says hello."""
        self._sent_all()
        self.baud = self.identity.baud
        time.sleep(self.boot_seconds)
        with suppress(queue.Empty):
            while True:
                self._in.get_nowait()
        now = time.monotonic() - self._started
        self.endpoint = self._powered()
        self._out.put((0.0, BOOT_LOG % (now, now), self.endpoint.baud))
        self.told("the board started again")


def _garbage(data: bytes) -> bytes:
    """What a UART reads at another rate: not the bytes that were sent, and never a frame."""
    return bytes(byte ^ 0xA5 for byte in data[:: 2 if len(data) > 1 else 1])
