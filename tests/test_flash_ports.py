# SPDX-License-Identifier: Apache-2.0
"""Why a port cannot be used, who holds it, which board answers, and what a board warns of."""

import os
import subprocess
import sys
from contextlib import ExitStack
from types import SimpleNamespace

import pytest
from flashing import noise, remote, stored, virtual, write

from edgelearn.errors import IncompatibleError, NoBoardError, PortError, UsageError
from edgelearn.flash import condition, find, ports
from edgelearn.flash.board import Identity
from edgelearn.flash.ports import Port
from edgelearn.flash.session import Options

HOLDER = (
    "import os, sys, time; os.open(sys.argv[1], os.O_RDWR | os.O_NOCTTY); print('open', flush=True); time.sleep(60)"
)


def process(proc, number, name, *targets):
    """A process of a made-up /proc."""
    folder = proc / str(number) / "fd"
    folder.mkdir(parents=True)
    (folder.parent / "comm").write_text(f"{name}\n")
    for place, target in enumerate(targets):
        (folder / str(place)).symlink_to(target)


def test_holders_are_named_and_virtual_boards_are_none(tmp_path):
    port = tmp_path / "ttyUSB0"
    port.touch()
    process(tmp_path / "proc", 12, "minicom", "/dev/null", port)
    process(tmp_path / "proc", 13, "bash", "/dev/null")
    process(tmp_path / "proc", os.getpid(), "us", port)
    assert ports.holders(str(port), tmp_path / "proc") == ["minicom (12)"]
    process(tmp_path / "proc", 14, "board", "/dev/ptmx", "/dev/pts/999")
    assert ports.holders("/dev/pts/999", tmp_path / "proc") == []


def test_services_that_take_ports_are_known(tmp_path):
    process(tmp_path, 5, "ModemManager")
    process(tmp_path, 6, "brltty")
    process(tmp_path, 7, "bash")
    found = dict(ports.grabbers(tmp_path))
    assert set(found) == {"ModemManager", "brltty"}
    assert all("sudo systemctl stop" in advice for advice in found.values())


def test_a_denied_port_names_the_group_or_the_rule(tmp_path, monkeypatch):
    import grp

    port = tmp_path / "ttyUSB0"
    port.touch()
    monkeypatch.setattr(ports.os, "access", lambda path, mode: False)
    monkeypatch.setattr(grp, "getgrgid", lambda number: SimpleNamespace(gr_name="dialout"))
    assert "sudo usermod -aG dialout $USER" in ports.refusal(str(port))
    monkeypatch.setattr(grp, "getgrgid", lambda number: SimpleNamespace(gr_name="root"))
    assert 'KERNEL=="ttyUSB0"' in ports.refusal(str(port))


def test_a_console_of_the_kernel_is_seen(tmp_path):
    (tmp_path / "cmdline").write_text("console=ttyS7,115200 root=/dev/sda quiet")
    assert ports.console_on("/dev/ttyS7", tmp_path / "cmdline")
    assert not ports.console_on("/dev/ttyS8", tmp_path / "cmdline")
    assert not ports.console_on("/dev/ttyS8", tmp_path / "none")


def test_filters_choose_ports():
    port = Port("/dev/ttyUSB0", 0x0403, 0x6001, "A50285BI", "FT232R USB UART")
    for text in ("vid=0403", "vid=0x403,pid=6001", "name=usb uart", "serial=a502", "name=ttyUSB0", ""):
        assert port.matches(ports.filters(text))
    for text in ("vid=0404", "name=acm", "serial=x", "vid=0403,pid=1"):
        assert not port.matches(ports.filters(text))
    for text in ("color=red", "vid", "vid="):
        with pytest.raises(UsageError, match="joined by commas"):
            ports.filters(text)


