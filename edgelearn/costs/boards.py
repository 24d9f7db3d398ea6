# SPDX-License-Identifier: Apache-2.0
"""Boards as records: cores, caches, memory, heat, serial line, and where each figure comes from. boards/*.toml hold
them; this machine is recognised by its device tree."""

from __future__ import annotations

import difflib
import math
import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgelearn import tomlfile
from edgelearn.errors import ModelError, UsageError

FOLDERS = tuple(Path(__file__).parents[up] / "boards" for up in (1, 2))
"""Where names are looked up: the installed package, then the source tree."""

GENERIC = "generic-x86-64"

Limits = tuple[type, float, float]

FIGURES: dict[str, Limits] = {
    "cpu.cores": (int, 1, 256),
    "cpu.clock_mhz": (int, 50, 10_000),
    "cpu.flops_per_cycle": (int, 1, 128),
    "cache.l1d_kb": (int, 4, 1024),
    "cache.l2_kb": (int, 0, 65_536),
    "memory.ram_mb": (int, 16, 4_194_304),
    "memory.bandwidth_gbs": (float, 0.1, 2000),
    "thermal.limit_c": (float, 30, 125),
    "serial.baud": (int, 300, 12_000_000),
}
"""Figures that every board has: type, least and most that can be meant."""

OPTIONAL: dict[str, Limits] = {"cache.l3_kb": (int, 128, 1_048_576)}

WORDS = ("cpu.core", "storage.kind", "serial.device")
LISTS = ("cpu.isa", "thermal.zones", "onnxruntime.providers")
ISAS = ("scalar", "neon", "avx2", "avx512")


@dataclass(frozen=True)
class Board:
    """A board's figures by dotted name, such as cpu.clock_mhz (FIGURES, WORDS, LISTS), and the source of each."""

    name: str
    title: str
    match: tuple[str, ...]
    figures: Mapping[str, Any] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def peak_flops(self) -> float:
        """Floating-point operations per second of one core, multiply and add counted apart."""
        return float(self.figures["cpu.clock_mhz"]) * 1e6 * float(self.figures["cpu.flops_per_cycle"])

    @property
    def bandwidth(self) -> float:
        """Bytes per second between memory and caches, at most."""
        return float(self.figures["memory.bandwidth_gbs"]) * 1e9

    @property
    def last_cache(self) -> int:
        """Bytes of the largest cache."""
        return 1024 * int(self.figures.get("cache.l3_kb", self.figures["cache.l2_kb"]))

    @property
    def ram(self) -> int:
        """Bytes of memory, the system's share included."""
        return int(self.figures["memory.ram_mb"]) << 20

    def __str__(self) -> str:
        f = self.figures
        return (
            f"{self.name}: {self.title}, {f['cpu.cores']} x {f['cpu.core']} at {f['cpu.clock_mhz']} MHz "
            f"({', '.join(f['cpu.isa'])}), {f['memory.ram_mb']:,} MB"
        )


def names() -> list[str]:
    """All boards that are known."""
    return sorted(path.stem for folder in FOLDERS[-1:] + FOLDERS[:1] for path in folder.glob("*.toml"))


def load(name: str | Path) -> Board:
    """The board of that name, or in that file.

    Raises:
        UsageError: no such board; the message lists the names.
        ModelError: a figure is missing or cannot be meant.
    """
    if Path(name).suffix == ".toml" and Path(name).is_file():
        return check(Path(name))
    for folder in FOLDERS:
        if (folder / f"{name}.toml").is_file():
            return check(folder / f"{name}.toml")
    known = ", ".join(dict.fromkeys(names()))
    raise UsageError(f"no board '{name}': give the path of a .toml, or one of the names {known}")


def check(path: Path) -> Board:
    """The board in a file.

    Raises:
        ModelError: not TOML, or a figure that is missing, impossible or without a source.
    """
    content = tomlfile.described(path)
    figures = {
        f"{table}.{key}": value
        for table, items in content.items()
        if isinstance(items, dict) and table != "sources"
        for key, value in items.items()
    }
    _check_names(path, content, figures)
    for name, limits in (*FIGURES.items(), *((n, v) for n, v in OPTIONAL.items() if n in figures)):
        _check_figure(path, name, figures, limits)
    for name in WORDS:
        _check_word(path, name, figures.get(name))
    for name in LISTS:
        _check_list(path, name, figures.get(name))
    found = content.get("sources")
    sources = found if isinstance(found, dict) else {}
    for name in figures:
        if not isinstance(sources.get(name), str) or not sources[name]:
            raise ModelError(f'{path}: {name} has no source: write "{name}" = "where it is from" under [sources]')
    title, match = content.get("title", path.stem), content.get("match", [])
    _check_word(path, "title", title)
    if not isinstance(match, list) or not all(isinstance(part, str) and part for part in match):
        raise ModelError(f"{path}: match = {match!r} cannot be: list parts of what /proc/device-tree/model says there")
    return Board(path.stem, title, tuple(match), figures, sources)


