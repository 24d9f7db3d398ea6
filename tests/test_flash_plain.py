# SPDX-License-Identifier: Apache-2.0
"""Our host against boards of plain SMP in golden wires: Zephyr's encoding, and what real boards put on their lines."""

import json
from pathlib import Path

import pytest
from flashing import digest, noise

from edgelearn.errors import MismatchError, NothingToDoError, RefusedError
from edgelearn.flash import smp
from edgelearn.flash.client import Client, NotSupportedError
from edgelearn.flash.framing import ConsoleDecoder, encode_console
from edgelearn.flash.host import Remote
from edgelearn.flash.plain import STUCK, Plain
from edgelearn.flash.smp import Group, Img, Op, Os

FILES = {"wires.json": "", "recorded.json": "", "zephyr.json": "zephyr: "}
WIRES = {
    prefix + wire["name"]: bytes.fromhex(wire["wire"])
    for name, prefix in FILES.items()
    for wire in json.loads((Path(__file__).parent / "golden" / "smp" / name).read_text())["wires"]
}


class Recorded:
    """A board: what it said to each request, as it was on the line. Other requests get no answer."""

    name, baud, has_baud = "recorded", 115_200, False

    def __init__(self, *pairs, echoes=False):
        self.pairs, self.waiting, self.asked, self.echoes = list(pairs), b"", [], echoes

    def write(self, data):
        (found,) = ConsoleDecoder().feed(data)
        request = smp.decode(found)
        self.asked.append(request)
        self.waiting += data + b"\r" if self.echoes else b""
        said = [smp.decode(next(ConsoleDecoder().feed(WIRES[name]))) for name in self.pairs]
        for answer in said:
            if (answer.op, answer.group, answer.command) == (request.op + 1, request.group, request.command):
                # The record with the number of this conversation in it: all other bytes are as they were.
                raw = next(ConsoleDecoder().feed(WIRES[self.pairs.pop(said.index(answer))]))
                self.waiting += b"*** Booting Zephyr OS ***\r\n" + encode_console(
                    raw[:6] + bytes([request.sequence]) + raw[7:]
                )
                return
        if request.group == Group.EDGELEARN:
            self.waiting += encode_console(smp.encode(request.refusal(8)))

    def read(self, timeout):
        data, self.waiting = self.waiting, b""
        return data

    def set_baud(self, baud):
        raise AssertionError(baud)

    def close(self):
        pass


def test_our_host_lists_and_writes_a_zephyr_board():
    link = Recorded("params", "upload ends", "set for test", "reset accepted", "image state")
    plain = Plain(Client(link))
    data = bytes(range(256))
    told = []
    plain.upload(data, 0, lambda done, total: told.append((done, total)))
    assert told == [(256, 256)]
    sent = next(m for m in link.asked if m.command == Img.UPLOAD)
    first = smp.decode(next(ConsoleDecoder().feed(WIRES["first chunk, in several lines"])))
    assert {key: sent.body[key] for key in ("off", "len", "sha", "image")} == {
        key: first.body[key] for key in ("off", "len", "sha", "image")
    }
    assert sent.body["data"] == data  # in one piece: its buffer is 2,475 bytes
    plain.test(bytes.fromhex(digest(data)))
    plain.reset()
    (row,) = plain.slots()
    assert (row["version"], row["active"], row["confirmed"]) == ("1.2.0", True, True)
    with pytest.raises(NothingToDoError, match="no slot holds anything to test"):
        Plain(Client(Recorded("image state"))).newest()


def test_refusals_of_a_zephyr_board_are_errors_here():
    link = Recorded("params", "refusal of version 2")
    with pytest.raises(RefusedError, match="group 1, code 14"):
        Plain(Client(link)).upload(noise(100), 5, lambda done, total: None)
    with pytest.raises(NotSupportedError, match="does not know"):
        Client(Recorded("refusal of version 1")).request(Op.WRITE, Group.OS, Os.ECHO, {"d": "v1"})


def zephyr(*names):
    """Our host against answers as Zephyr's sources have them, in this order."""
    return Plain(Client(Recorded(*(f"zephyr: {name}" for name in names))))


def flags(plain):
    names = ("pending", "confirmed", "active", "permanent")
    return [[name for name in names if row[name]] for row in plain.slots()]


