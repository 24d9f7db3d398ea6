# SPDX-License-Identifier: Apache-2.0
"""A board without hardware: on a pseudo-terminal or a TCP port, as fast as a line of its rate, with the faults asked
for. It is the board's own code; only line, disk and power are not real.

Three threads, as a board has: bytes come in at the pace of the line, are worked on, and go out at that pace, so that
the line goes on while the board writes to its disk.
"""

from __future__ import annotations

import os
import queue
import select
import socket
import termios
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from edgelearn.flash.board import Board, Identity, Policy
from edgelearn.flash.endpoint import Endpoint
from edgelearn.flash.faults import Faults, FaultyDisk, FaultyProbe, Frames, PowerCut

PIECE = 2048
"""Bytes that a UART's driver hands over at once."""
IDLE = 0.05
"""Seconds after which a silent line lets the board look at its clock."""
KERNEL_LOG = b"[ %7.3f] edgelearn: model serves, nothing to report\r\n"
BOOT_LOG = b"\r\n[ %7.3f] Booting virtual board\r\n[ %7.3f] login: "
RATES = {getattr(termios, name): int(name[1:]) for name in dir(termios) if name[:1] == "B" and name[1:].isdigit()}


class Pacer:
    """Lets bytes through at a rate. Bytes that were waiting continue where the line was; a sleep that was too long is
    made up for, a pause is not."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._free = clock, 0.0

    def wait(self, count: int, baud: int, waited: bool) -> None:
        """Return when `count` bytes would be through; `waited`: the line was idle before them."""
        now = self._clock()
        self._free = (max(now, self._free) if waited else max(now - 0.1, self._free)) + count * 10 / baud
        if (left := self._free - now) > 0:
            time.sleep(left)


class Wire(ABC):
    """The board's end of a line: bytes in and out, and the rate of the other end where it has one."""

    name = ""

    @abstractmethod
    def read(self, timeout: float) -> bytes:
        """What is there, at most a piece of it; nothing after `timeout` seconds."""

    @abstractmethod
    def write(self, data: bytes) -> None:
        """All of it; nobody there is nobody who misses it."""

    def rate(self) -> int | None:
        """The rate at which the other end is set, if that means anything."""
        return None

    @abstractmethod
    def close(self) -> None:
        """End it."""


class Pty(Wire):
    """A pseudo-terminal; `name` is what a host opens. The rate that it sets can be seen: a wrong one is garbage."""

    def __init__(self, link: Path | None = None) -> None:
        self._master, self._slave = os.openpty()
        settings = termios.tcgetattr(self._slave)
        settings[0] = settings[1] = settings[3] = 0
        termios.tcsetattr(self._slave, termios.TCSANOW, settings)
        os.set_blocking(self._master, False)
        self.name, self._link = os.ttyname(self._slave), link
        if link is not None:
            with suppress(FileNotFoundError):
                if link.is_symlink():
                    link.unlink()
            link.symlink_to(self.name)
            self.name = str(link)

    def read(self, timeout: float) -> bytes:
        """What the host wrote."""
        if not select.select([self._master], [], [], timeout)[0]:
            return b""
        with suppress(BlockingIOError):
            return os.read(self._master, PIECE)
        return b""

    def write(self, data: bytes) -> None:
        """To the host; what it does not read is lost after a while, as on a line without flow control."""
        view = memoryview(data)
        while view:
            if not select.select([], [self._master], [], 0.2)[1]:
                return
            with suppress(BlockingIOError):
                view = view[os.write(self._master, view) :]

    def rate(self) -> int | None:
        """What the host set."""
        return RATES.get(termios.tcgetattr(self._master)[5])

    def close(self) -> None:
        """Hang up."""
        for handle in (self._master, self._slave):
            with suppress(OSError):
                os.close(handle)
        if self._link is not None:
            with suppress(FileNotFoundError):
                self._link.unlink()


class Tcp(Wire):
    """A port on this machine; one host at a time, and the next one when that has gone."""

    def __init__(self, port: int = 0) -> None:
        self._listener = socket.create_server(("127.0.0.1", port))
        self._listener.settimeout(0.0)
        self.name = f"socket://127.0.0.1:{self._listener.getsockname()[1]}"
        self._host: socket.socket | None = None

    def read(self, timeout: float) -> bytes:
        """What the host sent."""
        if self._host is None:
            if select.select([self._listener], [], [], timeout)[0]:
                self._host = self._listener.accept()[0]
                self._host.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return b""
        if not select.select([self._host], [], [], timeout)[0]:
            return b""
        with suppress(OSError):
            if data := self._host.recv(PIECE):
                return data
        self._host.close()
        self._host = None
        return b""

    def write(self, data: bytes) -> None:
        """To the host, if there is one."""
        with suppress(OSError):
            if self._host is not None:
                self._host.settimeout(1.0)
                self._host.sendall(data)

    def close(self) -> None:
        """Hang up and listen no more."""
        for end in (self._host, self._listener):
            if end is not None:
                end.close()


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
            self._in.put(data if not data or self._same_rate() else _garbage(data))

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
