# SPDX-License-Identifier: Apache-2.0
"""Whether a net that learned may take the place of the one that serves, by samples that neither was trained on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.errors import UsageError

POLICIES = ("auto", "manual", "shadow")
"""What a commit does with a net that the gate accepts: serve it, keep it for a person to promote, or judge it once more
on samples that come after."""


@dataclass(frozen=True)
class Gate:
    """What a net must show.

    `holdout` is the share of samples that is held out and never trained on, at most `max_samples` of them are kept.
    With `min_samples` or more, the lower bound of the gain (share of right answers, new less old) at `confidence` must
    be above `min_gain`, and no class may have lost more than `max_drop` beyond doubt. `min_gain` below 0 lets nets pass
    that are as good.

    Raises:
        UsageError: a value that cannot be meant.
    """

    max_drop: float = 0.01
    min_samples: int = 50
    confidence: float = 0.95
    min_gain: float = 0.0
    holdout: float = 0.2
    max_samples: int = 1000
    shadow: int = 500
    policy: str = "auto"

    def __post_init__(self) -> None:
        ranges = {"max_drop": (0, 1), "confidence": (0.5, 1), "min_gain": (-1, 1), "holdout": (0, 1)}
        for name, (least, most) in ranges.items():
            if not least <= getattr(self, name) < most:
                raise UsageError(
                    f"{name} must be from {least} to below {most}, not {getattr(self, name)!r}: correct it"
                )
        if not self.holdout:
            raise UsageError("without held-out samples nothing can be judged: set holdout = 0.2")
        if not 1 <= self.min_samples <= min(self.max_samples, self.shadow):
            raise UsageError(
                f"min_samples must be from 1 to max_samples and shadow, {self.max_samples} and {self.shadow}, not "
                f"{self.min_samples}: raise those"
            )
        if self.policy not in POLICIES:
            raise UsageError(f"unknown policy {self.policy!r}: choose one of {', '.join(POLICIES)}")

    def judge(
        self,
        labels: NDArray[Any],
        before: NDArray[Any],
        after: NDArray[Any],
        attempt: int = 1,
        names: list[str] | None = None,
    ) -> Verdict:
        """The verdict on answers `before` and `after` (n,), held against labels (n,), all as indices.

        `attempt` counts judgements against the same net: the k-th may be wrong with a chance of
        (1 - confidence) / (k (k + 1)), so that all of them together may with 1 - confidence.
        """
        n, old, new = len(labels), before == labels, after == labels
        chance = (1 - self.confidence) / (attempt * (attempt + 1))
        gain, low, high = paired(old, new, chance) if n else (0.0, -1.0, 1.0)
        classes = np.unique(labels).tolist()
        deltas, lost = {}, []
        for index in classes:
            own, name = labels == index, names[index] if names else str(index)
            change, _, most = paired(old[own], new[own], chance / len(classes))
            deltas[name] = round(change, 4)
            if most < -self.max_drop:
                lost.append(name)
        reason = self._reason(n, low, lost)
        scores = (float(old.mean()), float(new.mean())) if n else (0.0, 0.0)
        return Verdict(not reason, reason or "better beyond doubt", *scores, gain, low, high, n, deltas)

    def _reason(self, n: int, low: float, lost: list[str]) -> str:
        if n < self.min_samples:
            return f"{n} samples are held out and {self.min_samples} are needed: learn more samples"
        if lost:
            return f"{', '.join(lost)} lost more than {self.max_drop:g}: add samples of it, or check their labels"
        if low <= self.min_gain:
            return f"the gain may be as low as {low:+.4f}, and must be above {self.min_gain:g}: learn more samples"
        return ""


_MEASURED = ("before", "after", "gain", "lower", "upper")


@dataclass(frozen=True)
class Verdict:
    """What a gate says, and why. `before` and `after` are shares of right answers, `gain` their difference with its
    bounds, `per_class` the difference for each class."""

    accepted: bool
    reason: str
    before: float
    after: float
    gain: float
    lower: float
    upper: float
    samples: int
    per_class: Mapping[str, float] = field(default_factory=dict)

    @property
    def harmful(self) -> bool:
        """Whether it is worse beyond doubt."""
        return self.upper < 0

    def to_json(self) -> dict[str, Any]:
        """The fields as plain values; without samples there are no shares."""
        names = [name for name in self.__dataclass_fields__ if self.samples or name not in _MEASURED]
        return {**{name: getattr(self, name) for name in names}, "per_class": dict(self.per_class)}


def paired(old: NDArray[np.bool_], new: NDArray[np.bool_], chance: float) -> tuple[float, float, float]:
    """Difference of two shares of right answers on the same samples, and its bounds, each wrong with `chance`: the
    adjusted Wald interval for matched pairs (Agresti and Min 2005, Simple improved confidence intervals for comparing
    matched proportions), half a sample added to each of the four cells."""
    n, gained, lost = len(old) + 2, int((new & ~old).sum()) + 0.5, int((old & ~new).sum()) + 0.5
    centre = (gained - lost) / n
    wide = NormalDist().inv_cdf(1 - chance) * math.sqrt((gained + lost) / n - centre**2) / math.sqrt(n)
    return float(new.mean() - old.mean()), centre - wide, centre + wide


class Trial:
    """A net in shadow: it answers what the serving net answers, and is judged on `need` samples that came after."""

    def __init__(self, version_id: str, answer: Callable[[NDArray[Any]], NDArray[Any]], need: int) -> None:
        self.version_id, self._answer, self._need = version_id, answer, need
        self._seen: list[tuple[int, int, int]] = []

    @property
    def over(self) -> bool:
        """Whether it has seen enough."""
        return len(self._seen) >= self._need

    def add(self, labels: NDArray[Any], before: NDArray[Any], rows: NDArray[Any]) -> None:
        """Samples (n, features) with labels and the serving net's answers (n,)."""
        after = self._answer(rows)
        self._seen += zip(labels.tolist(), before.tolist(), after.tolist(), strict=True)

    def judge(self, gate: Gate, attempt: int, names: list[str] | None) -> Verdict:
        """The gate's verdict on what it saw."""
        columns = np.array(self._seen, np.int64).reshape(-1, 3).T
        return gate.judge(columns[0], columns[1], columns[2], attempt, names)

    def to_json(self) -> dict[str, Any]:
        """What it saw."""
        return {"version": self.version_id, "seen": [list(entry) for entry in self._seen]}

    def restore(self, seen: list[list[int]]) -> None:
        """Go on with what it saw before."""
        self._seen = [(label, before, after) for label, before, after in seen]
