# SPDX-License-Identifier: Apache-2.0
"""Unmodified smpclient and smpmgr against our board side, with a kernel's log between the frames, and our host against
a board that speaks plain SMP as Zephyr does."""

import hashlib
import json
import subprocess
import sys
import venv
from pathlib import Path

import pytest
from flashing import Direct, digest, item, model, new_key, noise, virtual

from edgelearn.cli import elflash
from edgelearn.flash import bundle, keys
from edgelearn.flash.board import Policy
from edgelearn.flash.groups import GROUPS
from edgelearn.flash.manifest import Manifest
from edgelearn.flash.smp import V1, File, Group, Img, Message, Op, Os

PEER = Path(__file__).parent / "smp_peer.py"


@pytest.fixture
def signed_bundle(tmp_path):
    """A bundle with a model, its payload, and the policy that trusts who signed it."""
    key, public = new_key(tmp_path)
    data = model(20_000)
    path = tmp_path / "model.elb"
    bundle.write(path, Manifest((item(data, version=7),)), [data], key)
    return path, data, Policy(trusted=keys.trusted([public]))


def logs(folder):
    (folder / "board" / "logs").mkdir(parents=True)
    (folder / "board" / "logs" / "board.log").write_text("served 3 requests\n")
    return folder / "board"


def used(python, folder, path, policy):
    """What smp_peer.py of that interpreter saw on a board with a talkative kernel."""
    with virtual(logs(folder), "noise=100%", policy=policy, paced=False) as board:
        done = subprocess.run([python, PEER, board.wire.name, path], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1])


def agrees(said, path, data, version):
    assert said["echo"] == "hello"
    assert said["before"] == 0
    assert said["offsets"][-1] == path.stat().st_size
    assert said["hash"] == digest(data)
    assert said["version"] == version
    assert said["test"] == [True]
    assert said["too early"]
    assert (said["active"], said["confirmed before"], said["confirmed"]) == (True, False, True)
    assert said["erase refused"]
    assert said["log"] == "served 3 requests\n"


def test_smpclient_uploads_a_bundle_tests_resets_and_confirms(tmp_path, signed_bundle):
    path, data, policy = signed_bundle
    agrees(used(sys.executable, tmp_path, path, policy), path, data, "7.0.0")


def driven(python, board, path, data):
    """What a user of smpmgr does."""

    def smpmgr(*words):
        command = [python, "-m", "smpmgr", "--port", board.wire.name, *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env={"COLUMNS": "200"})
        assert done.returncode == 0, done.stderr + done.stdout
        return done.stdout

    assert "No images on device" in smpmgr("image", "state-read")
    smpmgr("image", "upload", "--format", "any", str(path))
    assert digest(data).upper() in smpmgr("image", "state-read")
    smpmgr("image", "state-write", digest(data))
    smpmgr("os", "reset")
    smpmgr("image", "state-write", "--confirm")
    listed = " ".join(smpmgr("image", "state-read").split())
    assert "confirmed=True" in listed
    assert "active=True" in listed


@pytest.mark.soak  # makes environments
@pytest.mark.parametrize("older", ["smpclient>=6,<7", "smpmgr>=0.18,<0.19"])
def test_the_previous_ones_do_too(tmp_path, signed_bundle, older):
    path, data, policy = signed_bundle
    venv.create(tmp_path / "env", with_pip=True)
    python = tmp_path / "env" / "bin" / "python"
    command = [python, "-m", "pip", "install", "-q", older]
    installed = subprocess.run(command, capture_output=True, text=True, check=False)
    if "Could not find a version" in installed.stderr:
        pytest.skip("no package index can be reached from here: environments cannot be made")
    assert installed.returncode == 0, installed.stderr
    if older.startswith("smpclient"):
        agrees(used(python, tmp_path, path, policy), path, data, "7.0.0")
    else:
        with virtual(tmp_path / "board", "noise=100%", policy=policy) as board:
            driven(python, board, path, data)


def test_smpmgr_lists_uploads_tests_resets_and_confirms(tmp_path, signed_bundle):
    pytest.importorskip("smpmgr", reason="smpmgr needs Python 3.11")
    path, data, policy = signed_bundle
    with virtual(tmp_path / "board", "noise=100%", policy=policy) as board:
        driven(sys.executable, board, path, data)


def test_smpmgr_upgrades_in_one_command(tmp_path):
    pytest.importorskip("smpmgr", reason="smpmgr needs Python 3.11")
    path = tmp_path / "adapter.bin"
    path.write_bytes(noise(9000))
    with virtual(tmp_path / "board") as board:
        command = ["-m", "smpmgr", "--port", board.wire.name, "upgrade", "--format", "any", "--slot", "1", str(path)]
        done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout


