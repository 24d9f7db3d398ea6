# SPDX-License-Identifier: Apache-2.0
"""Budget: what a run may use, in units that people write. MB = 2^20 bytes."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, fields
from typing import Any

from edgelearn.errors import UsageError

_BYTES = {
    "": 1,
    "B": 1,
    "KB": 1 << 10,
    "MB": 1 << 20,
    "GB": 1 << 30,
    "KIB": 1 << 10,
    "MIB": 1 << 20,
    "GIB": 1 << 30,
}
_SECONDS = {"": 1e-3, "US": 1e-6, "MS": 1e-3, "S": 1.0}
_COUNTS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
_DEGREES = {"": 1, "C": 1}
_UNITS: dict[str, dict[str, int] | dict[str, float]] = {
    "ram": _BYTES,
    "flash": _BYTES,
    "latency": _SECONDS,
    "macs": _COUNTS,
    "temperature": _DEGREES,
    "disk": _BYTES,
}


def _quantity(name: str, value: int | float | str, units: dict[str, float] | dict[str, int]) -> float:
    match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*", str(value))
    if not match or match[2].upper() not in units or not 0 < float(match[1]) < math.inf:
        known = ", ".join(u for u in units if u)
        raise UsageError(f"budget {name}={value} cannot be read: write a positive number and one of {known}")
    return float(match[1]) * units[match[2].upper()]


@dataclass(frozen=True)
class Budget:
    """Limits of a run; None is no limit.

    `ram` and `flash` are bytes ("16MB" or a number), `latency` is "50ms" (a bare number is milliseconds), `macs`
    is a count ("2M"). ram is planned bytes: weights, optimizer, arena; the interpreter is not in it. flash is for the
    model that stays, `disk` bytes for what the sequential schedule keeps on disk while it trains. `temperature` ("70C")
    is the hottest that the board may be when a run is planned or a submodel chosen; where it cannot be read, as of a
    board that is not at hand, a warning says so.

    Raises:
        UsageError: a value that cannot be read.
    """

    ram: int | float | str | None = None
    flash: int | float | str | None = None
    latency: int | float | str | None = None
    macs: int | float | str | None = None
    temperature: int | float | str | None = None
    disk: int | float | str | None = None

    def __post_init__(self) -> None:
        for name, units in _UNITS.items():
            value = getattr(self, name)
            if value is not None:
                object.__setattr__(self, name, _quantity(name, value, units))

    @classmethod
    def parse(cls, text: str) -> Budget:
        """A budget as the command line writes it: "ram=16MB,latency=50ms".

        Raises:
            UsageError: an unknown limit or an unreadable value.
        """
        known = [f.name for f in fields(cls)]
        limits: dict[str, str] = {}
        for item in text.split(","):
            name, equals, value = item.partition("=")
            if name.strip() not in known or not equals:
                raise UsageError(f"budget '{item}' is not NAME=VALUE with NAME one of {', '.join(known)}")
            if name.strip() in limits:
                raise UsageError(f"budget has {name.strip()} twice: leave one of them out")
            limits[name.strip()] = value
        return cls(**limits)

    def broken(
        self,
        ram: int,
        flash: int,
        latency: float | None,
        macs: int,
        disk: int = 0,
        temperature: float | None = None,
    ) -> list[str]:
        """The limits that these figures (bytes, bytes, seconds, count, bytes, degrees Celsius) break, in words."""
        figures = {"ram": ram, "flash": flash, "latency": latency, "macs": macs, "disk": disk}
        figures["temperature"] = temperature
        over = []
        for name, used in figures.items():
            limit = getattr(self, name)
            if limit is not None and used is not None and used > limit:
                over.append(f"{name} {_say(name, used)} over {_say(name, limit)}")
        return over


def known(budget: Any) -> Budget | None:
    """What `budget` of a method is.

    Raises:
        UsageError: no Budget.
    """
    if budget is None or isinstance(budget, Budget):
        return budget
    raise UsageError(f"a budget is an el.Budget, not {budget!r}: write el.Budget(ram='16MB')")


def _say(name: str, value: float) -> str:
    if name == "latency":
        return f"{value * 1e3:.3g} ms"
    if name == "temperature":
        return f"{value:.1f} C"
    return f"{value:,.0f}" + (" bytes" if _UNITS[name] is _BYTES else "")
