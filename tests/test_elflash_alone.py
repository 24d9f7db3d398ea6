# SPDX-License-Identifier: Apache-2.0
"""`elflash` without a board: usage, files, settings, ports, completion."""

import argparse
import os
import re
import shutil
import subprocess

import pytest
from elflash_commands import call, ok

from edgelearn.cli.elflash_output import Bar, drawn
from edgelearn.flash import bundle as bundles


def test_ports_that_are_not_there_busy_or_silent(bundled):
    assert call("-p", "/dev/none", "info", cwd=bundled).returncode == 3
    assert call("-p", "socket://127.0.0.1:1", "info", cwd=bundled).returncode == 3
    assert call("-p", "nonsense://x", "info", cwd=bundled).returncode == 3
    for place in ("m.bin", "/dev/null"):
        assert f"{place} is no serial port" in call("-p", place, "info", cwd=bundled).stderr
    master, slave = os.openpty()
    try:
        done = call("-p", os.ttyname(slave), "--connect-attempts", 1, "info", cwd=bundled)
        assert (done.returncode, "at 115200 baud" in done.stderr) == (3, True)
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
        ["bundle", "m.bin", "--unsigned", "--abi", "99999", "-o", "x.elb"],
        ["sign", "m.elb", "--key", "key.pub"],
        ["image-info", "none.elb"],
        ["serve-virtual", "--faults", "frog=1"],
        ["serve-virtual", "--trust", "m.bin"],
        ["serve-virtual", "--tcp", "99999"],
        ["serve-virtual", "--latency", "-5"],
        ["serve-virtual", "--link", "none/board"],
        ["--config", "none.toml", "ports"],
        ["--reconnect", "-1", "ports"],
        ["ports", "-p", "board"],
        ["ports", "--frobnicate"],
        ["bundle", "m.bin", "--unsigned", "-o", "none/x.elb"],
        ["keygen", "-o", "key.pem"],
    ],
)
def test_usage_errors(bundled, words):
    done = call(*words, cwd=bundled)
    assert done.returncode == 2, done.stderr
    assert re.fullmatch(r"elflash: .+: .+\n", done.stderr)
    assert not (bundled / "x.elb").exists()


def test_files_that_are_no_bundles_or_damaged(bundled):
    assert call("image-info", "m.bin", cwd=bundled).returncode == 8
    good = (bundled / "m.elb").read_bytes()
    (bundled / "bad.elb").write_bytes(good[:-30] + bytes(30))
    assert call("image-info", "bad.elb", cwd=bundled).returncode == 8
    assert call("sign", "bad.elb", "--key", "key.pem", cwd=bundled).returncode == 8
    found = bundles.read(bundled / "m.elb")
    first = found.forms[0].packing, bundles.payload(bundled / "m.elb", found.forms[0])
    bundles._write(bundled / "two.elb", found.raw, found.signature, [first, ("none", b"of nothing")])
    assert call("image-info", "two.elb", cwd=bundled).returncode == 8
    ok("keygen", "-o", "other.pem", cwd=bundled)
    assert call("image-info", "m.elb", "--trust", "other.pub", cwd=bundled).returncode == 7
    ok("sign", "m.elb", "--key", "other.pem", cwd=bundled)
    ok("image-info", "m.elb", "--trust", "other.pub", cwd=bundled)
    assert "choose another name" in call("keygen", "-o", "key.pem", cwd=bundled).stderr  # never overwritten
    assert oct((bundled / "key.pem").stat().st_mode & 0o777) == "0o600"


def test_half_a_pair_of_keys_is_not_left(bundled):
    (bundled / "old.pub").write_text("somebody's")
    assert "cannot write old.pub (File exists)" in call("keygen", "-o", "old.pem", cwd=bundled).stderr
    assert not (bundled / "old.pem").exists()
    assert (bundled / "old.pub").read_text() == "somebody's"


