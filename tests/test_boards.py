# SPDX-License-Identifier: Apache-2.0
"""Board profiles: complete, sourced, and refused when a figure is missing or cannot be; this machine's own."""

from __future__ import annotations

import json
import os

import pytest

import edgelearn as el
from edgelearn.cli import main
from edgelearn.costs import boards, latency
from edgelearn.graph import build
from edgelearn.layers import Conv2D, Dense

ASKED = [
    *("generic-x86-64", "raspberry-pi-zero-2w", "raspberry-pi-3b", "raspberry-pi-4b", "raspberry-pi-5"),
    *("jetson-nano", "jetson-orin-nano", "jetson-agx-orin"),
]


def text_of(name):
    return next(p for folder in boards.FOLDERS if (p := folder / f"{name}.toml").is_file()).read_text()


def test_the_boards_that_are_promised_are_there_and_every_figure_has_a_source():
    assert set(ASKED) <= set(boards.names())
    for name in boards.names():
        board = boards.load(name)
        assert set(board.figures) <= set(board.sources)
        assert board.peak_flops > 1e9
        assert board.ram > board.last_cache > 0


def test_figures_that_depend_on_each_other_are_in_order():
    zero, three, four, five = (boards.load(f"raspberry-pi-{n}") for n in ("zero-2w", "3b", "4b", "5"))
    assert zero.peak_flops < three.peak_flops < four.peak_flops < five.peak_flops
    assert zero.bandwidth <= three.bandwidth < four.bandwidth < five.bandwidth
    assert (zero.figures["memory.ram_mb"], zero.figures["cpu.cores"]) == (512, 4)


@pytest.mark.parametrize(
    ("line", "instead", "words"),
    [
        ("clock_mhz = 1000\n", "", "cpu.clock_mhz is missing: look it up in the board's data sheet"),
        ("clock_mhz = 1000", "clock_mhz = 0", "cpu.clock_mhz = 0 cannot be: write a whole number from 50 to 10,000"),
        ("clock_mhz = 1000", "clock_mhz = 1e99", "cpu.clock_mhz = 1e\\+99 cannot be"),
        ("cores = 4", "cores = true", "cpu.cores = True cannot be"),
        ("bandwidth_gbs = 3.6", "bandwidth_gbs = nan", "memory.bandwidth_gbs = nan cannot be"),
        ("ram_mb = 512", 'ram_mb = "512"', "memory.ram_mb = '512' cannot be"),
        ('isa = ["neon"]', 'isa = ["mmx"]', "cpu.isa = \\['mmx'\\] is not known: choose from"),
        ('isa = ["neon"]', "isa = []", "cpu.isa must be a list of names"),
        ('core = "Cortex-A53"', "core = 53", "cpu.core = 53 cannot be: write it as text"),
        ('core = "Cortex-A53"\n', "", "cpu.core is missing: write it as text"),
        ('zones = ["cpu-thermal"]\n', "", "thermal.zones is missing: write a list of at least one name"),
        ("baud = 115200", "baud = 0", "serial.baud = 0 cannot be: write a whole number from 300 to 12,000,000"),
        ("clock_mhz = 1000", "clok_mhz = 1000", "cpu.clok_mhz is no figure of a board: write cpu.clock_mhz"),
        ("[cpu]", "cores = 4\n[cpu]", "cores is no figure of a board: write cpu.cores"),
        ("[cpu]", "[gpu]\ncompute = 1\n[cpu]", "gpu.compute is no figure of a board: leave it out"),
        ("match = [", "match = 7 # [", "match = 7 cannot be: list parts of what /proc/device-tree/model says"),
        ('match = ["Raspberry Pi Zero 2"]', 'match = "Pi"', "match = 'Pi' cannot be: list parts"),
        ("title = ", "title = 3 # ", "title = 3 cannot be: write it as text"),
        ('"serial.baud" = ', '"serial.bauds" = ', 'serial.baud has no source: write "serial.baud" = '),
        ("[cpu]", "[cpu", "is not TOML"),
        ("[cpu]", "deep = " + "[" * 5000 + "\n[cpu]", "is not TOML"),
    ],
)
def test_profiles_with_a_missing_or_impossible_figure_are_refused(tmp_path, line, instead, words):
    text = text_of("raspberry-pi-zero-2w")
    assert line in text
    path = tmp_path / "board.toml"
    path.write_text(text.replace(line, instead, 1))
    with pytest.raises(el.ModelError, match=words):
        boards.check(path)
    assert main(["boards", "check", str(path)]) == 5


