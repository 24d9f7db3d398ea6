# SPDX-License-Identifier: Apache-2.0
"""The command line, the systemd unit, the watchdog, the doctor and the drop folder."""

import json
import shutil
import socket

import numpy as np
import pytest
from daemons import beginner, daemon, model, pictures, until

import edgelearn as el
from edgelearn.cli import main
from edgelearn.daemon import checks, service

X, Y = pictures(60, seed=21)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    folder = tmp_path_factory.mktemp("operation")
    with daemon(folder / "data", "--model", beginner(folder / "first.safetensors")) as running:
        running.second = model(folder / "second.safetensors")
        yield running


@pytest.fixture
def run(served, monkeypatch, capsys):
    """A command that talks to the daemon; its exit code and JSON."""
    monkeypatch.setenv("EDGELEARN_DAEMON", f"unix:{served.folder}/api.sock")

    def command(*arguments):
        code = main([str(a) for a in (*arguments, "--json")])
        said = capsys.readouterr()
        lines = said.out.splitlines()
        return code, json.loads(lines[-1]) if lines else said.err

    return command


def test_commands_say_and_do_what_the_client_does(served, run, tmp_path):
    code, first = run("history")
    assert (code, [v["state"] for v in first["versions"]]) == (0, ["live"])
    code, pushed = run("push", served.second, "--note", "by hand")
    assert (code, pushed["note"]) == (0, "by hand")
    assert run("promote", pushed["id"][:10])[1]["id"] == pushed["id"]
    assert run("status")[1]["live"]["id"] == pushed["id"]
    old = first["versions"][0]["id"]
    assert {layer["name"] for layer in run("diff", old, pushed["id"])[1]["layers"]} >= {"dense.weight"}
    assert run("rollback")[1]["id"] == old
    assert run("rollback", pushed["id"])[1]["id"] == pushed["id"]
    np.savez(tmp_path / "d.npz", x_train=X, y_train=Y, x_test=X[:3], y_test=Y[:3])
    code, sent = run("samples", tmp_path / "d.npz")
    assert (code, sent["sent"], sent["counts"]["calm"]) == (0, 60, 20)
    assert len(run("samples", "--label", "wild", "--limit", "5")[1]["samples"]) == 5
    job = run("samples", "--train")[1]["job"]
    code, ended = run("cancel")
    assert (code, ended["id"], ended["state"], ended["active"]) == (0, job, "cancelled", False)
    code, said = run("cancel")
    assert (code, "no job is under way" in said) == (2, True)
    code, last = run("watch", "--once")
    assert (code, last["id"]) == (0, run("status")[1]["last_event"])


def test_commands_that_cannot_be_done_say_why(served, run, tmp_path, monkeypatch):
    assert run("push", tmp_path / "none.safetensors")[0] == 5
    assert run("push", __file__)[0] == 6
    assert run("promote", "ffff")[0] == 2
    monkeypatch.setenv("EDGELEARN_DAEMON", f"unix:{tmp_path}/none.sock")
    code, said = run("status")
    assert code == 1
    assert "start edgelearnd, or set EDGELEARN_DAEMON" in said
    monkeypatch.setenv("EDGELEARN_DAEMON", "nowhere")
    assert run("status")[0] == 2


def test_files_in_the_drop_folder_become_samples(served):
    client, drop = served.client, served.folder / "drop"
    before = client.samples()["counts"].get("wild", 0)
    for name in ("wild", "odd"):
        (drop / name).mkdir(parents=True, exist_ok=True)
    np.save(drop / "wild" / "a.npy", X[2])
    np.save(drop / "odd" / "b.npy", X[0])
    (drop / "c.npy").write_bytes(b"no array")
    until(lambda: client.samples()["counts"].get("wild", 0) == before + 1)
    until(lambda: sorted(p.name for p in (drop / "refused").glob("*")) == ["b.npy", "c.npy"])
    until(lambda: not (drop / "wild" / "a.npy").exists())
    until(lambda: "'odd' is no class" in served.said())
    sample = client.samples(label="wild", limit=1)["samples"][0]
    assert sample["source"] == "drop a.npy"


