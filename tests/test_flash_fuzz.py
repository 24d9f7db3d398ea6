# SPDX-License-Identifier: Apache-2.0
"""Chance against manifests, bundles, difference streams and a whole board: no crash, no memory beyond what was
announced, nothing that becomes live by it."""

import io
import tracemalloc

import pytest
from flashing import Direct, item, model
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgelearn.errors import EdgelearnError, MismatchError
from edgelearn.flash import bundle, cbor, manifest, packing, smp
from edgelearn.flash.board import Policy
from edgelearn.flash.endpoint import Endpoint
from edgelearn.flash.framing import ConsoleDecoder, encode_console
from edgelearn.flash.manifest import Item, Manifest
from edgelearn.flash.smp import El, File, Group, Img, Message, Op, Os

NAMES = st.sampled_from(
    [
        *("d", "off", "data", "len", "sha", "image", "hash", "confirm", "slot", "name", "type", "sid", "crc"),
        *("manifest", "signature", "index", "packing", "size", "sha256", "old", "unsigned", "force", "baud", "framing"),
        *("boot_id", "reason", "after", "format", "query"),
    ]
)
VALUES = st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.binary(max_size=64) | st.text(max_size=20)
COMMANDS = st.sampled_from(
    [(group, command) for group, commands in ((0, Os), (1, Img), (8, File), (64, El)) for command in commands]
)


@given(st.binary(max_size=600))
def test_bytes_that_are_no_manifest(data):
    try:
        found = manifest.decode(data)
    except MismatchError:
        return
    assert manifest.decode(found.encode()) == found


ITEMS = st.builds(
    Item,
    st.sampled_from(manifest.IMAGES),
    st.integers(0, 1 << 53),
    st.text(max_size=20),
    st.integers(1, manifest.MAX_IMAGE),
    st.binary(min_size=32, max_size=32),
)


@given(
    st.lists(ITEMS, min_size=1, max_size=3, unique_by=lambda i: i.image), st.text(max_size=9), st.integers(0, 1 << 16)
)
def test_manifests_come_back_as_they_were(items, board, abi):
    whole = Manifest(tuple(items), (board,), "any", abi, "key")
    assert manifest.decode(whole.encode()) == whole


@given(st.integers(0, 10**6), st.integers(1, 255))
def test_a_flipped_byte_in_a_bundle_is_an_error_or_changes_what_was_signed(at, flip):
    data = model(300)
    path = io.BytesIO()
    head = _bundle(data)
    spoiled = bytearray(head)
    spoiled[at % len(head)] ^= flip
    path.write(spoiled)
    path.seek(0)
    try:
        found = bundle.parse(path, len(spoiled))
    except EdgelearnError:
        return
    intact = bundle.parse(io.BytesIO(head), len(head))
    payload = bytes(spoiled)[found.forms[0].offset :]
    assert (found.raw, found.signature, payload) != (intact.raw, intact.signature, data)


def _bundle(data):
    from edgelearn.flash import cbor

    raw = Manifest((item(data),)).encode()
    head = cbor.dumps({"manifest": raw, "signature": b"s" * 64, "payloads": [{"packing": "none", "size": len(data)}]})
    return bundle.MAGIC + len(head).to_bytes(4, "big") + head + data


@given(st.binary(max_size=500), st.sampled_from(packing.PACKINGS), st.integers(1, 2000))
def test_no_stream_unpacks_to_more_than_was_announced(tmp_path_factory, data, form, size):
    old = tmp_path_factory.getbasetemp() / "old.bin"
    old.write_bytes(b"old" * 100)
    for stream in (data, packing.compress(data)):
        try:
            whole = b"".join(packing.unpack(form, io.BytesIO(stream), size, old))
        except MismatchError:
            continue
        assert len(whole) == size


def test_a_bomb_stops_at_what_was_announced():
    bomb = packing.compress(bytes(64 << 20))
    assert len(bomb) < 20_000
    tracemalloc.start()
    with pytest.raises(MismatchError, match="more than the 1000 bytes"):
        list(packing.unpack("zstd", io.BytesIO(bomb), 1000))
    assert tracemalloc.get_traced_memory()[1] < 4 * packing.PIECE
    tracemalloc.stop()


@given(st.binary(max_size=30_000), st.binary(max_size=30_000), st.integers(0, 25_000))
@settings(max_examples=30, suppress_health_check=[HealthCheck.large_base_example, HealthCheck.data_too_large])
def test_differences_give_the_new_payload(tmp_path_factory, old, new, keep):
    new = old[:keep] + new
    if not new:
        return
    path = tmp_path_factory.getbasetemp() / "base.bin"
    path.write_bytes(old)
    changed = packing.diff(old, new)
    assert b"".join(packing.unpack("diff", io.BytesIO(changed), len(new), path)) == new


