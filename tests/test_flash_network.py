# SPDX-License-Identifier: Apache-2.0
"""Lines that lead over a network to a port of another machine: `rfc2217://`, served by pyserial's own port manager, and
`socket://`, bytes as they are."""

import socket
import threading
from contextlib import contextmanager, suppress
from types import SimpleNamespace

import pytest
from elflash_commands import ok
from flashing import digest, noise, remote, stored, virtual, write

serial = pytest.importorskip("serial")
from serial.rfc2217 import PortManager  # noqa: E402 - of a package that may be missing

from edgelearn.errors import LinkError, NoBoardError  # noqa: E402
from edgelearn.flash.link import open_link  # noqa: E402

pytestmark = [  # of pyserial 3.5, which also leaves sockets open whose other end has gone
    pytest.mark.filterwarnings("ignore:set(Daemon|Name)"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
DATA = noise(120_000)


class Port(serial.Serial):
    """A pseudo-terminal as a port: it has no lines of a modem, which the port manager asks for."""

    cts = dsr = ri = cd = False

    def _update_dtr_state(self):
        pass

    def _update_rts_state(self):
        pass


class Server:
    """One port on a TCP port, for one client after the other; `rates` are those that clients set."""

    def __init__(self, port, rfc2217):
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._port = Port(port, 115_200, timeout=0.02)
        self._rfc2217, self._client, self._ended = rfc2217, None, threading.Event()
        self.rates = []
        self.url = f"{'rfc2217' if rfc2217 else 'socket'}://127.0.0.1:{self._listener.getsockname()[1]}"
        self._threads = [threading.Thread(target=self._serve), threading.Thread(target=self._answer)]

    def write(self, data):
        """What the port manager has to say to the client."""
        self._client.sendall(data)

    def _serve(self):
        while not self._ended.is_set():
            try:
                self._client = self._listener.accept()[0]
            except OSError:  # it was closed
                return
            self._manager = PortManager(self._port, self) if self._rfc2217 else None
            while data := self._received():
                self._port.write(b"".join(self._manager.filter(data)) if self._manager else data)
                if self._port.baudrate not in self.rates[-1:]:
                    self.rates.append(self._port.baudrate)
            self._client.close()

    def _received(self):
        try:
            return self._client.recv(4096)
        except OSError:
            return b""

    def _answer(self):
        while not self._ended.is_set():
            if data := self._port.read(self._port.in_waiting or 1):
                try:
                    self._client.sendall(b"".join(self._manager.escape(data)) if self._manager else data)
                except OSError:
                    continue  # that client has gone

    def hang_up(self):
        """Cut the client off."""
        self._client.shutdown(socket.SHUT_RDWR)

    @contextmanager
    def running(self):
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._ended.set()
            with suppress(AttributeError, OSError):  # nobody was there, or has gone
                self.hang_up()
            self._listener.shutdown(socket.SHUT_RDWR)
            self._listener.close()
            for thread in self._threads:
                thread.join(10)
                assert not thread.is_alive()
            self._port.close()


@contextmanager
def served(folder, rfc2217):
    """A virtual board on a port that is served over TCP, and the server."""
    with virtual(folder) as board, Server(board.wire.name, rfc2217).running() as server:
        yield board, server


@pytest.mark.parametrize("rfc2217", [True, False], ids=["rfc2217", "socket"])
def test_a_file_arrives_over_the_network_and_a_lost_connection_is_taken_up_again(tmp_path, rfc2217):
    cut = []

    def told(done, total):
        if done > total / 2 and not cut:
            cut.append(done)
            server.hang_up()

    with served(tmp_path, rfc2217) as (board, server):
        far = SimpleNamespace(wire=SimpleNamespace(name=server.url), identity=board.identity)
        with remote(far, baud=115_200, patience=30) as host:
            assert host.client.link.has_baud == rfc2217
            host.prepare_line(len(DATA))
            done = write(host, DATA, told=told)
            assert (done.state, bool(cut)) == ("written", True)
            host.try_out("model", digest(DATA), 10)
        assert stored(board) == [DATA]
        assert bool([rate for rate in server.rates if rate > 115_200]) == rfc2217


def test_the_command_takes_both(tmp_path):
    for rfc2217 in (True, False):
        with served(tmp_path / str(rfc2217), rfc2217) as (_, server):
            assert f"virtual on {server.url}" in ok("-p", server.url, "info", cwd=tmp_path).stdout


def test_a_server_that_is_not_there_or_goes():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        link = open_link(f"socket://127.0.0.1:{port}", 115_200)
        listener.accept()[0].close()
    with pytest.raises(LinkError, match="same command again"):
        link.read(1.0)
    for scheme in ("socket", "rfc2217"):
        with pytest.raises(NoBoardError, match="nobody listens there"):
            open_link(f"{scheme}://127.0.0.1:{port}", 115_200)