@pytest.mark.parametrize("of_user", [False, True])
def test_the_unit_is_one_that_systemd_takes(tmp_path, of_user):
    unit = service.Service(of_user, tmp_path / "my data", ["127.0.0.1:8080"], tmp_path / "m 100%.safetensors", 300)
    text = unit.text()
    for line in ("Type=notify", "WatchdogSec=60", "NoNewPrivileges=yes", "ProtectSystem=strict", "MemoryMax=300M"):
        assert line in text.splitlines()
    assert ("User=edgelearn" in text) != of_user
    assert '"' + str(tmp_path / "m 100%%.safetensors") + '"' in text
    (tmp_path / "edgelearn.service").write_text(text)
    if shutil.which("systemd-analyze"):
        said = service.verify(tmp_path / "edgelearn.service")
        assert not said or "User edgelearn" in said, said
        (tmp_path / "edgelearn.service").write_text(text.replace("Type=notify", "Type=nonsense"))
        assert "nonsense" in service.verify(tmp_path / "edgelearn.service")


def test_the_unit_listens_in_its_runtime_folder_and_sees_the_home_that_it_lies_in(tmp_path, monkeypatch):
    assert " --listen unix:%t/edgelearn/api.sock" in service.Service(True).text(), "%t is for systemd to fill in"
    monkeypatch.setattr(service, "HOMES", (tmp_path / "none",))
    assert "ProtectHome=yes" in service.Service().text()
    monkeypatch.setattr(service, "HOMES", (tmp_path,))
    monkeypatch.setattr(service, "SYSTEM", tmp_path / "units")
    unit = service.Service(model=tmp_path / "pi" / "m.safetensors")
    assert "ProtectHome=read-only" in unit.text()
    (tmp_path / "pi").mkdir(mode=0o700)
    with pytest.raises(el.OutputError, match=f"{tmp_path}.* is closed to user edgelearn: install edgelearn below /opt"):
        unit.install()
    assert not (tmp_path / "units").exists()


def test_the_service_can_be_looked_at_and_refuses_what_it_cannot(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert main(["service", "install", "--user", "--dry-run"]) == 0
    assert "ExecStart=" in capsys.readouterr().out
    assert main(["service", "uninstall", "--user"]) == 8
    assert "nothing is installed" in capsys.readouterr().err
    with pytest.raises(el.UsageError, match="printable"):
        service.Service(True, model=tmp_path / "a\nb").text()


def test_systemd_is_told_when_it_is_ready_and_while_it_is_well(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line:
        line.bind(str(tmp_path / "notify"))
        line.settimeout(120)
        surroundings = {"NOTIFY_SOCKET": str(tmp_path / "notify"), "WATCHDOG_USEC": "600000"}
        with daemon(tmp_path / "data", tcp=False, environment=surroundings) as running:
            assert b"READY=1" in line.recv(4096)
            assert b"WATCHDOG=1" in line.recv(4096)
            running.process.terminate()
            said = line.recv(4096)
            while b"WATCHDOG" in said:
                said = line.recv(4096)
            assert said == b"STOPPING=1"


def found(folder, root, **more):
    return {check.name: check for check in checks.board(folder, root, **more)}


def test_the_doctor_names_what_will_bite(tmp_path):
    root = tmp_path / "root"
    zone = root / "sys/class/thermal/thermal_zone0"
    zone.mkdir(parents=True)
    (zone / "temp").write_text("81000")
    (root / "proc").mkdir()
    (root / "proc/cgroups").write_text("#subsys_name hierarchy num_cgroups enabled\nmemory 0 45 0\n")
    (root / "proc/mounts").write_text(f"tmpfs {tmp_path} tmpfs rw 0 0\n")
    firmware = root / "sys/devices/platform/soc/soc:firmware"
    firmware.mkdir(parents=True)
    (firmware / "get_throttled").write_text("50000")
    bad = found(tmp_path / "data", root, now=86400.0)
    assert {name for name, check in bad.items() if check.level == "warning"} >= {
        *("memory cgroup", "clock", "storage", "heat", "power")
    }
    assert "cgroup_enable=memory" in bad["memory cgroup"].message
    assert "1970" in bad["clock"].message
    (root / "proc/cgroups").write_text("memory 0 45 1\n")
    (root / "proc/pressure").mkdir()
    (root / "proc/pressure/memory").write_text("some avg10=0.00\n")
    (root / "proc/mounts").write_text("/dev/mmcblk0p2 / ext4 rw 0 0\n")
    (zone / "temp").write_text("41000")
    (firmware / "get_throttled").write_text("0")
    assert {check.level for check in found(tmp_path, root).values() if check.name != "disk"} == {"fine"}


def test_the_doctor_is_asked_on_the_board_and_over_http(served, capsys):
    assert main(["doctor", "--json"]) == 0
    assert {check["name"] for check in json.loads(capsys.readouterr().out.splitlines()[-1])["board"]} >= {
        "clock",
        "disk",
    }
    status, answer = served.json("GET", "/v1/doctor")
    assert status == 200
    assert {check["name"] for check in answer["checks"]} >= {"clock", "disk"}
