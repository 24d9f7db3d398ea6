# SPDX-License-Identifier: Apache-2.0
"""A model's .toml: `[[layer]]` tables, what `[input]` it takes and how it is `[train]`ed by default.

The rule is plain, `rule = "tp-ce"`, or, since TOML takes a key only once, the table `[train.rule]` with
`default = "tp-ce"` and a `[train.rule.NAME]` for each rule that wants other settings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgelearn import augment, tomlfile
from edgelearn.errors import ModelError, UsageError
from edgelearn.inputs.labels import CLASS_WEIGHTS, are_class_weights
from edgelearn.layers import AnyLayer, from_config
from edgelearn.optim import OptimizerKind, ScheduleKind
from edgelearn.rules import RULES, SETTINGS, Loss

FOLDERS = (Path(__file__).parent / "models", Path(__file__).parent.parent / "models")
"""Where names are looked up: the installed package, then the source tree."""

INPUT_KEYS = ("shape", "layout", "scale", "standardise", "image", "sound")
"""Keys of `[input]`; frontend.Input says what they mean and checks their values."""

Check = tuple[Callable[[Any], bool], str]


def _whole(least: int) -> Check:
    return (
        lambda v: isinstance(v, int) and not isinstance(v, bool) and v >= least,
        f"a whole number from {least} up",
    )


def _one_of(names: Iterable[str]) -> Check:
    known = list(names)
    return lambda v: v in known, f"one of {', '.join(known)}"


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < math.inf


def _is_share(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1


def _is_amount(value: Any) -> bool:
    return value == 0 or _is_positive(value)


def _are_amounts(value: Any) -> bool:
    return isinstance(value, list) and all(_is_amount(v) for v in value)


def _is_augment(value: Any) -> bool:
    try:
        augment.parse(value)
    except UsageError:
        return False
    return True


_POSITIVE: Check = (_is_positive, "a positive number")

TRAIN_KEYS: dict[str, Check] = {
    "optimizer": _one_of(kind.name.lower() for kind in OptimizerKind),
    "lr": _POSITIVE,
    "lr_schedule": _one_of(kind.name.lower() for kind in ScheduleKind),
    "warmup": _whole(0),
    "epochs": _whole(1),
    "batch": _whole(1),
    "loss": _one_of(loss.name.lower() for loss in Loss),
    "schedule": _one_of(("interleaved", "sequential")),
    "block": _whole(1),
    "window": _whole(1),
    "seed": _whole(0),
    "augment": (_is_augment, f"a table of {augment.described()}"),
    "validation": (_is_share, "a share from 0 to below 1"),
    "patience": _whole(0),
    "class_weights": (are_class_weights, f"{' or '.join(CLASS_WEIGHTS)}, or a list of positive numbers"),
    "micro": _whole(0),
    "clip": (_is_amount, "a number from 0 up"),
    "cache": _one_of(("auto", "none", "uint8", "float16")),
    "rates": (_are_amounts, "a list of numbers from 0 up, one for each block"),
}
"""Keys of `[train]` beside `rule`: whether a value is meant, and in words what is."""

RULE_KEYS: dict[str, Check] = dict(SETTINGS)
"""Keys that only `[train.rule.NAME]` has: the rule's own settings."""


@dataclass(frozen=True)
class Definition:
    """A model as its .toml describes it. `input` is the table of frontend.Input; `recipe` reads `train`."""

    name: str
    layers: list[AnyLayer]
    input: dict[str, Any]
    train: dict[str, Any]
    path: Path

    def recipe(self, rule: str | None = None) -> dict[str, Any]:
        """Settings of `[train]` under a rule, by default the file's own, its overrides merged in.

        `rule` is absent from the result where neither the caller nor the file names one.

        Raises:
            ModelError: an unknown rule.
        """
        return under_rule(self.train, rule)


def under_rule(train: Mapping[str, Any], rule: str | None = None) -> dict[str, Any]:
    """Settings of a `[train]` table under a rule, by default its own, that rule's overrides merged in.

    `rule` is absent from the result where neither the caller nor the table names one.

    Raises:
        ModelError: an unknown rule.
    """
    merged = {key: value for key, value in train.items() if key != "rule"}
    default, overrides = _rule_table(train)
    chosen = default if rule is None else rule
    if chosen is None:
        return merged
    _check_rule("[train]", chosen)
    return {**merged, **overrides.get(chosen, {}), "rule": chosen}


