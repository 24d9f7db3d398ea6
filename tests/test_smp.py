# SPDX-License-Identifier: Apache-2.0
"""The codec against the packages cbor2, smp and smpclient, against golden wires, and against noise."""

import json
import tracemalloc
import zlib
from pathlib import Path

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st
from smp import packet
from smp.header import Header
from smpclient.transport.serial.framing.cobs import cobs_encode

from edgelearn.flash import cbor, framing, smp
from edgelearn.flash.framing import Broken, CobsDecoder, ConsoleDecoder, encode_cobs, encode_console
from edgelearn.flash.smp import Message, Op

GOLDEN = Path(__file__).parent / "golden" / "smp"
WIRES = json.loads((GOLDEN / "wires.json").read_text())["wires"]
RECORDED = json.loads((GOLDEN / "recorded.json").read_text())["wires"]
ZEPHYR = json.loads((GOLDEN / "zephyr.json").read_text())["wires"]

INTEGERS = st.integers(-(2**64), 2**64 - 1)
LEAVES = (
    st.none() | st.booleans() | INTEGERS | st.binary(max_size=300) | st.text(max_size=60) | st.floats(allow_nan=False)
)
VALUES = st.recursive(
    LEAVES, lambda v: st.lists(v, max_size=4) | st.dictionaries(st.text(max_size=9), v, max_size=4), max_leaves=20
)
BODIES = st.dictionaries(st.text(max_size=9), VALUES, max_size=4)
MESSAGES = st.builds(
    Message,
    st.sampled_from(Op),
    st.integers(0, 0xFFFF),
    st.integers(0, 255),
    st.integers(0, 255),
    BODIES,
    st.sampled_from((0, 1)),
)
CODECS = {"console": (encode_console, ConsoleDecoder), "cobs": (encode_cobs, CobsDecoder)}


def told(value):
    """A golden body: bytes are written as {"bytes": hex}."""
    if isinstance(value, dict):
        return bytes.fromhex(value["bytes"]) if set(value) == {"bytes"} else {k: told(v) for k, v in value.items()}
    return [told(item) for item in value] if isinstance(value, list) else value


@given(VALUES)
def test_cbor_reads_what_cbor2_writes_and_the_other_way_round(value):
    assert cbor.loads(cbor2.dumps(value)) == value
    assert cbor2.loads(cbor.dumps(value)) == value
    assert cbor.loads(cbor2.dumps(value, indefinite_containers=True)) == value


@given(st.binary(max_size=200))
def test_what_cbor_accepts_cbor2_reads_alike(data):
    try:
        mine = cbor.loads(data)
    except cbor.CborError:
        return
    theirs = cbor2.loads(data)
    if cbor2.undefined not in _flat(theirs):
        assert repr(mine) == repr(theirs)  # NaN is not equal to itself


def _flat(value):
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in _flat(item)]
    return [leaf for item in value for leaf in _flat(item)] if isinstance(value, list) else [value]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xa1",  # a map without its pair
        b"\xa1aa",  # a key without its value
        b"\xa2aa\x01aa\x02",  # a key twice
        b"\xa1\x80\x01",  # an array as a key
        b"\x9f\x01",  # no end
        b"\x81\xff",  # an end where an item was announced
        b"\xff",
        b"\x01\x02",  # bytes left over
        b"\x5b" + b"\xff" * 8,  # a string of 2**64 bytes
        b"\x9b" + b"\xff" * 8,  # an array of 2**64 items
        b"\x81" * 2000 + b"\x01",  # nested 2,000 times
        b"\x98\xff" + b"\x01" * 255 + b"\x01" * 100,
        b"\x99\x02\x00" + b"\x01" * 512,  # 512 items
        b"\xc0\x61a",  # a tag
        b"\x1c",  # a reserved length
        b"\xf8\x20",  # a simple value
        b"\x62\xff\xfe",  # no UTF-8
        b"\x5f\x61a\xff",  # text among the parts of bytes
        b"\x3f",
    ],
)
def test_cbor_that_is_damaged_or_too_large_is_an_error(data):
    with pytest.raises(cbor.CborError, match=": send"):
        cbor.loads(data)


@pytest.mark.parametrize("value", [{1, 2}, 2**64, -(2**64) - 1, object()])
def test_values_without_a_form_are_refused(value):
    with pytest.raises(cbor.CborError, match="send it as text"):
        cbor.dumps({"a": value})