def detect() -> Board:
    """The profile of this machine: the board that its device tree names, else any x86-64 machine, each with what this
    one says about itself (of most boards there are several sizes of memory).

    Raises:
        UsageError: neither; describe it in a .toml.
    """
    model = _device_tree()
    for name in dict.fromkeys(names()):
        board = load(name)
        if model and any(part in model for part in board.match):
            return _here(board, board.title)
    if platform.machine() not in ("x86_64", "AMD64"):
        raise UsageError(
            f"no profile fits this machine ({model or platform.machine()}): copy one of boards/*.toml, correct it and "
            "name the file"
        )
    generic = load(GENERIC)
    return _here(generic, platform.node() or generic.title)


def temperature() -> float | None:
    """Degrees Celsius of this machine's hottest thermal zone; None where it shows none."""
    zones = Path("/sys/class/thermal").glob("thermal_zone*/temp")
    return max((degrees for zone in zones if (degrees := _degrees(zone)) is not None), default=None)


def _degrees(zone: Path) -> float | None:
    try:
        return int(zone.read_text()) / 1000
    except (OSError, ValueError):
        return None


def _device_tree() -> str:
    path = Path("/proc/device-tree/model")
    try:
        return path.read_text("utf-8", "replace").strip("\0\n ")
    except OSError:
        return ""


def _here(board: Board, title: str) -> Board:
    """The profile with what the system says: cores, memory, caches."""
    told = {"cpu.cores": os.cpu_count() or 1, "memory.ram_mb": _memory() >> 20, **_caches()}
    figures = {**board.figures, **{name: value for name, value in told.items() if value}}
    sources = {**board.sources, **dict.fromkeys(told, "this machine's operating system")}
    return Board(board.name, title, board.match, figures, sources)


def _memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _caches() -> dict[str, int]:
    """Sizes in kB of the first core's caches."""
    found = {}
    for index in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*"):
        try:
            level, kind = (index / "level").read_text().strip(), (index / "type").read_text().strip()
            size = (index / "size").read_text().strip()
        except OSError:
            continue
        if kind != "Instruction" and size.endswith("K"):
            found[f"cache.l{level}{'d' if level == '1' else ''}_kb"] = int(size[:-1])
    return found


def _check_names(path: Path, content: Mapping[str, Any], figures: Mapping[str, Any]) -> None:
    """A name that is not known is a figure that would not count."""
    known = (*FIGURES, *OPTIONAL, *WORDS, *LISTS, "title", "match", "sources")
    plain = [name for name, value in content.items() if not isinstance(value, dict)]
    for name in (name for name in (*plain, *figures) if name not in known):
        near = difflib.get_close_matches(name, known, 1, 0.7)
        raise ModelError(f"{path}: {name} is no figure of a board: " + (f"write {near[0]}" if near else "leave it out"))


def _check_word(path: Path, name: str, value: Any) -> None:
    if value is None:
        raise ModelError(f"{path}: {name} is missing: write it as text")
    if not isinstance(value, str) or not value:
        raise ModelError(f"{path}: {name} = {value!r} cannot be: write it as text")


def _check_figure(path: Path, name: str, figures: Mapping[str, Any], limits: Limits) -> None:
    kind, least, most = limits
    value = figures.get(name)
    if value is None:
        raise ModelError(f"{path}: {name} is missing: look it up in the board's data sheet")
    numbers = (int, float) if kind is float else (int,)
    is_number = isinstance(value, numbers) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or not least <= value <= most:
        what = "a number" if kind is float else "a whole number"
        raise ModelError(f"{path}: {name} = {value!r} cannot be: write {what} from {least:,} to {most:,}")


def _check_list(path: Path, name: str, value: Any) -> None:
    if value is None:
        raise ModelError(f"{path}: {name} is missing: write a list of at least one name")
    if not isinstance(value, list) or not value or not all(isinstance(item, str) and item for item in value):
        raise ModelError(f"{path}: {name} must be a list of names, not {value!r}: write at least one")
    if name == "cpu.isa" and not set(value) <= set(ISAS):
        raise ModelError(f"{path}: {name} = {value} is not known: choose from {', '.join(ISAS)}")
