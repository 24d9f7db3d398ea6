# SPDX-License-Identifier: Apache-2.0
"""`elflash` as people and programs call it: the walk of the README, exit codes, JSON, what `--help` imports."""

import json
import re
import shlex
import signal
import subprocess
import sys
from pathlib import Path

from daemons import until
from elflash_commands import ALERT, CLEAN, ELFLASH, call, ok, serving
from flashing import model, noise

ROOT = Path(__file__).parent.parent


def test_the_walk_of_the_readme_is_six_commands_and_ends_with_a_confirmed_model(tmp_path):
    (walk,) = re.findall(r"```sh\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    commands = walk.strip().splitlines()
    assert len(commands) == 6
    assert commands[0] == "pip install 'edgelearn[serial]'"  # test_install.py does that
    (tmp_path / "model.safetensors").write_bytes(model(20_000))
    board = None
    try:
        for command in commands[1:]:
            words = [*ELFLASH, *shlex.split(command.removesuffix("&"))[1:]]
            if command.endswith("&"):
                board = subprocess.Popen(words, cwd=tmp_path, env=CLEAN, stdout=subprocess.PIPE, text=True, **ALERT)
                assert "virtual board is on board" in board.stdout.readline()
                continue
            done = subprocess.run(words, cwd=tmp_path, env=CLEAN, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
        assert "confirmed, runs" in done.stdout
        assert "model.safetensors" in done.stdout
    finally:
        if board is not None:
            board.send_signal(signal.SIGINT)
            assert board.wait(120) == 0
            board.stdout.close()


def test_help_is_light_and_teaches():
    code = (
        "import sys; from edgelearn.cli.elflash import parser; text = parser().format_help(); "
        "assert 'exit codes' in text and 'example' in text; "
        "print(sorted({'numpy', 'serial', 'cryptography', 'zstandard', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_a_whole_write_imports_no_numpy(bundled):
    code = "import sys\nfrom edgelearn.cli.elflash import main\nmain(sys.argv[1:])\nprint('numpy' in sys.modules)"
    with serving(bundled, "--trust", "key.pub"):
        command = [sys.executable, "-c", code, "-p", "board", "write", "m.elb", "--activate"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=bundled, env=CLEAN)
    assert done.stdout.splitlines()[-1] == "False"


def test_every_verb_has_an_example(tmp_path):
    verbs = "ports doctor info write verify slots activate confirm rollback bundle sign keygen image-info resume"
    said = ok("--help", cwd=tmp_path).stdout
    for verb in [*verbs.split(), "serve-virtual", "reset", "erase", "read-log", "completion"]:
        assert verb in said
        assert "example:" in ok(verb, "--help", cwd=tmp_path).stdout


def test_json_lines_end_with_the_result_and_later_writes_send_nothing(bundled):
    with serving(bundled, "--trust", "key.pub"):
        env = {"ELFLASH_PORT": "board"}
        lines = ok("--json", "write", "m.elb", "--activate", cwd=bundled, **env).stdout.splitlines()
        events = [json.loads(line) for line in lines]
        assert events[0]["event"] == "progress"
        assert events[-1]["written"][0]["state"] == "written"
        assert events[-1]["confirmed"] is True
        again = ok("write", "m.elb", "--json", cwd=bundled, **env).stdout.splitlines()
        assert json.loads(again[-1])["written"][0]["state"] == "present"
        (slot,) = json.loads(ok("slots", "--json", cwd=bundled, **env).stdout)["slots"]
        assert (slot["running"], slot["confirmed"], slot["version"]) == (True, True, 3)
        assert json.loads(ok("info", "--json", cwd=bundled, **env).stdout)["board"] == "virtual"
        assert json.loads(ok("verify", "m.elb", "--json", cwd=bundled, **env).stdout)["verified"][0]["slot"] == 1


def test_progress_is_a_line_per_tenth_where_there_is_no_terminal(bundled):
    (bundled / "big.bin").write_bytes(noise(400_000))
    with serving(bundled, "--unsigned"):
        done = ok("-p", "board", "write", "big.bin", "--unsigned", cwd=bundled)
        lines = [line for line in done.stderr.splitlines() if "KiB/s" in line]
        assert 3 <= len(lines) <= 11
        assert lines[-1].startswith("100 %")
        assert "\r" not in done.stderr
        silent = ok("-s", "-p", "board", "write", "big.bin", "--unsigned", "--force", cwd=bundled)
        assert (silent.stdout, silent.stderr) == ("", "")


def test_exit_codes_of_what_a_board_must_not_take(bundled):
    ok("keygen", "-o", "other.pem", cwd=bundled)
    for name, words in {
        "strange": ["--key", "other.pem"],
        "bare": ["--unsigned"],
        "old": ["--key", "key.pem", "--version", 2],
        "rpi4": ["--key", "key.pem", "--for-board", "rpi4"],
        "arm": ["--key", "key.pem", "--arch", "armv7l"],
        "abi": ["--key", "key.pem", "--abi", 99],
    }.items():
        (bundled / f"{name}.bin").write_bytes(model(3000, len(name)))
        ok("bundle", f"{name}.bin", *words, "-o", f"{name}.elb", cwd=bundled)
    good = (bundled / "m.elb").read_bytes()
    (bundled / "cut.elb").write_bytes(good[:-10])
    (bundled / "long.elb").write_bytes(good + b"x")
    (bundled / "torn.elb").write_bytes(good[:-10] + bytes(10))
    spoiled = good.replace(b"m.bin", b"n.bin", 1)
    (bundled / "forged.elb").write_bytes(spoiled)
    want = {
        "strange": 7,
        "bare": 7,
        "old": 7,
        "forged": 7,
        "rpi4": 6,
        "arm": 6,
        "abi": 6,
        "cut": 8,
        "long": 8,
        "torn": 8,
    }
    with serving(bundled, "--trust", "key.pub"):
        ok("-p", "board", "write", "m.elb", "--activate", cwd=bundled)
        before = ok("-p", "board", "slots", "--json", cwd=bundled).stdout
        for name, code in want.items():
            done = call("-p", "board", "write", f"{name}.elb", "--activate", cwd=bundled)
            assert done.returncode == code, (name, done.stderr)
            assert re.search(r": [^:]+\n$", done.stderr), done.stderr
            assert " bytes" not in done.stderr or name in ("cut", "long"), done.stderr  # no progress: none was sent
        assert ok("-p", "board", "slots", "--json", cwd=bundled).stdout == before
        assert not [p for p in (bundled / "virtual-board" / "incoming").iterdir() if p.suffix == ".part"]


def test_exit_codes_of_trials(bundled):
    (bundled / "new.bin").write_bytes(model(6000, 2))
    ok("bundle", "new.bin", "--key", "key.pem", "--version", 4, "-o", "new.elb", cwd=bundled)
    at = ["-p", "board"]
    with serving(bundled, "--trust", "key.pub"):
        assert call(*at, "confirm", cwd=bundled).returncode == 11
        assert call(*at, "rollback", cwd=bundled).returncode == 11
        assert call(*at, "activate", "abc", cwd=bundled).returncode == 11
        assert call(*at, "resume", "m.elb", cwd=bundled).returncode == 11
        ok(*at, "write", "m.elb", "--activate", cwd=bundled)
    with serving(bundled, "--trust", "key.pub", "--faults", "health=answers nothing"):
        done = call(*at, "write", "new.elb", "--activate", "--wait-healthy", "0.2", cwd=bundled)
        assert done.returncode == 10
        assert "answers nothing" in done.stderr
        assert "m.bin" in ok(*at, "slots", cwd=bundled).stdout
        again = call(*at, "write", "new.elb", cwd=bundled)
        assert again.returncode == 10  # present there, and it failed
        assert "failed here before" in again.stderr


def test_activate_confirm_and_rollback_by_hand(bundled):
    (bundled / "new.bin").write_bytes(model(6000, 2))
    with serving(bundled, "--trust", "key.pub", "--unsigned"):
        at = ["-p", "board"]
        ok(*at, "write", "m.elb", "--activate", cwd=bundled)
        said = json.loads(
            ok(*at, "write", "new.bin", "--unsigned", "--version", 4, "--json", cwd=bundled).stdout.splitlines()[-1]
        )
        sha256 = said["written"][0]["sha256"]
        marked = call(*at, "activate", sha256[:10], "--no-restart", cwd=bundled)
        assert marked.returncode == 12
        assert "to be tried" in ok(*at, "slots", cwd=bundled).stdout
        assert "'elflash reset'" in call(*at, "confirm", cwd=bundled).stderr
        ok(*at, "reset", cwd=bundled)
        assert "on trial" in ok(*at, "slots", cwd=bundled).stdout
        ok(*at, "confirm", cwd=bundled)
        assert json.loads(ok(*at, "rollback", "--json", cwd=bundled).stdout)["sha256"] != sha256
        ok(*at, "activate", sha256[:10], cwd=bundled)
        ok(*at, "erase", cwd=bundled)
        assert len(ok(*at, "slots", cwd=bundled).stdout.splitlines()) == 1


def test_several_files_and_differences(bundled):
    old = model(60_000, 5)
    new = bytearray(old)
    new[30_000:30_004] = b"\0\0\0\0"
    (bundled / "old.bin").write_bytes(old)
    (bundled / "new.bin").write_bytes(new)
    (bundled / "a.bin").write_bytes(noise(700))
    at = ["-p", "board", "--json", "write", "--unsigned"]
    with serving(bundled, "--unsigned"):
        last = json.loads(ok(*at, "old.bin", "adapter=a.bin", "--activate", cwd=bundled).stdout.splitlines()[-1])
        assert [row["image"] for row in last["written"]] == ["model", "adapter"]
        seen = json.loads(ok(*at[:3], "verify", "--image", "adapter", cwd=bundled).stdout)
        assert [row["image"] for row in seen["verified"]] == ["adapter"]
        differs = ok(*at, "new.bin", "--version", 2, "--diff-with", "old.bin", "--activate", cwd=bundled).stdout
        (row,) = json.loads(differs.splitlines()[-1])["written"]
        assert row["bytes_sent"] < 6000
        other = model(60_000, 6)
        (bundled / "other.bin").write_bytes(other)
        (bundled / "next.bin").write_bytes(other[:-1] + b"x")
        full = ok(*at, "next.bin", "--version", 3, "--diff-with", "other.bin", cwd=bundled).stdout
        (row,) = json.loads(full.splitlines()[-1])["written"]
        assert row["bytes_sent"] > 60_000  # the board has never had the other one


def test_a_second_virtual_board_leaves_the_first_one_its_disk_and_its_name(bundled):
    with serving(bundled, "--unsigned"):
        done = call("serve-virtual", "--link", "board", cwd=bundled)
        assert (done.returncode, "another virtual board" in done.stderr) == (2, True)
        ok("-p", "board", "info", cwd=bundled)


def test_dry_run_board_name_and_log(bundled):
    with serving(bundled, "--trust", "key.pub", "--name", "rpi4"):
        at = ["-p", "board"]
        assert "would be sent" in ok(*at, "write", "m.elb", "--dry-run", cwd=bundled).stdout
        assert call(*at, "--board", "jetson", "info", cwd=bundled).returncode == 6
        ok(*at, "--board", "rpi4", "-t", "trace.txt", "info", cwd=bundled)
        assert " > " in (bundled / "trace.txt").read_text()
        (bundled / "virtual-board" / "logs").mkdir()
        (bundled / "virtual-board" / "logs" / "a.log").write_text("x" * 9000)
        ok(*at, "read-log", "logs/a.log", "-o", "a.log", cwd=bundled)
        assert (bundled / "a.log").read_text() == "x" * 9000
        assert call(*at, "read-log", "logs/none", cwd=bundled).returncode == 9


def test_an_interrupt_says_that_the_same_command_goes_on(bundled):
    (bundled / "big.bin").write_bytes(noise(3_000_000))
    command = [*ELFLASH, "serve-virtual", "--link", "board", "--unsigned", "--baud", "115200", "--baud-max", "115200"]
    board = subprocess.Popen(command, cwd=bundled, env=CLEAN, stdout=subprocess.PIPE, text=True, **ALERT)
    board.stdout.readline()
    words = [*ELFLASH, "-p", "board", "write", "big.bin", "--unsigned"]
    host = subprocess.Popen(words, cwd=bundled, env=CLEAN, stderr=subprocess.PIPE, text=True, **ALERT)
    said = host.stderr.readline()
    until(lambda: sum(part.stat().st_size for part in (bundled / "virtual-board" / "incoming").glob("*.part")))
    host.send_signal(signal.SIGINT)
    said += host.communicate(timeout=120)[1]
    assert host.returncode == 130
    assert "goes on where it was" in said
    assert "about 4:20" in said  # 3 MB at 115,200 baud in COBS
    board.send_signal(signal.SIGTERM)
    board.wait(120)
    board.stdout.close()
    with serving(bundled, "--unsigned"):
        done = ok("-p", "board", "resume", "big.bin", "--unsigned", cwd=bundled)
        assert "went on at" in done.stdout
