# SPDX-License-Identifier: Apache-2.0
"""What boards say, from files as they have them, and when training gives way to it."""

import time

import pytest

from edgelearn.daemon.board import Board, Reading
from edgelearn.daemon.governor import CAUSES, PAUSE, RUN, STOP, Governor
from edgelearn.daemon.sections import Govern, Keep

MB = 1 << 20
NOON = time.mktime((2026, 6, 1, 12, 0, 0, 0, 0, -1))


def put(root, **files):
    for path, text in files.items():
        place = root / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text)


def governor(**settings):
    return Governor(Govern(**settings), Keep())


def zone(root, number, kind, millidegrees):
    put(root, **{f"sys/class/thermal/thermal_zone{number}/{n}": t for n, t in (("type", kind), ("temp", millidegrees))})


def test_a_raspberry_pi(tmp_path):
    zone(tmp_path, 0, "cpu-thermal\n", "61300\n")
    put(tmp_path, **{"sys/devices/platform/soc/soc:firmware/get_throttled": "50005\n"})
    put(tmp_path, **{"proc/meminfo": "MemTotal: 440000 kB\nMemAvailable:   102400 kB\n"})
    reading = Board(tmp_path, tmp_path).read()
    assert (reading.temperature, reading.throttled, reading.available) == (61.3, 0x50005, 100 * MB)
    assert (reading.mains, reading.pressure, reading.mode) == (None, None, None)
    assert reading.free > 0


def test_a_jetson(tmp_path):
    zone(tmp_path, 0, "CPU-therm\n", "48000\n")
    zone(tmp_path, 1, "GPU-therm\n", "52500\n")
    zone(tmp_path, 2, "PMIC-Die\n", "100000\n")
    zone(tmp_path, 3, "broken\n", "255000\n")
    zone(tmp_path, 4, "off\n", "\n")
    put(tmp_path, **{"var/lib/nvpmodel/status": "pmode:0001", "proc/pressure/memory": "some avg10=7.50 avg60=1.00\n"})
    reading = Board(tmp_path, tmp_path).read()
    assert (reading.temperature, reading.mode, reading.pressure, reading.throttled) == (52.5, "0001", 7.5, None)


def test_the_word_of_vcgencmd_where_sysfs_has_none(tmp_path, monkeypatch):
    command = tmp_path / "bin" / "vcgencmd"
    put(tmp_path, **{"bin/vcgencmd": '#!/bin/sh\n[ "$1" = get_throttled ] && echo throttled=0x50001\n'})
    command.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/bin:/bin:/usr/bin")
    assert Board(tmp_path, tmp_path).read().throttled == 0x50001
    put(tmp_path, **{"bin/vcgencmd": "#!/bin/sh\nexit 1\n"})
    assert Board(tmp_path, tmp_path).read().throttled is None


@pytest.mark.parametrize(
    ("supplies", "mains"),
    [
        ({}, None),
        ({"AC/type": "Mains", "AC/online": "1"}, None),
        ({"AC/type": "Mains", "AC/online": "1", "B/type": "Battery", "B/status": "Full"}, True),
        ({"AC/type": "Mains", "AC/online": "0", "B/type": "Battery", "B/status": "Discharging"}, False),
        ({"B/type": "Battery", "B/status": "Discharging"}, False),
        ({"B/type": "Battery", "B/status": "Charging"}, True),
    ],
)
def test_mains_or_battery(tmp_path, supplies, mains):
    put(tmp_path, **{f"sys/class/power_supply/{path}": text for path, text in supplies.items()})
    assert Board(tmp_path, tmp_path).read().mains is mains


def test_a_board_that_says_nothing_lets_training_run(tmp_path):
    reading = Board(tmp_path / "none", tmp_path).read()
    assert reading == Reading()
    assert governor().decide(reading).action == RUN


@pytest.mark.parametrize(
    ("settings", "readings"),
    [
        ({"temperature": 75, "hysteresis": 5}, [("temperature", v) for v in (69, 75.5, 72, 70)]),
        ({"available": "64MB"}, [("available", v * MB) for v in (100, 60, 70, 90)]),
        ({}, [("pressure", v) for v in (1.0, 30.0, 10.0, 4.0)]),
        ({}, [("free", v * MB) for v in (100, 60, 70, 90)]),
    ],
)
def test_what_holds_training_back_must_be_clearly_over(settings, readings):
    one = governor(**settings)
    decisions = [one.decide(Reading(**{name: value})) for name, value in readings]
    assert [decision.action == RUN for decision in decisions] == [True, False, False, True]
    assert all(decision.reason for decision in decisions[1:3])


def test_a_supply_that_flickers_is_weak_until_it_has_been_calm():
    one = governor()
    words = [0x1, 0x50000, 0x50001, *[0x50000] * 19]
    assert [one.decide(Reading(throttled=word)).action for word in words] == [PAUSE] * 22
    assert one.decide(Reading(throttled=0x50000)).action == RUN


@pytest.mark.parametrize(
    ("reading", "settings", "expected", "reason"),
    [
        (Reading(temperature=90), {}, PAUSE, "too hot"),
        (Reading(temperature=73), {}, RUN, "close to the limit"),
        (Reading(throttled=0x1), {}, PAUSE, "under-voltage"),
        (Reading(throttled=0x4), {}, PAUSE, "throttled"),
        (Reading(throttled=0x8), {}, RUN, "limits its frequency"),
        (Reading(throttled=0x50000), {}, RUN, ""),
        (Reading(available=10 * MB), {}, STOP, "memory are free"),
        (Reading(free=10 * MB), {}, PAUSE, "disk are free"),
        (Reading(mains=False), {}, PAUSE, "battery"),
        (Reading(mains=False), {"battery": True}, RUN, ""),
        (Reading(), {"windows": ("22:00-06:00",)}, PAUSE, "waits for its time of day, 22:00-06:00"),
        (Reading(), {"windows": ("11:00-13:00",)}, RUN, ""),
        (Reading(), {"windows": ("22:00-06:00", "11:59-12:01")}, RUN, ""),
    ],
)
def test_each_reason(reading, settings, expected, reason):
    decision = governor(**settings).decide(reading, now=NOON)
    assert decision.action == expected
    assert reason in decision.reason
    assert bool(decision.reason) == (decision.cause in CAUSES) == (reason != "")


def test_more_than_one_reason_counts_by_the_worst():
    decision = governor(cpu=0.25).decide(Reading(temperature=73, available=1, mains=False), now=NOON)
    assert decision.action == STOP
    assert governor(cpu=0.25).decide(Reading(temperature=73)).duty == 0.25
    assert governor().decide(Reading(temperature=73)).duty == 0.5


def test_the_trainer_has_a_limit_of_its_own_and_a_clock_that_is_not_set_closes_no_window():
    assert governor(memory="100MB").decide(Reading(), 101 * MB).action == STOP
    assert governor(memory="100MB").decide(Reading(), 99 * MB).action == RUN
    assert governor(windows=("22:00-06:00",)).decide(Reading(), now=60 * 60 * 12).action == RUN