class Upload:
    """An upload as mcumgr does it, in pieces, without a line."""

    def __init__(self, folder, policy=None):
        self.direct = Direct(folder, policy=policy)

    def send(self, data, chunk=4000, with_hash=True, **first):
        about = {"len": len(data), **({"sha": hashlib.sha256(data).digest()} if with_hash else {}), **first}
        off = 0
        while True:
            body = {"off": off, "data": data[off : off + chunk], **(about if not off else {})}
            answer = self.direct.ask(Op.WRITE, Img.UPLOAD, body, Group.IMAGE)
            if "off" not in answer or answer.get("match") or answer["off"] >= len(data):
                return answer
            off = answer["off"]


def test_bare_files_without_a_hash_and_repeated_first_chunks(tmp_path):
    up = Upload(tmp_path)
    first = {"off": 0, "data": noise(500), "len": 900}
    for _ in range(2):
        assert up.direct.ask(Op.WRITE, Img.UPLOAD, first, Group.IMAGE) == {"off": 500}
    assert up.send(noise(900), with_hash=False) == {"off": 900, "match": True}
    assert up.direct.board.slots.images["model"].find(digest(noise(900))) == 1


def refused(folder, data, policy=None, **first):
    up = Upload(folder, policy)
    answer = up.send(data, **first)
    assert up.direct.board.slots.images["model"].slots == (None, None)
    incoming = folder / "incoming"
    assert not incoming.is_dir() or not list(incoming.iterdir())
    return answer["err"]["rc"]


def test_uploads_that_a_board_must_not_take(tmp_path, signed_bundle):
    path, data, policy = signed_bundle
    good = path.read_bytes()
    stranger, _ = new_key(tmp_path, "stranger")
    bundle.write(tmp_path / "strange.elb", Manifest((item(data),)), [data], stranger)
    bundle.write(tmp_path / "other.elb", Manifest((item(data),), boards=("rpi4",)), [data], None)
    flipped = bytearray(good)
    flipped[-50] ^= 1
    cases = {
        "bare": (data, policy, 23),
        "unknown key": ((tmp_path / "strange.elb").read_bytes(), policy, 23),
        "unsigned": ((tmp_path / "other.elb").read_bytes(), policy, 23),
        "another board": ((tmp_path / "other.elb").read_bytes(), Policy(unsigned=True), 22),
        "damaged payload": (bytes(flipped), policy, 22),
        "cut": (good[:-100], policy, 22),
        "too long": (good + b"more", policy, 22),
    }
    for name, (sent, whom, rc) in cases.items():
        assert refused(tmp_path / name, sent, whom) == rc, name
    assert refused(tmp_path / "image", good, policy, image=7) == 14
    assert refused(tmp_path / "length", good, policy, len=None) == 21
    big = Direct(tmp_path / "big", policy=policy)
    body = {"off": 0, "data": good[:100], "len": 1 << 30}
    assert big.ask(Op.WRITE, Img.UPLOAD, body, Group.IMAGE)["err"]["rc"] == 30
    assert big.ask(Op.WRITE, Img.UPLOAD, {"data": b""}, Group.IMAGE)["err"]["rc"] == 20


def test_a_wrong_hash_of_an_upload_is_found(tmp_path):
    assert refused(tmp_path, model(3000), sha=bytes(32)) == 22


def test_marks_for_what_is_not_there(tmp_path):
    direct = Direct(tmp_path)
    assert direct.ask(Op.WRITE, Img.STATE, {"hash": bytes(32)}, Group.IMAGE)["err"]["rc"] == 8
    assert direct.ask(Op.WRITE, Img.STATE, {"hash": bytes(20)}, Group.IMAGE)["err"]["rc"] == 24
    assert direct.ask(Op.WRITE, Img.STATE, {}, Group.IMAGE)["err"]["rc"] == 24
    assert direct.ask(Op.WRITE, Img.ERASE, {"slot": 9}, Group.IMAGE)["err"]["rc"] == 14
    rows = direct.ask(Op.READ, Img.SLOTS, {}, Group.IMAGE)["images"]
    assert [row["image"] for row in rows] == [0, 1, 2]


