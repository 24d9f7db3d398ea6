# SPDX-License-Identifier: Apache-2.0
"""The local learning rules: plain records, each an objective and where its codes come from.

A rule says what a hidden block minimises over its own output h; no rule sees a later layer.
The output layer always has its own true loss. Sources are named at each record.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum

from edgelearn.errors import ModelError, UsageError


class Objective(IntEnum):
    """What a hidden block minimises; numbers as in edgelearn.h."""

    UNTRAINED = 0
    TP_L2 = 1
    TP_L1 = 2
    TP_HUBER = 3
    TP_LINEAR = 4
    TP_CE = 5
    READOUT = 6


class Codes(IntEnum):
    """Distribution of the random projection of a label; numbers as in edgelearn.h."""

    GAUSSIAN = 0
    UNIFORM = 1
    SIGN = 2
    HE_UNIFORM = 3


class Loss(IntEnum):
    """Loss of the output layer; numbers as in edgelearn.h."""

    CROSS_ENTROPY = 0
    MSE = 1
    HUBER = 2


@dataclass(frozen=True)
class Rule:
    """A local learning rule.

    `scale` multiplies the codes, `temperature` times sqrt(units) divides the logits of `tp-ce` and `readout`,
    `huber` is where the Huber losses turn linear. The defaults are measured: see docs/decisions.md.
    """

    name: str
    objective: Objective
    codes: Codes = Codes.GAUSSIAN
    scale: float = 1.0
    temperature: float = 1.0
    huber: float = 1.0
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
            "readout",
            Objective.READOUT,
            temperature=1 / 64,
            summary="loss of a learned linear read-out (Nokland & Eidnes 2019 `pred`; Gong et al. 2025)",
        ),
        Rule("untrained", Objective.UNTRAINED, summary="hidden blocks stay as initialised: the control"),
    )
}


def get(name: str, **overrides: float | str) -> Rule:
    """The rule of that name, with fields overridden (`scale`, `temperature`, `huber`, `codes`).

    Raises:
        ModelError: no rule has that name.
        UsageError: an override is unknown or out of range.
    """
    if name not in RULES:
        raise ModelError(f"unknown rule '{name}': choose one of {', '.join(RULES)}")
    changes: dict[str, float | Codes] = {}
    for key, value in overrides.items():
        changes[key] = _override(name, key, value)
    return replace(RULES[name], **changes)  # type: ignore[arg-type]


def _override(name: str, key: str, value: float | str) -> float | Codes:
    if key == "codes":
        if str(value).upper() not in Codes.__members__:
            known = ", ".join(c.name.lower() for c in Codes)
            raise UsageError(f"rule {name}: unknown codes '{value}': choose one of {known}")
        return Codes[str(value).upper()]
    if key not in ("scale", "temperature", "huber"):
        raise UsageError(f"rule {name} has no setting '{key}': scale, temperature, huber and codes can be set")
    if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
        raise UsageError(f"rule {name}: {key} must be a positive number, not {value!r}")
    return float(value)


def loss(name: str) -> Loss:
    """The output loss called `cross_entropy`, `mse` or `huber`."""
    if name.upper() not in Loss.__members__:
        raise ModelError(f"unknown loss '{name}': choose one of {', '.join(m.name.lower() for m in Loss)}")
    return Loss[name.upper()]