def test_a_profile_whose_sources_are_no_table_has_none(tmp_path):
    path = tmp_path / "board.toml"
    path.write_text("sources = 3\n" + text_of("raspberry-pi-zero-2w").split("\n[sources]")[0])
    with pytest.raises(el.ModelError, match="cpu.core has no source"):
        boards.check(path)


def test_an_unknown_board_is_refused_with_the_names_that_are_known():
    with pytest.raises(el.UsageError, match="no board 'arduino'.*raspberry-pi-5"):
        boards.load("arduino")


def test_this_machine_has_a_profile_with_what_the_system_says():
    board = boards.detect()
    assert board.figures["cpu.cores"] == os.cpu_count()
    assert board.figures["memory.ram_mb"] == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") >> 20
    if board.name == boards.GENERIC:
        assert board.sources["cpu.cores"] == "this machine's operating system"


def test_a_board_is_recognised_by_its_device_tree(monkeypatch):
    monkeypatch.setattr(boards, "_device_tree", lambda: "Raspberry Pi Zero 2 W Rev 1.0")
    assert boards.detect().name == "raspberry-pi-zero-2w"
    monkeypatch.setattr(boards, "_memory", lambda: 1930 << 20)
    monkeypatch.setattr(boards, "_device_tree", lambda: "NVIDIA Jetson Nano 2GB Developer Kit")
    nano = boards.detect()
    assert (nano.name, nano.figures["memory.ram_mb"]) == ("jetson-nano", 1930)
    assert nano.title == "NVIDIA Jetson Nano"
    monkeypatch.setattr(boards, "_device_tree", lambda: "NVIDIA Jetson AGX Orin Developer Kit")
    assert boards.detect().name == "jetson-agx-orin"


def test_the_command_lists_checks_and_detects(tmp_path, capsys):
    assert main(["boards", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out.splitlines()[-1])["boards"]
    assert {board["name"] for board in listed} >= set(ASKED)
    path = tmp_path / "mine.toml"
    path.write_text(text_of("jetson-nano"))
    assert main(["boards", "check", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["figures"]["memory.ram_mb"] == 4096
    assert main(["boards", "detect"]) == 0
    assert "cpu.cores" in capsys.readouterr().out
    assert main(["boards", "check"]) == 2
    assert "takes the file of one board" in capsys.readouterr().err


def test_the_roofline_grows_with_the_net_and_falls_with_the_board():
    nets = [build([Conv2D(n, 3), Dense(10)], (12, 12, 3)) for n in (4, 16, 64)]
    zero, five = (latency.Roofline(boards.load(f"raspberry-pi-{n}")) for n in ("zero-2w", "5"))
    for line in (zero, five):
        times = [line.seconds(net) for net in nets]
        assert times == sorted(times)
    assert all(five.seconds(net) < zero.seconds(net) for net in nets)
    macs = nets[2].macs
    assert zero.seconds(nets[2]) >= 2 * macs / zero.board.peak_flops


def test_the_roofline_of_a_submodel_is_that_of_a_plain_net_of_it():
    net = el.Net([el.Dense(256), el.Dense(256), el.Dense(10)], input_shape=(784,), nested=True)
    line = latency.Roofline(boards.load("raspberry-pi-zero-2w"))
    for width in (0.125, 0.5, [0.25, 1.0], 1.0):
        small = net.submodel(width)
        assert line.seconds(small.graph) == pytest.approx(line.seconds(small.compact().graph))


def test_tables_are_interpolated_in_logarithms_and_go_on_beyond_their_ends():
    axes = latency.Axes(((10, 100), (1, 4)), tuple(2e-9 * a * b for a in (10, 100) for b in (1, 4)))
    for size in ((10, 1), (100, 4), (31, 2), (1000, 16), (1, 1)):
        assert axes.at(size) == pytest.approx(2e-9 * size[0] * size[1])
