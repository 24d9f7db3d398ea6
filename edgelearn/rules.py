# SPDX-License-Identifier: Apache-2.0
"""The local learning rules: plain records, each an objective and where its codes come from.

A rule says what a hidden block minimises over its own output h; no rule sees a later layer.
The output layer always has its own true loss. Sources are named at each record.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum

from edgelearn.errors import ModelError, UsageError
from edgelearn.geometry import LARGEST_SIDE


class Objective(IntEnum):
    """What a hidden block minimises; numbers as in edgelearn.h."""

    UNTRAINED = 0
    TP_L2 = 1
    TP_L1 = 2
    TP_HUBER = 3
    TP_LINEAR = 4
    TP_CE = 5
    READOUT = 6
    READOUT_SIM = 7
    TP_CE_SIM = 8


class Codes(IntEnum):
    """Distribution of the random projection of a label; numbers as in edgelearn.h."""

    GAUSSIAN = 0
    UNIFORM = 1
    SIGN = 2
    HE_UNIFORM = 3
    PAIRED = 4


class Loss(IntEnum):
    """Loss of the output layer; numbers as in edgelearn.h."""

    CROSS_ENTROPY = 0
    MSE = 1
    HUBER = 2


class Timing(IntEnum):
    """How the objective of a recurrent block is spread over the steps of a sequence; numbers as in edgelearn.h."""

    EVERY = 0
    RAMP = 1
    LAST = 2
    LATE = 3


@dataclass(frozen=True)
class Rule:
    """A local learning rule.

    `scale` multiplies the codes, `temperature` times sqrt(units) divides the logits of `tp-ce` and `readout`,
    `huber` is where the Huber losses turn linear. Of a map the objective sees `grid` x `grid` adaptive averages
    (1: a mean per channel, 0: every position by itself); `frozen` leaves blocks that end in a map as initialised.
    `similarity` is the share of the similarity term. Of a sequence the objective sees one step at a time, with weights
    that `timing` spreads over the steps: `every` step alike, as a `ramp` that grows to the end, `late` as the square of
    that, or the `last` only. `traces` keeps, in gated recurrent cells, exact traces forward in time of what earlier
    steps did to the state (Bellec et al. 2020); without them a step answers for itself only. The defaults are measured:
    see docs/decisions.md.
    """

    name: str
    objective: Objective
    codes: Codes = Codes.GAUSSIAN
    scale: float = 1.0
    temperature: float = 1.0
    huber: float = 1.0
    grid: int = 2
    frozen: bool = False
    similarity: float = 0.0
    timing: Timing = Timing.RAMP
    traces: bool = False
    regression: bool = True
    summary: str = ""


RULES: dict[str, Rule] = {
    rule.name: rule
    for rule in (
        Rule(
            "tp-l2",
            Objective.TP_L2,
            scale=2.0,
            summary="squared distance to the label's random code: tpSGD (Lomnitz et al. 2022, eq. for l2)",
        ),
        Rule(
            "tp-l1",
            Objective.TP_L1,
            scale=2.0,
            summary="absolute distance to the code: tpSGD's robust variant",
        ),
        Rule("tp-huber", Objective.TP_HUBER, scale=2.0, summary="Huber distance to the code: smooth tp-l1"),
        Rule(
            "drtp",
            Objective.TP_LINEAR,
            Codes.HE_UNIFORM,
            summary="minus the inner product with the code (Frenkel, Lefebvre, Bol 2021); unbounded: use with tanh",
        ),
        Rule(
            "tp-ce",
            Objective.TP_CE,
            temperature=0.2,
            regression=False,
            summary="cross-entropy over the fixed codes of all classes: tpSGD with an arbitrary loss",
        ),
        Rule(
            "tp-ce+sim",
            Objective.TP_CE_SIM,
            Codes.PAIRED,
            temperature=0.8,
            similarity=0.9,
            regression=False,
            summary="tp-ce, and samples of a class made alike; nothing is learned beside the layer",
        ),
        Rule(
            "readout",
            Objective.READOUT,
            temperature=1 / 64,
            grid=4,
            summary="loss of a learned linear read-out (Nokland & Eidnes 2019 `pred`; Gong et al. 2025)",
        ),
        Rule(
            "readout+sim",
            Objective.READOUT_SIM,
            temperature=1 / 64,
            grid=4,
            similarity=0.9,
            regression=False,
            summary="read-out, and samples of a class made alike (Nokland & Eidnes 2019 `predsim`)",
        ),
        Rule("untrained", Objective.UNTRAINED, summary="hidden blocks stay as initialised: the control"),
    )
}


Setting = float | int | bool | str
"""What an override of a rule may be."""


def _is_positive(value: Setting) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < float("inf")


SETTINGS: dict[str, tuple[Callable[[Setting], bool], str]] = {
    "scale": (_is_positive, "a positive number"),
    "temperature": (_is_positive, "a positive number"),
    "huber": (_is_positive, "a positive number"),
    "codes": (lambda v: str(v).upper() in Codes.__members__, f"one of {', '.join(c.name.lower() for c in Codes)}"),
    "grid": (
        lambda v: isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= LARGEST_SIDE,
        f"a whole number from 0 to {LARGEST_SIDE}",
    ),
    "frozen": (lambda v: isinstance(v, bool), "true or false"),
    "timing": (lambda v: str(v).upper() in Timing.__members__, f"one of {', '.join(t.name.lower() for t in Timing)}"),
    "traces": (lambda v: isinstance(v, bool), "true or false"),
    "similarity": (lambda v: not isinstance(v, (str, bool)) and 0 < v < 1, "a number between 0 and 1"),
}
"""What a caller may set of a rule: whether a value is meant, and in words what is."""


def get(name: str, **overrides: Setting) -> Rule:
    """The rule of that name, with fields overridden (the keys of SETTINGS).

    Raises:
        ModelError: no rule has that name.
        UsageError: an override is unknown or out of range.
    """
    if name not in RULES:
        raise ModelError(f"unknown rule '{name}': choose one of {', '.join(RULES)}")
    changes = {key: _override(name, key, value) for key, value in overrides.items()}
    return replace(RULES[name], **changes)  # type: ignore[arg-type]


def _override(name: str, key: str, value: Setting) -> Setting | IntEnum:
    if key not in SETTINGS:
        raise UsageError(f"rule {name} has no setting '{key}': it takes {', '.join(SETTINGS)}")
    is_meant, words = SETTINGS[key]
    if not is_meant(value):
        raise UsageError(f"rule {name}: {key} must be {words}, not {value!r}")
    kinds: dict[str, type[IntEnum]] = {"codes": Codes, "timing": Timing}
    return kinds[key][str(value).upper()] if key in kinds else value


def loss(name: str) -> Loss:
    """The output loss called `cross_entropy`, `mse` or `huber`."""
    if name.upper() not in Loss.__members__:
        raise ModelError(f"unknown loss '{name}': choose one of {', '.join(m.name.lower() for m in Loss)}")
    return Loss[name.upper()]
