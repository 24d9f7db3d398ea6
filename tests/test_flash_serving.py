# SPDX-License-Identifier: Apache-2.0
"""A board on a real serial port, as far as a pseudo-terminal is one, and `edgelearnd --serial`."""

import os
import select
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from flashing import digest, model, new_key, noise, write

from edgelearn.errors import TrustError
from edgelearn.flash.board import Board, Identity, Policy
from edgelearn.flash.host import Remote
from edgelearn.flash.link import open_link
from edgelearn.flash.serving import SerialBoard
from edgelearn.flash.session import Options

GOLDEN = Path(__file__).parent / "golden" / "v1" / "classifier.safetensors"


class Master:
    """The host's end of a cable whose other end is a port of the board."""

    name, baud, has_baud = "master", 115_200, False

    def __init__(self):
        self.handle, slave = os.openpty()
        self.port = os.ttyname(slave)
        self.slave = slave  # held, so that the line does not hang up before the board opens it

    def read(self, timeout):
        if select.select([self.handle], [], [], timeout)[0]:
            return os.read(self.handle, 4096)
        return b""

    def write(self, data):
        while data:
            data = data[os.write(self.handle, data) :]

    def set_baud(self, baud):
        assert baud == self.baud

    def close(self):
        os.close(self.handle)
        os.close(self.slave)


@pytest.fixture
def cable():
    made = Master()
    yield made
    made.close()


def test_a_board_on_a_port_is_written_and_restarts(tmp_path, cable):
    told = []
    board = Board(tmp_path, Identity(), Policy(unsigned=True))
    serving = SerialBoard(board, lambda: open_link(cable.port, 115_200), told.append)
    serving.start()
    host = Remote(cable, Options())
    host.hello()
    data = noise(50_000)
    host.prepare_line(0)
    assert host.client.framing == "cobs"
    write(host, data)
    host.try_out("model", digest(data), 5)
    assert host.state("model")["slots"][1]["confirmed"]
    serving.stop()
    assert told == []


def test_a_flashed_model_answers_in_the_daemon(tmp_path, cable):
    pytest.importorskip("h11")
    key, public = new_key(tmp_path)
    keys = tmp_path / "data" / "flash" / "keys"
    keys.mkdir(parents=True)
    public.rename(keys / "mine.pub")
    command = [sys.executable, "-m", "edgelearn.cli.daemon", "--data-dir", tmp_path / "data", "--serial", cable.port]
    daemon = subprocess.Popen([*command, "--listen", f"unix:{tmp_path}/s"], stderr=subprocess.PIPE, text=True)
    try:
        host = Remote(cable, Options(attempts=30))
        host.hello(60)
        with pytest.raises(TrustError, match="not signed"):
            write(host, model(100))
        data = GOLDEN.read_bytes()
        write(host, data, key=key)
        host.try_out("model", digest(data), 30)
        state = host.state("model")
        assert state["slots"][state["running"]]["confirmed"]
        junk = model(500)
        write(host, junk, key=key, version=2)
        with pytest.raises(Exception, match="went back by itself"):
            host.try_out("model", digest(junk), 30)
        live = (tmp_path / "data" / "models" / "current.json").read_text()
        assert digest(data) in live
    finally:
        daemon.terminate()
        said = daemon.communicate(timeout=120)[1]
    assert "elflash is answered on" in said


def test_a_board_that_is_hot_or_short_of_power_takes_nothing_now():
    pytest.importorskip("h11")
    from edgelearn.cli.daemon_serial import busy
    from edgelearn.daemon.board import Reading

    def of(**reading):
        governor = SimpleNamespace(govern=SimpleNamespace(temperature=80.0))
        return busy(SimpleNamespace(jobs=SimpleNamespace(reading=Reading(**reading), governor=governor)))

    assert of() == of(temperature=79.9, throttled=0x50000) == ""
    assert "84 degrees are too hot" in of(temperature=84.2)
    assert "under-voltage" in of(throttled=0x50005)