def test_a_whole_session_as_zephyrs_sources_have_it():
    """Who is there, upload over two answers, test, restart, look, confirm, erase: each verb with each field."""
    plain = zephyr("os info", "bootloader", "params", "upload: goes on", "upload: ends", "state: second set for test")
    assert plain.info() == {
        "output": "Zephyr unknown v4.2.0 4.2.0 arm cortex-m4 nrf52840dk Zephyr",
        "bootloader": "MCUboot",
        "buf_size": 384,
        "buf_count": 4,
    }
    data, told = bytes(range(256)), []
    plain._client.link.pairs.append("zephyr: params")
    plain.upload(data, 0, lambda done, total: told.append(done))
    assert told == [200, 256]
    first, second = [m.body for m in plain._client.link.asked if m.command == Img.UPLOAD and m.group == Group.IMAGE]
    assert (first["off"], second["off"], second["data"]) == (0, 200, data[200:])
    plain.test(bytes.fromhex(digest(data)))
    later = zephyr("reset", "state: on trial", "state: confirmed", "state: one image", "erase: done")
    later.reset()
    assert flags(later) == [["active"], ["confirmed"]]
    later.confirm()
    assert flags(later) == [["confirmed", "active"]]
    later.erase()
    assert later._client.link.asked[-1].body == {}  # the board knows which slot does not run


def test_what_zephyr_says_of_slots_that_wait():
    assert flags(zephyr("state: set for good")) == [["confirmed", "active"], ["pending", "permanent"]]
    assert zephyr("state: set for good").newest().hex().startswith("40aff2e9")
    two = zephyr("state: two images", "state: two images")
    assert [(row["image"], row["slot"], row["version"]) for row in two.slots()] == [(0, 0, "1.2.0"), (1, 0, "0.9.1")]
    with pytest.raises(NothingToDoError):
        two.newest(1)


REFUSALS = {
    "state: hash not found": (lambda plain: plain.test(bytes(32)), "group 1, code 8"),
    "state: already pending": (lambda plain: plain.test(bytes(32)), "group 1, code 28"),
    "state: already pending, version 1": (lambda plain: plain.confirm(), "code 6"),
    "erase: in use": (lambda plain: plain.erase(0), "group 1, code 9"),
    "reset refused by a hook": (lambda plain: plain.reset(), "code 10"),
    "upload: too large": (lambda plain: plain.upload(bytes(100), 0, print), "group 1, code 30"),
    "upload: downgrade": (lambda plain: plain.upload(bytes(100), 0, print), "group 1, code 27"),
    "upload: refused with a reason, version 1": (lambda plain: plain.upload(bytes(100), 0, print), "fa write fail"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_refusals_as_zephyrs_sources_have_them(name):
    ask, said = REFUSALS[name]
    with pytest.raises(RefusedError, match=said):
        ask(zephyr("params", name))


def test_the_ends_of_an_upload_to_zephyr():
    data = bytes(range(256))
    for last, starts in (("upload: ends without a check", "upload: goes on, legacy"), ("upload: ends", "upload: ends")):
        told = []
        zephyr("params", starts, last).upload(data, 0, lambda done, total, told=told: told.append(done))
        assert told[-1] == 256  # or at once, where the slot has it already
    with pytest.raises(MismatchError, match="write it again"):
        zephyr("params", "upload: other bytes").upload(data, 0, print)


def test_what_a_board_does_not_answer_of_itself_is_left_out():
    assert zephyr("os info of an unknown format", "bootloader does not know", "params").info() == {
        "buf_size": 384,
        "buf_count": 4,
    }
    zephyr("erase: done, legacy").erase()


def test_hello_of_a_zephyr_board_is_empty():
    assert Remote(Recorded()).hello() == {}


def test_our_host_lists_a_mynewt_board_that_echoes_what_it_hears():
    """As published: the request comes back, a carriage return, then two lines of the answer."""
    (row,) = Plain(Client(Recorded("image list, answered", echoes=True))).slots()
    assert (row["version"], row["active"], row["confirmed"], row["pending"]) == ("0.3.0", True, True, False)
    assert row["hash"].hex().startswith("d24cb305")


def test_our_host_lists_a_zephyr_board_that_leaves_out_what_is_false():
    plain = Plain(Client(Recorded(*["image list of Zephyr that leaves out what is false"] * 2)))
    first, second = plain.slots()
    assert (first["active"], first["confirmed"], second.get("active", False)) == (True, True, False)
    assert plain.newest() == second["hash"]


def test_an_upload_that_a_board_does_not_get_on_with_ends():
    """Zephyr's issue 44219: offset 0 for ever; and MCUboot's answer without a map."""
    for answer, tries in (("upload answered by Zephyr", STUCK), ("answer of MCUboot without a map", 1)):
        link = Recorded("params", *[answer] * STUCK)
        with pytest.raises(RefusedError, match="no further than byte 0 of 100: look at its log"):
            Plain(Client(link)).upload(noise(100), 0, lambda done, total: None)
        assert len([message for message in link.asked if message.command == Img.UPLOAD]) == tries


def test_a_board_that_does_not_say_its_buffer_gets_small_pieces():
    class Old(Recorded):
        """It has no command for it."""

        def write(self, data):
            super().write(data)
            request = self.asked[-1]
            if request.command == Os.PARAMS:
                self.waiting += encode_console(smp.encode(request.refusal(8)))

    link = Old("upload ends")
    Plain(Client(link)).upload(bytes(range(256)), 0, lambda done, total: None)
    assert len(link.asked[-1].body["data"]) == 256 - 132
