# SPDX-License-Identifier: Apache-2.0
"""The sections of the configuration as records that check themselves."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from edgelearn.daemon.limits import Limits
from edgelearn.errors import UsageError

PRIORITIES = ("idle", "low", "normal")
POLICIES = ("manual", "auto", "shadow")

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*(B|KB|MB|GB)?", re.IGNORECASE)
_UNITS = {"B": 1, "KB": 1 << 10, "MB": 1 << 20, "GB": 1 << 30}
_WINDOW = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


def size_of(name: str, value: Any) -> int:
    """Bytes from a number or a text such as "16MB", MB being 2^20.

    Raises:
        UsageError: it is neither.
    """
    match = _SIZE.fullmatch(str(value)) if type(value) in (int, str) else None
    if match is None:
        raise UsageError(f"{name} = {value!r} is no size: write a number of bytes, or one with KB, MB or GB")
    return int(float(match[1]) * _UNITS[(match[2] or "B").upper()])


def _number(name: str, value: Any, least: float, most: float, whole: bool = False) -> None:
    kinds = (int,) if whole else (int, float)
    if type(value) not in kinds or not least <= value <= most:
        raise UsageError(
            f"{name} = {value!r} must be a {'whole ' * whole}number from {least:g} to {most:g}: correct it"
        )


def _choice(name: str, value: Any, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise UsageError(f"{name} = {value!r} is unknown: choose {', '.join(choices)}")


def _truth(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise UsageError(f"{name} = {value!r} must be true or false: correct it")


def _sizes(of: Any, section: str, *names: str) -> None:
    """Turn fields into bytes."""
    for name in names:
        object.__setattr__(of, name, size_of(f"[{section}] {name}", getattr(of, name)))


@dataclass(frozen=True)
class Serve:
    """`[serve]`: `name` of the model in URLs; `body` and `file`, what a request may have in memory and on disk;
    `connections` at once; seconds for a request's `head_timeout` and `body_timeout`."""

    name: str = "model"
    body: int | str = "4MB"
    file: int | str = "256MB"
    connections: int = 64
    head_timeout: float = 10.0
    body_timeout: float = 10.0

    def __post_init__(self) -> None:
        _sizes(self, "serve", "body", "file")
        if not isinstance(self.name, str) or not _NAME.fullmatch(self.name):
            raise UsageError(f"[serve] name = {self.name!r} must be letters, digits, dots and dashes: correct it")
        _number("[serve] connections", self.connections, 1, 4096, whole=True)
        _number("[serve] head_timeout", self.head_timeout, 0.1, 600)
        _number("[serve] body_timeout", self.body_timeout, 0.1, 600)

    def limits(self) -> Limits:
        """Of connections; all bodies in memory together may have six times what one may."""
        body, file = size_of("body", self.body), size_of("file", self.file)
        return Limits(
            self.connections,
            head=self.head_timeout,
            body=self.body_timeout,
            body_bytes=body,
            file_bytes=file,
            held_bytes=6 * body,
        )


@dataclass(frozen=True)
class Keep:
    """`[keep]`: bytes on disk: `samples` and `versions` at most, `floor` that is always left free. `write_budget`
    bounds the bytes of versions within a day, 0 for none: SD cards wear. `drop` is a folder that is watched for
    samples, one sub-folder per class; relative to the data folder, empty for none."""

    samples: int | str = "256MB"
    versions: int | str = "64MB"
    floor: int | str = "64MB"
    write_budget: int | str = 0
    drop: str = "drop"

    def __post_init__(self) -> None:
        _sizes(self, "keep", "samples", "versions", "floor", "write_budget")
        for name in ("samples", "versions"):
            if getattr(self, name) < 1 << 16:
                raise UsageError(
                    f"[keep] {name} = {getattr(self, name)} is too little to work with: give it 64KB or more"
                )
        if not isinstance(self.drop, str) or (self.drop and not self.drop.isprintable()):
            raise UsageError(f"[keep] drop = {self.drop!r} must be the path of a folder: correct it")