def find(name: str | Path, suffix: str = ".toml") -> Path:
    """The file of that path or, if there is none, of that name and suffix among the shipped models.

    Raises:
        ModelError: neither; the message lists the names.
    """
    if Path(name).is_file():
        return Path(name)
    shipped = {path.stem: path for folder in reversed(FOLDERS) for path in sorted(folder.glob(f"*{suffix}"))}
    asked = Path(name)
    if asked.suffix in ("", suffix) and asked.parent in (Path(), Path("models")) and asked.stem in shipped:
        return shipped[asked.stem]
    known = ", ".join(sorted(shipped)) or "none"
    raise ModelError(f"no model '{name}': give the path of a {suffix}, or one of the names {known}")


def read(path_or_name: str | Path) -> Definition:
    """The definition at a path or of a shipped model's name.

    Raises:
        ModelError: not found, not TOML, an unknown key, layer or rule, or a value that cannot be meant.
    """
    path = find(path_or_name)
    content = tomlfile.described(path)
    _check_known(f"{path}", content, ("layer", "input", "train"))
    given, train = _table(path, content, "input"), _table(path, content, "train")
    _check_known(f"{path} [input]", given, INPUT_KEYS)
    _check_train(path, train)
    return Definition(path.stem, _layers(path, content.get("layer")), given, train, path)


def _table(path: Path, content: Mapping[str, Any], key: str) -> dict[str, Any]:
    table = content.get(key, {})
    if not isinstance(table, dict):
        raise ModelError(f"{path}: '{key}' must be a table: write [{key}] above its settings")
    return table


def _layers(path: Path, tables: Any) -> list[AnyLayer]:
    if not isinstance(tables, list) or not tables or not all(isinstance(t, dict) for t in tables):
        raise ModelError(f"{path} has no layers: add one [[layer]] table per layer")
    return [_layer(path, number, table) for number, table in enumerate(tables, 1)]


def _layer(path: Path, number: int, table: dict[str, Any]) -> AnyLayer:
    try:
        return from_config(table)
    except ModelError as error:
        raise ModelError(f"{path}, layer {number}: {error}") from error


def _check_train(path: Path, train: Mapping[str, Any]) -> None:
    plain = {key: value for key, value in train.items() if key != "rule"}
    _check_values(f"{path} [train]", plain, TRAIN_KEYS, ("rule", *TRAIN_KEYS))
    rule = train.get("rule", {})
    if not isinstance(rule, (str, dict)):
        raise ModelError(f"{path} [train]: rule must be a name or a table of rules, not {rule!r}")
    default, overrides = _rule_table(train)
    if default is not None:
        _check_rule(f"{path} [train]", default)
    for name, table in overrides.items():
        where = f"{path} [train.rule.{name}]"
        _check_rule(where, name)
        if not isinstance(table, dict):
            raise ModelError(f"{path} [train.rule]: '{name}' must be a table: write [train.rule.{name}]")
        _check_values(where, table, {**TRAIN_KEYS, **RULE_KEYS}, (*TRAIN_KEYS, *RULE_KEYS))


def _rule_table(train: Mapping[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The default rule, None if there is none, and the overrides by rule."""
    rule = train.get("rule")
    if not isinstance(rule, dict):
        return rule, {}
    return rule.get("default"), {name: table for name, table in rule.items() if name != "default"}


def _check_rule(where: str, name: Any) -> None:
    if not isinstance(name, str) or name not in RULES:
        raise ModelError(f"{where}: unknown rule {name!r}: choose one of {', '.join(RULES)}")


def _check_known(where: str, table: Mapping[str, Any], known: Iterable[str]) -> None:
    for key in table:
        if key not in known:
            raise ModelError(f"{where} has no key '{key}': it takes {', '.join(known)}")


def _check_values(where: str, table: Mapping[str, Any], checks: Mapping[str, Check], known: tuple[str, ...]) -> None:
    _check_known(where, table, known)
    for key, value in table.items():
        is_meant, words = checks[key]
        if not is_meant(value):
            raise ModelError(f"{where}: {key} must be {words}, not {value!r}")