@pytest.mark.parametrize("wire", [*WIRES, *RECORDED, *ZEPHYR], ids=lambda wire: wire["name"])
def test_golden_wires_are_read(wire):
    (message,) = ConsoleDecoder().feed(bytes.fromhex(wire["wire"]))
    want = Message(
        Op(wire["op"]), wire["group"], wire["command"], wire["sequence"], told(wire["body"]), wire["version"]
    )
    assert smp.decode(message) == want


@pytest.mark.parametrize("wire", [w for w in WIRES if w["source"].startswith("smp")], ids=lambda wire: wire["name"])
def test_golden_requests_are_written_byte_for_byte(wire):
    body = told(wire["body"])
    message = Message(Op(wire["op"]), wire["group"], wire["command"], wire["sequence"], body, wire["version"])
    line = bytes.fromhex(wire["wire"]).find(b"\n") + 1
    assert encode_console(smp.encode(message), max(line, 8)).hex() == wire["wire"]


@given(MESSAGES)
def test_headers_are_those_of_smp(message):
    data = smp.encode(message)
    assert smp.decode(data) == message
    try:
        header = Header.loads(data[:8])
    except ValueError:  # smp knows the commands of the groups by name
        return
    assert (header.op, header.group_id, header.command_id) == (message.op, message.group, message.command)
    assert (header.sequence, header.version, header.length) == (message.sequence, message.version, len(data) - 8)


@given(st.binary(max_size=2000), st.integers(8, 300))
def test_console_frames_are_those_of_smp(message, line):
    theirs = b"".join(packet.encode(message, line + 1))  # smp counts one byte more than it sends
    assert encode_console(message, line) == theirs
    assert list(ConsoleDecoder().feed(theirs)) == [message]


@given(st.binary(min_size=1, max_size=3000))
def test_cobs_has_no_zero_inside_and_little_overhead(message):
    wire = encode_cobs(message)
    assert wire[0] == wire[-1] == 0
    assert 0 not in wire[1:-1]
    assert len(wire) <= len(message) + 4 + (len(message) + 4) // 254 + 3
    assert list(CobsDecoder().feed(wire)) == [message]


@given(st.binary(max_size=800) | st.builds(lambda n, tail: b"\x07" * n + tail, st.integers(250, 520), st.binary()))
def test_cobs_stuffs_as_smpclient_does(message):
    body = message + zlib.crc32(message).to_bytes(4, "big")
    assert encode_cobs(message) == b"\0" + cobs_encode(body) + b"\0"


@pytest.mark.parametrize("name", CODECS)
@given(
    messages=st.lists(st.binary(min_size=1, max_size=400), min_size=1, max_size=4), cuts=st.lists(st.integers(1, 60))
)
def test_frames_survive_any_split(name, messages, cuts):
    encode, make = CODECS[name]
    wire, decoder, found, at = b"".join(map(encode, messages)), make(), [], 0
    for cut in [*cuts, len(wire)]:
        found += decoder.feed(wire[at : at + cut])
        at += cut
    assert found == messages


@given(
    st.lists(st.binary(min_size=1, max_size=300), min_size=1, max_size=3),
    st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=80),
)
def test_console_text_before_and_between_the_lines_does_no_harm(messages, text):
    noise = f"[   12.5] usb 1-1: {text}\r\n".encode()
    wire = noise.join(line + b"\n" for m in messages for line in encode_console(m).splitlines())
    prefixed = f"login {text}".encode() + wire  # the same line as the first marker
    decoder = ConsoleDecoder()
    assert list(decoder.feed(noise + wire + noise)) == messages
    assert decoder.text > len(noise)
    assert list(ConsoleDecoder().feed(prefixed)) == messages


@pytest.mark.parametrize("name", CODECS)
@given(
    messages=st.lists(st.binary(min_size=20, max_size=300), min_size=2, max_size=3),
    at=st.integers(0, 10**6),
    bit=st.integers(0, 7),
)
def test_a_flipped_bit_costs_a_frame_and_never_gives_a_wrong_one(name, messages, at, bit):
    encode, make = CODECS[name]
    wire = bytearray(b"".join(map(encode, messages)))
    wire[at % len(wire)] ^= 1 << bit
    found = [m for m in make().feed(bytes(wire) + b"\n\0") if not isinstance(m, Broken)]
    assert all(message in messages for message in found)
    assert len(found) >= len(messages) - 2