@pytest.fixture(scope="module")
def boards(tmp_path_factory):
    """A board that takes nothing unsigned and one that does, both with a model."""
    made = []
    for unsigned in (False, True):
        folder = tmp_path_factory.mktemp("board")
        Direct(folder).install(model(1000))
        made.append(Direct(folder, policy=Policy(unsigned=unsigned)))
    return made


@given(
    where=COMMANDS,
    op=st.sampled_from((Op.READ, Op.WRITE)),
    body=st.dictionaries(NAMES, VALUES, max_size=8),
    version=st.sampled_from((0, 1)),
)
@settings(max_examples=400)
def test_no_request_crashes_a_board_or_changes_what_runs(boards, where, op, body, version):
    group, command = where
    for direct in boards:
        answer = direct.board.answer(Message(op, group, command, 0, body, version))
        assert smp.decode(smp.encode(answer)) == answer
        assert direct.live() == model(1000)
        direct.board.restarting = False


BYTES = {
    (El.BEGIN, Op.WRITE): ("manifest", "signature", "sha256", "old"),
    (El.CHUNK, Op.WRITE): ("sid", "data"),
    (El.HAVE, Op.READ): ("sid",),
    (El.VERIFY, Op.WRITE): ("sid",),
    (El.VERIFY, Op.READ): ("sha256",),
    (El.ACTIVATE, Op.WRITE): ("sha256",),
    (El.CONFIRM, Op.WRITE): ("sha256",),
    (El.ROLLBACK, Op.WRITE): ("sha256",),
    (El.ABORT, Op.WRITE): ("sid",),
    (Img.STATE, Op.WRITE): ("hash",),
    (Img.UPLOAD, Op.WRITE): ("data", "sha"),
}
"""Fields that hold bytes."""


@pytest.mark.parametrize(("command", "op"), list(BYTES))
def test_a_number_where_bytes_belong_is_refused_and_takes_no_memory(boards, command, op):
    """Python makes as many zeros of it: a message of some bytes would take all that a board has."""
    group = Group.IMAGE if isinstance(command, Img) else Group.EDGELEARN
    for direct, name in [(direct, name) for direct in boards for name in BYTES[command, op]]:
        body = {"image": "model", "off": 0, "len": 10, "index": 0, "size": 10, "packing": "none", "data": b"", "crc": 0}
        body |= {other: b"" for other in BYTES[command, op]} | {name: 1 << 40}
        if group == Group.IMAGE:
            body["image"] = 0
        tracemalloc.start()
        answer = direct.board.answer(Message(op, group, command, 0, body)).body
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
        tracemalloc.stop()
        assert answer.get("err") or answer.get("rc") or (name, answer.get("off")) == ("sha", 0)  # it needs no name


def test_a_bundle_with_numbers_where_bytes_belong_is_no_bundle():
    head = cbor.dumps({"manifest": 1 << 40, "signature": b"", "payloads": []})
    whole = bundle.MAGIC + len(head).to_bytes(4, "big") + head
    with pytest.raises(MismatchError, match="manifest, which is no byte string"):
        bundle.parse(io.BytesIO(whole), len(whole))


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_no_bytes_crash_an_endpoint_or_make_it_deaf(boards, pieces):
    endpoint = Endpoint(boards[0].board)
    for piece in pieces:
        list(endpoint.feed(piece))
    wire = b"\n" + encode_console(smp.encode(Message(Op.WRITE, Group.OS, Os.ECHO, 1, {"d": "still here"})))
    said = b"".join(endpoint.feed(wire))
    answers = [smp.decode(found) for found in ConsoleDecoder().feed(said) if isinstance(found, bytes)]
    assert any(answer.body == {"r": "still here"} for answer in answers)


def test_a_board_holds_no_more_than_twice_its_buffer_for_a_message(tmp_path):
    """The largest message that it announces, and one that announces more."""
    direct = Direct(tmp_path)
    endpoint = Endpoint(direct.board)
    limit = endpoint.limit
    body = {"d": "x" * (limit - 40)}
    good = encode_console(smp.encode(Message(Op.WRITE, Group.OS, Os.ECHO, 1, body)))
    big = b"\x06\x09" + b"/" * 124 + b"\n" + (b"\x04\x14" + b"A" * 124 + b"\n") * 600
    for wire in (big, good[: len(good) // 2], b"\x06\x09"):
        tracemalloc.start()
        for at in range(0, len(wire), 2048):
            list(endpoint.feed(wire[at : at + 2048]))
        assert tracemalloc.get_traced_memory()[1] < 2 * limit
        tracemalloc.stop()