@dataclass(frozen=True)
class Train:
    """`[train]`: `policy` manual (a person promotes), auto (what passes the gate is promoted), shadow (it answers
    beside the live one for `shadow_seconds` first, and is judged again on what was labelled meanwhile). Training begins
    by itself after `every` new labelled samples, 0 for never. `replay` bounds the samples that are learned again,
    `rehearsals` are steps for each portion of new ones, `lr` their rate, 0 for the model's own. The gate wants
    `min_samples` held out, and lets no class lose more than `max_drop`. `checkpoint_seconds` is what a power cut
    costs; 0 for a checkpoint after every 256 samples, which wears cards."""

    policy: str = "manual"
    every: int = 0
    shadow_seconds: float = 3600.0
    replay: int | str = "2MB"
    rehearsals: int = 6
    lr: float = 0.0
    min_samples: int = 50
    max_drop: float = 0.01
    checkpoint_seconds: float = 30.0

    def __post_init__(self) -> None:
        _sizes(self, "train", "replay")
        _choice("[train] policy", self.policy, POLICIES)
        _number("[train] every", self.every, 0, 10**9, whole=True)
        _number("[train] shadow_seconds", self.shadow_seconds, 0, 30 * 86400)
        _number("[train] rehearsals", self.rehearsals, 1, 1000, whole=True)
        _number("[train] lr", self.lr, 0, 10)
        _number("[train] min_samples", self.min_samples, 1, 1000, whole=True)
        _number("[train] max_drop", self.max_drop, 0, 0.999)
        _number("[train] checkpoint_seconds", self.checkpoint_seconds, 0, 86400)
        if self.replay < 1 << 12:  # type: ignore[operator]
            raise UsageError(f"[train] replay = {self.replay} is too little to learn from: give it 4KB or more")


@dataclass(frozen=True)
class Govern:
    """`[govern]`: when training gives way. `memory` is what the trainer may hold, `available` what must stay free for
    others; `cpu` its share of one core, 1 for all; `priority` idle (it works when nothing else does), low or normal;
    `temperature` in degrees Celsius and `hysteresis` below it before
    work goes on; `battery` whether it may train without mains; `windows` of local time such as "22:00-06:00", none for
    always."""

    memory: int | str = "256MB"
    available: int | str = "64MB"
    cpu: float = 1.0
    priority: str = "idle"
    temperature: float = 75.0
    hysteresis: float = 5.0
    battery: bool = False
    windows: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _sizes(self, "govern", "memory", "available")
        _number("[govern] cpu", self.cpu, 0.01, 1)
        _choice("[govern] priority", self.priority, PRIORITIES)
        _number("[govern] temperature", self.temperature, 20, 120)
        _number("[govern] hysteresis", self.hysteresis, 0, 50)
        _truth("[govern] battery", self.battery)
        object.__setattr__(self, "windows", tuple(self.windows) if isinstance(self.windows, (list, tuple)) else ("?",))
        for window in self.windows:
            if not isinstance(window, str) or not _WINDOW.fullmatch(window) or window[:5] == window[6:]:
                raise UsageError(f'[govern] windows holds {window!r}: write a list of times such as "22:00-06:00"')


@dataclass(frozen=True)
class Mqtt:
    """`[mqtt]`: `host` and `port` of a broker, no host for none; `user` and `password_file`; `topic` and `discovery`
    are the first parts of topics, those of Home Assistant for the latter. Boards at one broker need a `[serve]` name
    each."""

    host: str = ""
    port: int = 1883
    user: str = ""
    password_file: str = ""
    topic: str = "edgelearn"
    discovery: str = "homeassistant"

    def __post_init__(self) -> None:
        for name in ("host", "user", "password_file", "topic", "discovery"):
            value = getattr(self, name)
            if not isinstance(value, str) or set("#+\0\n") & set(value):
                raise UsageError(f"[mqtt] {name} = {value!r} must be text without wildcards: correct it")
        _number("[mqtt] port", self.port, 1, 65535, whole=True)