def test_where_an_error_comes_from_is_said_beside_its_sentence_and_code(bundled):
    done = call("-vv", "-p", "/dev/none", "info", cwd=bundled)
    assert done.returncode == 3
    assert "open_link" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("elflash: /dev/none is not there: ")


def test_a_configuration_file_and_the_environment(bundled):
    (bundled / "elflash.toml").write_text('port = "/dev/none"\nconnect-attempts = 2\n')
    assert "/dev/none" in call("info", cwd=bundled).stderr
    assert "/dev/other" in call("info", cwd=bundled, ELFLASH_PORT="/dev/other").stderr
    assert "/dev/flag" in call("-p", "/dev/flag", "info", cwd=bundled, ELFLASH_PORT="/dev/other").stderr
    for wrong in ("color = 1", "port = 3", 'connect-attempts = "x"', 'framing = "slip"', "reconnect = true", "port ="):
        (bundled / "elflash.toml").write_text(f"{wrong}\n")
        done = call("ports", cwd=bundled)
        assert (done.returncode, "elflash.toml" in done.stderr) == (2, True), done.stderr


def test_what_is_wrong_is_said_before_what_would_be_wrong_next(bundled):
    assert "cannot read none.bin" in call("bundle", "none.bin", "-o", "x.elb", cwd=bundled).stderr
    assert "put it before 'ports'" in call("ports", "--port=board", cwd=bundled).stderr
    for words in (["none.elb"], ["m.elb", "adapter=none.elb"], ["m.elb", "--diff-with", "none.elb"]):
        done = call("-p", "/dev/none", "write", *words, cwd=bundled)
        assert (done.returncode, "cannot read none.elb (No such file" in done.stderr) == (2, True), done.stderr


def test_a_bar_fits_its_line_and_gives_way_to_its_text(capsys):
    text = "model.safetensors 131,072 of 306,814 bytes, 55.7 KiB/s, 12 retries, ETA 3 s"
    assert drawn(0.5, text, 120) == f"[{'#' * 12}{'.' * 12}] {text}"
    assert drawn(0.5, text, 90) == f"[{'#' * 5}{'.' * 6}] {text}"
    assert drawn(0.5, text, 80) == text
    assert drawn(0.5, text, 40) == text[:39]
    quiet = argparse.Namespace(json=False, silent=False, no_progress=False)
    Bar(quiet, "m.bin", lambda: 1)(50, 100)
    assert "1 retry" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_every_verb(tmp_path, shell):
    said = ok("completion", shell, cwd=tmp_path).stdout
    assert all(verb in said for verb in ("write", "serve-virtual", "rollback", "wait-healthy"))


ASK = {
    "bash": 'COMP_WORDS=(elflash {words}); COMP_CWORD={last}; _elflash; echo "${{COMPREPLY[@]}}"',
    "zsh": 'setopt ksharrays; COMP_WORDS=(elflash {words}); COMP_CWORD={last}; _elflash; echo "${{COMPREPLY[@]}}"',
    "fish": 'complete -C "elflash {words}"',
}
COMMANDS = {"bash": ["bash", "-c"], "zsh": ["zsh", "-f", "-c"], "fish": ["fish", "--no-config", "-c"]}
COMPLETED = {
    "write --act": "--activate",
    "-p board roll": "rollback",
    "completion z": "zsh",
    "--port-f": "--port-filter",
    "--framing cob": "cobs",
    "write --image ad": "adapter",
}


@pytest.mark.parametrize("shell", ASK)
def test_completion_works_in_the_real_shell(tmp_path, shell):
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    script = ok("completion", shell, cwd=tmp_path).stdout
    asked = [ASK[shell].format(words=words, last=len(words.split())) for words in COMPLETED]
    done = subprocess.run([*COMMANDS[shell], "\n".join([script, *asked])], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    offered = [line.split() for line in done.stdout.splitlines()]  # zsh compares with what was typed only afterwards
    assert all(want in words for want, words in zip(COMPLETED.values(), offered, strict=True))
    assert shell == "zsh" or [len(words) for words in offered] == [1] * len(COMPLETED)