def test_a_busy_port_is_exit_4_with_the_name_of_who_holds_it(tmp_path):
    with virtual(tmp_path) as board:
        holder = subprocess.Popen([sys.executable, "-c", HOLDER, board.wire.name], stdout=subprocess.PIPE, text=True)
        try:
            holder.stdout.readline()
            command = [sys.executable, "-m", "edgelearn.cli.elflash", "-p", board.wire.name, "info"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 4
            assert f"({holder.pid})" in done.stderr
        finally:
            holder.kill()
            holder.wait()
            holder.stdout.close()


def listing(monkeypatch, *known):
    monkeypatch.setattr(ports, "listed", lambda: list(known))
    monkeypatch.setattr(ports, "grabbers", lambda: [("ModemManager", "stop it")])


def test_auto_takes_the_only_board_that_answers_and_says_why_not_the_others(tmp_path, monkeypatch):
    master, silent = os.openpty()
    busy = Port("/dev/ttyUSB9", refused="/dev/ttyUSB9 is in use by minicom (3): end that program, then try again")
    options = Options(attempts=1)
    try:
        with virtual(tmp_path / "a") as one, virtual(tmp_path / "b") as two:
            first, second = Port(one.wire.name, 0x0403), Port(two.wire.name)
            listing(monkeypatch, busy, Port(os.ttyname(silent)), first)
            remote = find.connect("auto", {}, "auto", options)
            assert remote.client.link.name == one.wire.name
            remote.client.link.close()
            again = remote.options.connect()  # as after a cable that was pulled
            assert again.name == one.wire.name
            again.close()
            listing(monkeypatch, first, second)
            with pytest.raises(UsageError, match="choose one with -p"):
                find.connect("auto", {}, "auto", options)
            find.connect("auto", {"vid": "0403"}, "virtual", options).client.link.close()
            with pytest.raises(NoBoardError, match="is virtual, not rpi4"):
                find.connect("auto", {}, "rpi4", options)
            with pytest.raises(IncompatibleError, match="is virtual, not rpi4"):
                find.connect(one.wire.name, {}, "rpi4", options)
    finally:
        os.close(master)
        os.close(silent)
    listing(monkeypatch, busy)
    with pytest.raises(PortError, match=r"minicom \(3\).*ModemManager"):
        find.connect("auto", {}, "auto", options)
    listing(monkeypatch)
    with pytest.raises(NoBoardError, match="no serial port"):
        find.connect("auto", {}, "auto", options)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # pyserial leaves broken sockets open
def test_a_board_that_comes_back_on_another_port_is_gone_on_with(tmp_path, monkeypatch):
    moved, data = [], noise(150_000)
    with ExitStack() as first, ExitStack() as second:
        one = first.enter_context(virtual(tmp_path, tcp=True))

        def move(done, total):
            if done > total / 2 and not moved:
                first.close()  # what has arrived is made durable
                moved.append(second.enter_context(virtual(tmp_path, tcp=True)))
                listing(monkeypatch, Port(moved[0].wire.name))

        listing(monkeypatch, Port(one.wire.name))
        remote = find.connect("auto", {}, "auto", Options(patience=30))
        remote.prepare_line(0)
        assert write(remote, data, told=move).state == "written"
        assert remote.client.link.name == moved[0].wire.name != one.wire.name
        assert stored(moved[0]) == [data]
        remote.client.link.close()


def test_a_board_that_a_killed_host_left_at_another_rate_is_found(tmp_path):
    with virtual(tmp_path) as board:
        with remote(board) as host:
            host.prepare_line(10_000_000)
            assert board.endpoint.baud > 115_200
        find.connect(board.wire.name, {}, "auto", Options(attempts=1)).client.link.close()
        assert board.endpoint.baud == 115_200


def test_a_board_at_another_rate_is_found_by_its_rate(tmp_path, monkeypatch):
    monkeypatch.setattr(find, "LEFT", 0.2)
    with virtual(tmp_path, identity=Identity(baud=460_800)) as board:
        with pytest.raises(NoBoardError, match="at 115200 baud: check that it runs"):
            find.connect(board.wire.name, {}, "auto", Options(attempts=1))
        remote = find.connect(board.wire.name, {}, "auto", Options(attempts=1, baud=460_800))
        assert (remote.base, remote.info["board"]) == (460_800, "virtual")
        remote.client.link.close()


def test_what_a_board_warns_of(tmp_path):
    assert len(condition.warnings(tmp_path, now=0.0)) == 2  # no PSI, no clock
    (tmp_path / "proc/pressure").mkdir(parents=True)
    (tmp_path / "proc/pressure/memory").touch()
    (tmp_path / "sys/fs/cgroup").mkdir(parents=True)
    controllers = tmp_path / "sys/fs/cgroup/cgroup.controllers"
    controllers.write_text("cpu io pids\n")
    assert "cgroup_enable=memory" in condition.warnings(tmp_path, now=2e9)[0]
    controllers.write_text("cpu io memory\n")
    assert condition.warnings(tmp_path, now=2e9) == []
