# SPDX-License-Identifier: Apache-2.0
"""Real daemons in processes of their own, small models for them, and raw requests."""

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path

import numpy as np
from striking import DAEMON

import edgelearn as el
from edgelearn.client import Client
from edgelearn.errors import DaemonError

SHAPE, CLASSES = (4, 4, 1), ["calm", "mid", "wild"]


def pictures(n=240, seed=0):
    """Pictures (n, 4, 4, 1) uint8 that are dark, grey or bright, and the names of that."""
    rng = np.random.default_rng(seed)
    y = np.arange(n) % 3
    x = np.clip(rng.normal(50 + 70 * y[:, None], 20, (n, 16)), 0, 255).astype(np.uint8).reshape(n, *SHAPE)
    return x, np.array(CLASSES)[y]


def model(path, seed=0, epochs=2):
    """A trained model file."""
    net = el.Net([el.Dense(8, "relu"), el.Dense(3)], input_shape=SHAPE, seed=seed)
    net.fit(*pictures(seed=seed), epochs=epochs, lr=0.01, optimizer="adam", rule="tp-ce", seed=seed)
    net.save(path)
    return path


def beginner(path):
    """A model that has learned nothing yet."""
    read = el.Input(shape=SHAPE, scale=255)
    net = el.Net([el.Dense(16, "relu"), el.Dense(3)], input=read, classes=CLASSES, train={"rule": "tp-ce", "lr": 0.05})
    net.save(path)
    return path


class Running:
    """A daemon: its process, a client, and addresses."""

    def __init__(self, folder, process, log, begun):
        self.folder, self.process, self.log = folder, process, log
        self._begun = begun
        self.client = Client(f"unix:{folder}/api.sock")

    @property
    def token(self):
        return (self.folder / "token").read_text()

    @cached_property
    def tcp(self):
        address = next(a for a in self.client.status()["addresses"] if not a.startswith("unix:"))
        host, _, port = address.rpartition(":")
        return host, int(port)

    @property
    def memory(self):
        """Resident kilobytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0])

    def said(self):
        """What this process logged, not those before it."""
        return self.log.read_bytes()[self._begun :].decode()

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def ask(self, method, path, body=None, headers=None, token=True):
        """Status, headers and content of a request over TCP."""
        connection = http.client.HTTPConnection(*self.tcp, timeout=120)
        given = {"Authorization": f"Bearer {self.token}"} if token else {}
        if isinstance(body, (dict, list)):
            body, given["Content-Type"] = json.dumps(body), "application/json"
        connection.request(method, path, body, {**given, **(headers or {})})
        response = connection.getresponse()
        content = response.read()
        connection.close()
        return response.status, response.headers, content

    def json(self, *arguments, **named):
        status, _, content = self.ask(*arguments, **named)
        return status, json.loads(content)

    def raw(self, content, wait=60.0, unix=False):
        """All that the daemon answers to these bytes until it closes, or says nothing for a while."""
        with socket.socket(socket.AF_UNIX) if unix else socket.create_connection(self.tcp) as line:
            if unix:
                line.connect(str(self.folder / "api.sock"))
            line.settimeout(wait)
            line.sendall(content)
            said = b""
            try:
                while part := line.recv(65536):
                    said += part
            except TimeoutError:
                pass
            return said


def started(arguments, log, surroundings, prefix=()):
    """A process of its own from the start."""
    command = [*prefix, sys.executable, "-m", DAEMON, *arguments]
    with log.open("ab") as stream:
        return subprocess.Popen([str(part) for part in command], stderr=stream, env=surroundings)


@contextmanager
def daemon(folder, *arguments, config="", tcp=True, wait=True, environment=None, start=started):
    """A daemon on a unix socket and, unless told otherwise, on TCP; ended with the block."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if config:
        (folder / "config.toml").write_text(config)
    listen = ["--listen", f"unix:{folder}/api.sock", *(["--listen", "127.0.0.1:0"] if tcp else [])]
    log = folder / "log"
    log.touch()
    begun = log.stat().st_size
    surroundings = {**os.environ, "PYTHONWARNINGS": "error", **(environment or {})}
    process = start(["--data-dir", folder, *listen, *arguments], log, surroundings)
    running = Running(folder, process, log, begun)
    try:
        if wait:
            until(lambda: "listening on unix" in running.said() or process.poll() is not None)
            assert process.poll() is None, running.said()
        yield running
    finally:
        running.client.close()
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(120)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(f"the daemon did not end: {running.said()}") from None


def until(holds, seconds=120.0, every=0.02):
    """Wait until something holds: far longer than a machine that is busy may take."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := holds():
                return found
        except DaemonError:
            pass
        time.sleep(every)
    raise AssertionError(f"this did not come to hold within {seconds} s: {holds()}")