def test_elflash_uses_a_board_that_knows_nothing_of_group_64(tmp_path, monkeypatch, capsys):
    """The server of plain SMP is our board's own, without our group."""
    monkeypatch.delitem(GROUPS, Group.EDGELEARN)
    (tmp_path / "m.bin").write_bytes(model())
    done = []
    with virtual(tmp_path / "board") as board:
        for words in (
            "info",
            f"write {tmp_path}/m.bin --activate",
            "confirm",
            "slots",
            "erase",
            "reset",
            "activate abc",
        ):
            code = elflash.main(["-p", board.wire.name, *words.split()])
            done.append((code, *capsys.readouterr()))
    assert [code for code, _, _ in done] == [0] * 6 + [1], done
    assert "started by edgelearn\nmessages of up to 33,000 bytes" in done[0][1]
    assert digest(model())[:16] in done[3][1]
    assert "active" in done[3][1]
    assert "plain SMP only: " in done[6][2]


def test_refusals_of_version_1_are_numbers_that_its_clients_know(tmp_path):
    """As Zephyr's groups translate theirs: MGMT_ERR_EUNKNOWN, EINVAL, EINVAL, EINVAL, ENOENT, ENOENT."""
    board = Direct(tmp_path).board
    for op, group, command, body, rc in (
        (Op.WRITE, Group.IMAGE, Img.STATE, {"hash": bytes(32)}, 1),
        (Op.WRITE, Group.IMAGE, Img.STATE, {}, 3),
        (Op.WRITE, Group.IMAGE, Img.ERASE, {"slot": 9}, 3),
        (Op.READ, Group.OS, Os.INFO, {"format": "q"}, 3),
        (Op.READ, Group.OS, Os.BOOTLOADER, {"query": "weather"}, 5),
        (Op.READ, Group.FILE, File.STATUS, {"name": "logs/none"}, 5),
    ):
        assert board.answer(Message(op, group, command, 0, body, V1)).body == {"rc": rc}


def test_the_system_group(tmp_path):
    ask = Direct(tmp_path).ask
    assert ask(Op.READ, Os.PARAMS, {}, Group.OS) == {"buf_size": 33_000, "buf_count": 2}
    assert ask(Op.READ, Os.INFO, {}, Group.OS) == {"output": "Linux"}
    assert "virtual any" in ask(Op.READ, Os.INFO, {"format": "nm"}, Group.OS)["output"]
    assert ask(Op.READ, Os.INFO, {"format": "q"}, Group.OS)["err"] == {"group": 0, "rc": 2}
    assert ask(Op.READ, Os.BOOTLOADER, {}, Group.OS) == {"bootloader": "edgelearn"}
    assert ask(Op.READ, Os.BOOTLOADER, {"query": "mode"}, Group.OS)["mode"] == 5
    assert ask(Op.READ, Os.BOOTLOADER, {"query": "weather"}, Group.OS)["err"]["rc"] == 3
    assert ask(Op.WRITE, Os.ECHO, {}, Group.OS) == {"rc": 3}
    assert ask(Op.READ, 99, {}, Group.OS) == {"rc": 8}
    assert ask(Op.READ, 0, {}, 5000) == {"rc": 8}


def test_files_can_be_read_and_only_below_logs_and_reports(tmp_path):
    ask = Direct(tmp_path).ask
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.log").write_bytes(b"0123456789")
    (tmp_path / "secret").write_bytes(b"key")
    (tmp_path / "logs" / "link").symlink_to(tmp_path / "secret")
    assert ask(Op.READ, File.STATUS, {"name": "/logs/a.log"}, Group.FILE) == {"len": 10}
    assert ask(Op.READ, File.DOWNLOAD, {"name": "logs/a.log", "off": 4}, Group.FILE) == {"off": 4, "data": b"456789"}
    whole = ask(Op.READ, File.HASH, {"name": "logs/a.log"}, Group.FILE)
    assert whole["output"].hex() == digest(b"0123456789")
    part = ask(Op.READ, File.HASH, {"name": "logs/a.log", "type": "crc32", "off": 2, "len": 3}, Group.FILE)
    import zlib

    assert (part["output"], part["len"]) == (zlib.crc32(b"234"), 3)
    for name in ("../secret", "/logs/../secret", "secret", "logs/link", "logs", "logs/none", "logs/\0", "x" * 600):
        assert ask(Op.READ, File.DOWNLOAD, {"name": name, "off": 0}, Group.FILE)["err"]["rc"] == 3
    assert ask(Op.READ, File.DOWNLOAD, {"name": "logs/a.log", "off": 11}, Group.FILE)["err"]["rc"] == 12
    assert ask(Op.READ, File.HASH, {"name": "logs/a.log", "type": "md5"}, Group.FILE)["err"]["rc"] == 13
    assert ask(Op.WRITE, File.DOWNLOAD, {"name": "logs/a.log", "off": 0, "data": b"x"}, Group.FILE)["err"]["rc"] == 15