@pytest.mark.parametrize("name", CODECS)
@given(noise=st.binary(max_size=2000) | st.integers(1000, 5000).map(lambda count: b"\xa5" * count))
def test_after_any_noise_comes_the_next_frame(name, noise):
    encode, make = CODECS[name]
    decoder = make(limit=200)
    list(decoder.feed(noise))
    assert b"twelve bytes" in list(decoder.feed(encode(b"twelve bytes")))


BROKEN = {
    "not base64": b"\x06\x09AA!!\n",
    "length": b"\x06\x09" + b"/////w==" + b"\n",
    "more bytes": encode_console(b"x")[:-1].replace(b"=", b"") + b"AAAAAAAAAAAAAAAA\n",
    "ended early": b"\x06\x09AP8A\n\x06\x09AP8A\n",
    "CRC16": encode_console(b"0123")[:-4] + b"AA\n",
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_console_frame_is_told_at_once(name):
    (event,) = (e for e in ConsoleDecoder(500).feed(BROKEN[name]) if isinstance(e, Broken))
    assert event.reason


def test_a_broken_cobs_frame_is_told_at_once():
    good = encode_cobs(b"hello")
    for wire in (good[:4] + b"\x55" + good[5:], good[:-3] + b"\0", b"\0" + b"\x01" * 5000 + b"\0", b"\0\x09\x01\0"):
        (event,) = CobsDecoder(100).feed(wire)
        assert isinstance(event, Broken)


def test_a_frame_of_nothing_is_broken():
    """With its CRC32 it is four zeros, which a piece of a frame can be by chance."""
    (event,) = CobsDecoder(100).feed(encode_cobs(b""))
    assert isinstance(event, Broken)


def test_a_sender_that_died_within_a_line_does_not_spoil_the_next_frame():
    assert list(ConsoleDecoder().feed(encode_console(b"the first one")[:9] + encode_console(b"the next"))) == [
        b"the next"
    ]


def test_a_message_too_long_for_a_frame_is_refused():
    with pytest.raises(ValueError, match="smaller chunks"):
        encode_console(bytes(framing.LARGEST + 1))


@pytest.mark.parametrize("name", CODECS)
def test_no_stream_makes_a_decoder_hold_more_than_twice_its_buffer(name):
    """Announced lengths, endless lines and endless frames."""
    encode, make = CODECS[name]
    limit = 32 << 10
    hostile = [b"\x06\x09" + b"/" * 124 + b"\n", b"\x04\x14" + b"A" * 124 + b"\n", b"A" * 4096, b"\xff" * 4096]
    good = encode(bytes(limit))
    pieces = hostile[0] + hostile[1] * 400, hostile[2] * 40, hostile[3] * 40, good
    tracemalloc.start()
    decoder = make(limit)
    empty = tracemalloc.get_traced_memory()[0]
    for piece in pieces:
        for at in range(0, len(piece), 4096):
            tracemalloc.reset_peak()
            before = tracemalloc.get_traced_memory()[0]
            list(decoder.feed(piece[at : at + 4096]))
            assert tracemalloc.get_traced_memory()[1] - before < 2 * limit + 20_000
        assert tracemalloc.get_traced_memory()[0] - empty < 2 * limit
    tracemalloc.stop()


@given(st.binary(max_size=100))
def test_bytes_that_are_no_message_are_an_error(data):
    try:
        message = smp.decode(data)
    except smp.SmpError:
        return
    assert smp.decode(smp.encode(message)) == message


@pytest.mark.parametrize("version", [smp.V1, smp.V2])
def test_errors_are_said_as_the_version_of_the_request_has_them(version):
    request = Message(Op.WRITE, 1, 1, 7, {}, version)
    refused = request.refusal(14, group=1, reason="no such slot")  # Zephyr has no number for it in version 1 but EINVAL
    assert refused.answers(request)
    assert refused.version == version
    body = {"rc": 3} if version == smp.V1 else {"err": {"group": 1, "rc": 14}}
    assert refused.body == {**body, "rsn": "no such slot"}
