# SPDX-License-Identifier: Apache-2.0
"""Virtual boards and payloads that tests share."""

import hashlib
import json
import threading
from contextlib import contextmanager

import numpy as np

from edgelearn.flash import keys
from edgelearn.flash.board import Board, Identity, Policy
from edgelearn.flash.bundle import signed
from edgelearn.flash.faults import Faults, read
from edgelearn.flash.host import Payload, Remote
from edgelearn.flash.link import open_link
from edgelearn.flash.manifest import Item, Manifest
from edgelearn.flash.session import Options
from edgelearn.flash.smp import El, Group, Message, Op
from edgelearn.flash.virtual import Virtual
from edgelearn.flash.wires import Pty, Tcp


def noise(size, seed=0):
    """Bytes that do not compress."""
    return np.random.default_rng(seed).bytes(size)


def model(size=3000, seed=0):
    """A safetensors file of about so many bytes."""
    header = json.dumps({"w": {"dtype": "U8", "shape": [size], "data_offsets": [0, size]}}).encode()
    return len(header).to_bytes(8, "little") + header + noise(size, seed)


def item(data, image="model", version=1):
    return Item(image, version, f"{image}.bin", len(data), hashlib.sha256(data).digest())


def digest(data):
    return hashlib.sha256(data).hexdigest()


def stored(board, image="model"):
    """The bytes that a slot of the board's disk holds."""
    return [path.read_bytes() for path in (board.folder / image / "versions").glob("*.bin")]


@contextmanager
def virtual(folder, faults="", tcp=False, paced=False, **settings):
    """A virtual board that runs; by default as fast as it can and without asking for signatures."""
    wire = Tcp() if tcp else Pty()
    settings.setdefault("policy", Policy(unsigned=True))
    settings.setdefault("boot_seconds", 0.0)
    faults = read(faults) if isinstance(faults, str) else faults
    board = Virtual(wire, folder, faults=faults or Faults(), paced=paced, **settings)
    thread = threading.Thread(target=board.run, daemon=True)
    thread.start()
    try:
        yield board
    finally:
        board.stop()
        thread.join(120)
        assert not thread.is_alive()


@contextmanager
def remote(board, baud=None, **options):
    """The host's side of it."""
    name, rate = board.wire.name, baud or board.identity.baud
    options.setdefault("connect", lambda: open_link(name, rate))
    host = Remote(open_link(name, rate), Options(**options))
    try:
        host.hello(5.0)  # a host that was killed may have left it at another rate
        yield host
    finally:
        host.client.link.close()


def write(host, data, image="model", version=1, key=None, packing="none", sent=None, **more):
    """Bring one payload to a board."""
    content = Manifest((item(data, image, version),))
    raw, signature = signed(content, key)
    payload = Payload(0, packing, data if sent is None else sent)
    more.setdefault("told", lambda done, total: None)
    return host.write(raw, signature, content, payload, **more)


class Direct:
    """A board without a line: requests are answered at once, as by a host that never loses anything."""

    def __init__(self, folder, disk=None, policy=None, **more):
        settings = {"disk": disk} if disk else {}
        self.board = Board(folder, Identity(arch="any"), policy or Policy(unsigned=True), **settings, **more)
        self.board.boot()

    def ask(self, op, command, body=None, group=Group.EDGELEARN):
        return self.board.answer(Message(op, group, command, 0, body or {})).body

    def write(self, data, image="model", version=1, chunk=1000, key=None, force=False):
        """All of a transfer; the answer to the last request, a refusal among them."""
        raw, signature = signed(Manifest((item(data, image, version),)), key)
        begin = {
            "manifest": raw,
            "signature": signature,
            "unsigned": True,
            "index": 0,
            "packing": "none",
            "force": force,
        }
        begun = self.ask(Op.WRITE, El.BEGIN, {**begin, "size": len(data), "sha256": hashlib.sha256(data).digest()})
        if begun.get("state") != "receiving":
            return begun
        off = begun["off"]
        while off < len(data):
            answer = self.chunk(begun["sid"], off, data[off : off + chunk])
            if "err" in answer:
                return answer
            off = answer["off"]
        return self.ask(Op.WRITE, El.VERIFY, {"sid": begun["sid"]}) | {"began": begun["off"]}

    def chunk(self, sid, off, data):
        import zlib

        return self.ask(Op.WRITE, El.CHUNK, {"sid": sid, "off": off, "crc": zlib.crc32(data), "data": data})

    def about(self, command, data, image="model", **more):
        return self.ask(Op.WRITE, command, {"image": image, "sha256": hashlib.sha256(data).digest(), **more})

    def confirm(self, data, image="model"):
        return self.about(El.CONFIRM, data, image, boot_id=self.board.boot_id)

    def install(self, data, image="model", version=1):
        """Written, tried and confirmed."""
        for answer in (self.write(data, image, version), self.about(El.ACTIVATE, data, image)):
            assert "err" not in answer, answer
        self.board.boot()
        answer = self.confirm(data, image)
        assert "err" not in answer, answer

    def live(self, image="model"):
        """The content that runs."""
        store = self.board.slots.stores[image]
        version = store.current()
        return None if version is None else store.read(version.id).read_bytes()


def new_key(folder, name="key"):
    """A private key, its public file."""
    public, _ = keys.generate(folder / f"{name}.pem")
    return keys.private_key(folder / f"{name}.pem"), public
