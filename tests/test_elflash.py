# SPDX-License-Identifier: Apache-2.0
"""`elflash` as people and programs call it: the walk of the README, exit codes, JSON, what `--help` costs."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest
from flashing import model, noise

ROOT = Path(__file__).parent.parent
ELFLASH = [sys.executable, "-m", "edgelearn.cli.elflash"]
# Where the tests run in the background of a shell, an interrupt is ignored by all that they start, unless they say so.
ALERT = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith("ELFLASH_")}


def call(*words, cwd, **env):
    command = [*ELFLASH, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=CLEAN | env, timeout=120)


def ok(*words, cwd, **env):
    done = call(*words, cwd=cwd, **env)
    assert done.returncode == 0, done.stderr
    return done


@contextmanager
def serving(folder, *words):
    """A virtual board in a process of its own on the link `board`; the process."""
    command = [*ELFLASH, "serve-virtual", "--link", "board", "--unpaced", *map(str, words)]
    process = subprocess.Popen(command, cwd=folder, env=CLEAN, stdout=subprocess.PIPE, text=True, **ALERT)
    try:
        assert "virtual board is on" in process.stdout.readline()
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        process.stdout.close()


@pytest.fixture
def place(tmp_path):
    """A folder with a key, a model and its bundle."""
    ok("keygen", "-o", "key.pem", cwd=tmp_path)
    (tmp_path / "m.bin").write_bytes(model(5000, 1))
    ok("bundle", "m.bin", "--key", "key.pem", "--version", 3, "-o", "m.elb", cwd=tmp_path)
    return tmp_path


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
            assert board.wait(10) == 0
            board.stdout.close()


def test_help_is_light_and_teaches(tmp_path):
    code = (
        "import sys; from edgelearn.cli.elflash import parser; text = parser().format_help(); "
        "assert 'exit codes' in text and 'example' in text; "
        "print(sorted({'numpy', 'serial', 'cryptography', 'zstandard', 'asyncio'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
    before = os.times()
    ok("--help", cwd=tmp_path)
    after = os.times()
    spent = after.children_user - before.children_user + after.children_system - before.children_system
    assert spent < 0.15


def test_a_whole_write_imports_no_numpy(place):
    code = "import sys\nfrom edgelearn.cli.elflash import main\nmain(sys.argv[1:])\nprint('numpy' in sys.modules)"
    with serving(place, "--trust", "key.pub"):
        command = [sys.executable, "-c", code, "-p", "board", "write", "m.elb", "--activate"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=place, env=CLEAN)
    assert done.stdout.splitlines()[-1] == "False"


def test_every_verb_has_an_example(tmp_path):
    verbs = "ports doctor info write verify slots activate confirm rollback bundle sign keygen image-info resume"
    said = ok("--help", cwd=tmp_path).stdout
    for verb in [*verbs.split(), "serve-virtual", "reset", "erase", "read-log", "completion"]:
        assert verb in said
        assert "example:" in ok(verb, "--help", cwd=tmp_path).stdout


def test_json_lines_end_with_the_result_and_later_writes_send_nothing(place):
    with serving(place, "--trust", "key.pub"):
        env = {"ELFLASH_PORT": "board"}
        lines = ok("--json", "write", "m.elb", "--activate", cwd=place, **env).stdout.splitlines()
        events = [json.loads(line) for line in lines]
        assert events[0]["event"] == "progress"
        assert events[-1]["written"][0]["state"] == "written"
        assert events[-1]["confirmed"] is True
        again = ok("write", "m.elb", "--json", cwd=place, **env).stdout.splitlines()
        assert json.loads(again[-1])["written"][0]["state"] == "present"
        (slot,) = json.loads(ok("slots", "--json", cwd=place, **env).stdout)["slots"]
        assert (slot["running"], slot["confirmed"], slot["version"]) == (True, True, 3)
        assert json.loads(ok("info", "--json", cwd=place, **env).stdout)["board"] == "virtual"
        assert json.loads(ok("verify", "m.elb", "--json", cwd=place, **env).stdout)["verified"][0]["slot"] == 1


def test_progress_is_a_line_per_tenth_where_there_is_no_terminal(place):
    (place / "big.bin").write_bytes(noise(400_000))
    with serving(place, "--unsigned"):
        done = ok("-p", "board", "write", "big.bin", "--unsigned", cwd=place)
        lines = [line for line in done.stderr.splitlines() if "KiB/s" in line]
        assert 3 <= len(lines) <= 11
        assert lines[-1].startswith("100 %")
        assert "\r" not in done.stderr
        silent = ok("-s", "-p", "board", "write", "big.bin", "--unsigned", "--force", cwd=place)
        assert (silent.stdout, silent.stderr) == ("", "")


def test_exit_codes_of_what_a_board_must_not_take(place):
    ok("keygen", "-o", "other.pem", cwd=place)
    for name, words in {
        "strange": ["--key", "other.pem"],
        "bare": ["--unsigned"],
        "old": ["--key", "key.pem", "--version", 2],
        "rpi4": ["--key", "key.pem", "--for-board", "rpi4"],
        "arm": ["--key", "key.pem", "--arch", "armv7l"],
        "abi": ["--key", "key.pem", "--abi", 99],
    }.items():
        (place / f"{name}.bin").write_bytes(model(3000, len(name)))
        ok("bundle", f"{name}.bin", *words, "-o", f"{name}.elb", cwd=place)
    good = (place / "m.elb").read_bytes()
    (place / "cut.elb").write_bytes(good[:-10])
    (place / "long.elb").write_bytes(good + b"x")
    spoiled = good.replace(b"m.bin", b"n.bin", 1)
    (place / "forged.elb").write_bytes(spoiled)
    want = {"strange": 7, "bare": 7, "old": 7, "forged": 7, "rpi4": 6, "arm": 6, "abi": 6, "cut": 8, "long": 8}
    with serving(place, "--trust", "key.pub"):
        ok("-p", "board", "write", "m.elb", "--activate", cwd=place)
        before = ok("-p", "board", "slots", "--json", cwd=place).stdout
        for name, code in want.items():
            done = call("-p", "board", "write", f"{name}.elb", "--activate", cwd=place)
            assert done.returncode == code, (name, done.stderr)
            assert re.search(r": [^:]+\n$", done.stderr), done.stderr
        assert ok("-p", "board", "slots", "--json", cwd=place).stdout == before
        assert not [p for p in (place / "virtual-board" / "incoming").iterdir() if p.suffix == ".part"]


def test_exit_codes_of_trials(place):
    (place / "new.bin").write_bytes(model(6000, 2))
    ok("bundle", "new.bin", "--key", "key.pem", "--version", 4, "-o", "new.elb", cwd=place)
    with serving(place, "--trust", "key.pub", "--faults", "health=answers nothing"):
        at = ["-p", "board"]
        assert call(*at, "confirm", cwd=place).returncode == 11
        assert call(*at, "rollback", cwd=place).returncode == 11
        assert call(*at, "activate", "abc", cwd=place).returncode == 11
        assert call(*at, "resume", "m.elb", cwd=place).returncode == 11
        ok(*at, "write", "m.elb", "--activate", cwd=place)
        done = call(*at, "write", "new.elb", "--activate", "--wait-healthy", "0.2", cwd=place)
        assert done.returncode == 10
        assert "answers nothing" in done.stderr
        assert "m.bin" in ok(*at, "slots", cwd=place).stdout
        again = call(*at, "write", "new.elb", cwd=place)
        assert again.returncode == 10  # present there, and it failed
        assert "failed here before" in again.stderr


def test_activate_confirm_and_rollback_by_hand(place):
    (place / "new.bin").write_bytes(model(6000, 2))
    with serving(place, "--trust", "key.pub", "--unsigned"):
        at = ["-p", "board"]
        ok(*at, "write", "m.elb", "--activate", cwd=place)
        said = json.loads(
            ok(*at, "write", "new.bin", "--unsigned", "--version", 4, "--json", cwd=place).stdout.splitlines()[-1]
        )
        sha256 = said["written"][0]["sha256"]
        marked = call(*at, "activate", sha256[:10], "--no-restart", cwd=place)
        assert marked.returncode == 12
        assert "to be tried" in ok(*at, "slots", cwd=place).stdout
        ok(*at, "reset", cwd=place)
        assert "on trial" in ok(*at, "slots", cwd=place).stdout
        ok(*at, "confirm", cwd=place)
        assert json.loads(ok(*at, "rollback", "--json", cwd=place).stdout)["sha256"] != sha256
        ok(*at, "activate", sha256[:10], cwd=place)
        ok(*at, "erase", cwd=place)
        assert len(ok(*at, "slots", cwd=place).stdout.splitlines()) == 1


def test_several_files_and_differences(place):
    old = model(60_000, 5)
    new = bytearray(old)
    new[30_000:30_004] = b"\0\0\0\0"
    (place / "old.bin").write_bytes(old)
    (place / "new.bin").write_bytes(new)
    (place / "a.bin").write_bytes(noise(700))
    at = ["-p", "board", "--json", "write", "--unsigned"]
    with serving(place, "--unsigned"):
        last = json.loads(ok(*at, "old.bin", "adapter=a.bin", "--activate", cwd=place).stdout.splitlines()[-1])
        assert [row["image"] for row in last["written"]] == ["model", "adapter"]
        differs = ok(*at, "new.bin", "--version", 2, "--diff-with", "old.bin", "--activate", cwd=place).stdout
        (row,) = json.loads(differs.splitlines()[-1])["written"]
        assert row["bytes_sent"] < 6000
        other = model(60_000, 6)
        (place / "other.bin").write_bytes(other)
        (place / "next.bin").write_bytes(other[:-1] + b"x")
        full = ok(*at, "next.bin", "--version", 3, "--diff-with", "other.bin", cwd=place).stdout
        (row,) = json.loads(full.splitlines()[-1])["written"]
        assert row["bytes_sent"] > 60_000  # the board has never had the other one


def test_dry_run_board_name_and_log(place):
    with serving(place, "--trust", "key.pub", "--name", "rpi4"):
        at = ["-p", "board"]
        assert "would be sent" in ok(*at, "write", "m.elb", "--dry-run", cwd=place).stdout
        assert call(*at, "--board", "jetson", "info", cwd=place).returncode == 6
        ok(*at, "--board", "rpi4", "-t", "trace.txt", "info", cwd=place)
        assert " > " in (place / "trace.txt").read_text()
        (place / "virtual-board" / "logs").mkdir()
        (place / "virtual-board" / "logs" / "a.log").write_text("x" * 9000)
        ok(*at, "read-log", "logs/a.log", "-o", "a.log", cwd=place)
        assert (place / "a.log").read_text() == "x" * 9000
        assert call(*at, "read-log", "logs/none", cwd=place).returncode == 9


def test_ports_that_are_not_there_busy_or_silent(place):
    assert call("-p", "/dev/none", "info", cwd=place).returncode == 3
    assert call("-p", "socket://127.0.0.1:1", "info", cwd=place).returncode == 3
    assert call("-p", "nonsense://x", "info", cwd=place).returncode == 3
    master, slave = os.openpty()
    try:
        done = call("-p", os.ttyname(slave), "--connect-attempts", 1, "info", cwd=place)
        assert done.returncode in (3, 4)  # this process holds it
    finally:
        os.close(master)
        os.close(slave)


@pytest.mark.parametrize(
    "words",
    [
        ["frobnicate"],
        ["--baud", "fast", "ports"],
        ["--baud", "1", "ports"],
        ["--connect-attempts", "0", "ports"],
        ["--port-filter", "color=red", "ports"],
        ["bundle", "m.bin", "-o", "x.elb"],
        ["bundle", "m.bin", "model=m.bin", "--unsigned", "-o", "x.elb"],
        ["bundle", "none.bin", "--unsigned", "-o", "x.elb"],
        ["bundle", "m.bin", "--key", "m.bin", "-o", "x.elb"],
        ["bundle", "m.bin", "--unsigned", "--version", "-1", "-o", "x.elb"],
        ["sign", "m.elb", "--key", "key.pub"],
        ["image-info", "none.elb"],
        ["serve-virtual", "--faults", "frog=1"],
        ["serve-virtual", "--trust", "m.bin"],
        ["--config", "none.toml", "ports"],
    ],
)
def test_usage_errors(place, words):
    done = call(*words, cwd=place)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"elflash: .+: .+\n", done.stderr)
    assert not (place / "x.elb").exists()


def test_files_that_are_no_bundles_or_damaged(place):
    assert call("image-info", "m.bin", cwd=place).returncode == 8
    good = (place / "m.elb").read_bytes()
    (place / "bad.elb").write_bytes(good[:-30] + bytes(30))
    assert call("image-info", "bad.elb", cwd=place).returncode == 8
    assert call("sign", "bad.elb", "--key", "key.pem", cwd=place).returncode == 8
    ok("keygen", "-o", "other.pem", cwd=place)
    assert call("image-info", "m.elb", "--trust", "other.pub", cwd=place).returncode == 7
    ok("sign", "m.elb", "--key", "other.pem", cwd=place)
    ok("image-info", "m.elb", "--trust", "other.pub", cwd=place)
    assert call("keygen", "-o", "key.pem", cwd=place).returncode == 8  # it is there: never overwritten
    assert oct((place / "key.pem").stat().st_mode & 0o777) == "0o600"


def test_a_configuration_file_and_the_environment(place):
    (place / "elflash.toml").write_text('port = "/dev/none"\nconnect-attempts = 2\n')
    assert "/dev/none" in call("info", cwd=place).stderr
    assert "/dev/other" in call("info", cwd=place, ELFLASH_PORT="/dev/other").stderr
    assert "/dev/flag" in call("-p", "/dev/flag", "info", cwd=place, ELFLASH_PORT="/dev/other").stderr
    (place / "elflash.toml").write_text("color = 1\n")
    assert call("ports", cwd=place).returncode == 2


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_verb(tmp_path, shell):
    said = ok("completion", shell, cwd=tmp_path).stdout
    assert all(verb in said for verb in ("write", "serve-virtual", "rollback", "wait-healthy"))


def test_completion_works_in_a_real_bash(tmp_path):
    script = ok("completion", "bash", cwd=tmp_path).stdout
    asked = script + 'COMP_WORDS=(elflash write --act); COMP_CWORD=2; _elflash; echo "${COMPREPLY[@]}"\n'
    done = subprocess.run(["bash", "-c", asked], capture_output=True, text=True, check=True)
    assert done.stdout == "--activate\n"


def test_an_interrupt_says_that_the_same_command_goes_on(place):
    (place / "big.bin").write_bytes(noise(3_000_000))
    command = [*ELFLASH, "serve-virtual", "--link", "board", "--unsigned", "--baud", "115200", "--baud-max", "115200"]
    board = subprocess.Popen(command, cwd=place, env=CLEAN, stdout=subprocess.PIPE, text=True, **ALERT)
    board.stdout.readline()
    words = [*ELFLASH, "-p", "board", "write", "big.bin", "--unsigned"]
    host = subprocess.Popen(words, cwd=place, env=CLEAN, stderr=subprocess.PIPE, text=True, **ALERT)
    parts = place / "virtual-board" / "incoming"
    while not list(parts.glob("*.part")) and host.poll() is None:
        time.sleep(0.05)
    time.sleep(1)
    host.send_signal(signal.SIGINT)
    said = host.communicate(timeout=20)[1]
    assert host.returncode == 130
    assert "goes on where it was" in said
    board.send_signal(signal.SIGTERM)
    board.wait(10)
    board.stdout.close()
    with serving(place, "--unsigned"):
        done = ok("-p", "board", "resume", "big.bin", "--unsigned", cwd=place)
        assert "went on at" in done.stdout
