# SPDX-License-Identifier: Apache-2.0
"""A frozen backbone with what was learned on top of it: statistics, adapters at taps, a head. Kilobytes in a file that
fits no other backbone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from edgelearn import adapters, tensorfile
from edgelearn.adaptation import peft
from edgelearn.adapters import Adapter, Lora
from edgelearn.adapters.local import softmax
from edgelearn.adapters.lora import rank_prefixes
from edgelearn.backbone.taps import Backbone, FloatArray, Head, Statistics
from edgelearn.durable import replacing, write_through
from edgelearn.errors import ModelError, UsageError

_ENTRY = "edgelearn_adapter"
_OWN = "edgelearn."
"""Before the arrays that PEFT has no name for."""


@dataclass(eq=False, repr=False)
class Adapted:
    """See the module. `backbone` stays as it was; without statistics, adapters and head it answers as ever.

    `classes` are the names of the head's classes; `about` says how it was chosen, as JSON.
    """

    backbone: Backbone
    statistics: Statistics = field(default_factory=dict)
    adapters: dict[str, Adapter] = field(default_factory=dict)
    head: Head | None = None
    classes: list[str] | None = None
    about: dict[str, Any] = field(default_factory=dict)
    frozen: Backbone = field(init=False)

    def __post_init__(self) -> None:
        taps = {tap.name: tap for tap in self.backbone.taps}
        for name, adapter in self.adapters.items():
            if name not in taps:
                raise ModelError(f"there is no tap '{name}': choose from {', '.join(taps)}")
            if adapter.channels != taps[name].channels:
                raise ModelError(
                    f"an adapter of {adapter.channels} channels does not fit tap {taps[name]}: adapt again"
                )
        self.frozen = self.backbone.restated(self.statistics) if self.statistics else self.backbone

    def __repr__(self) -> str:
        values = sum(array.size for array in self.tensors().values())
        return f"<Adapted {self.backbone.name} by {self.about.get('way', 'hand')}: {values:,} values>"

    @property
    def output(self) -> Head:
        """The head that answers.

        Raises:
            ModelError: neither the backbone nor the adaptation has one.
        """
        head = self.head or self.backbone.head
        if head is None:
            raise ModelError("the backbone has no linear head of its own: adapt it to labelled samples first")
        return head

    @property
    def class_names(self) -> list[str] | None:
        """Of the head that answers, where there are any."""
        return self.classes or (self.backbone.classes if self.head is None else None)

    def features(self, x: ArrayLike) -> FloatArray:
        """What the head reads, (n, values), of samples as the data holds them.

        Raises:
            DataError: samples of another shape.
        """
        h: NDArray[Any] = self.backbone.prepare(np.asarray(x))
        for index, tap in enumerate(self.backbone.taps):
            h = self.frozen.stage(index, h)
            if tap.name in self.adapters:
                h = self.adapters[tap.name].apply(h)
        return self.frozen.stage(len(self.backbone.taps), h)

    def forward(self, x: ArrayLike) -> FloatArray:
        """Probabilities (n, classes)."""
        return softmax(self.output.logits(self.features(x)))

    def predict(self, x: ArrayLike) -> NDArray[Any]:
        """Class indices (n,), or names where there are any."""
        best: NDArray[Any] = self.forward(x).argmax(axis=1)
        return np.array(self.classes)[best] if self.classes else best

    def score(self, x: ArrayLike, y: ArrayLike) -> float:
        """Share of labels (n,), class indices or names, that are met."""
        labels, best = np.asarray(y), self.forward(x).argmax(axis=1)
        known = self.classes or [str(number) for number in range(self.output.bias.size)]
        found = best if labels.dtype.kind in "biu" else np.array(known)[best]
        return float((found == labels).mean())

    @property
    def rank_prefixes(self) -> list[int]:
        """Ranks that were trained to stand alone, ascending to the whole one; none where no LoRA is."""
        rank = max((a.rank for a in self.adapters.values() if isinstance(a, Lora)), default=0)
        if not rank:
            return []
        known = self.about.get("rank_prefixes") or (rank_prefixes(rank) if self.about.get("nested") else [rank])
        return [one for one in known if one <= rank]

    def submodel(self, rank: int, *, truncate: bool = False) -> Adapted:
        """The adaptation with the first `rank` ranks of each LoRA, views of its arrays: what one of the two learns
        changes the other. Statistics and head are shared. `truncate` cuts to a rank that was not trained alone all the
        same.

        Raises:
            UsageError: there is no such rank, or none at all.
        """
        known = self.rank_prefixes
        if not known:
            raise UsageError("this adaptation has no LoRA, whose ranks alone nest: adapt with kind lora")
        if isinstance(rank, bool) or not isinstance(rank, int) or not 0 < rank <= known[-1]:
            raise UsageError(
                f"rank {rank!r} is not one of an adapter of rank {known[-1]}: choose from 1 to {known[-1]}"
            )
        if rank not in known and not truncate:
            trained = ", ".join(map(str, known))
            raise UsageError(
                f"rank {rank} was never trained to stand alone: choose from {trained}, adapt with nested=True "
                "(--nested), or pass truncate=True (--truncate) to cut it all the same"
            )
        cut = {tap: a.prefix(min(rank, a.rank)) if isinstance(a, Lora) else a for tap, a in self.adapters.items()}
        prefixes = [one for one in known if one < rank] + [rank]
        return replace(self, adapters=cut, about={**self.about, "rank_prefixes": prefixes})

    # Files

    def tensors(self) -> dict[str, FloatArray]:
        """The arrays by their names in a file: those of LoRA as PEFT has them."""
        arrays: dict[str, FloatArray] = {}
        for tap, adapter in self.adapters.items():
            known = isinstance(adapter, Lora)
            for name, array in adapter.weights.items():
                arrays[f"{peft.MODULE}{tap}.{name}.weight" if known else f"{_OWN}adapter.{tap}.{name}"] = array
        arrays |= {f"{_OWN}statistics.{name}": array for name, array in self.statistics.items()}
        if self.head is not None:
            arrays |= {f"{_OWN}head.weight": self.head.weight, f"{_OWN}head.bias": self.head.bias}
        return arrays

    def save(self, path: str | Path) -> int:
        """Write the adaptation alone; returns its bytes. A file called adapter_model.safetensors gets PEFT's
        adapter_config.json beside it.

        Raises:
            OutputError: the file cannot be written.
        """
        target = Path(path)
        about = {
            "backbone_sha256": self.backbone.digest,
            "classes": self.classes,
            "adapters": {tap: {"kind": a.kind, **a.settings()} for tap, a in self.adapters.items()},
            "about": {key: value for key, value in self.about.items() if key != "judged"},
        }
        tensorfile.write(target, self.tensors(), {"format": "pt", _ENTRY: json.dumps(about)})
        if target.name == peft.FILE:
            with replacing(target.with_name(peft.CONFIG)) as partial:
                write_through(partial, [json.dumps(self.peft_config(), indent=2).encode()])
        return target.stat().st_size

    def peft_config(self) -> dict[str, Any]:
        """adapter_config.json of PEFT; ranks that nest are in edgelearn_rank_prefixes."""
        found = {tap: a for tap, a in self.adapters.items() if isinstance(a, Lora)}
        widest = max(found.values(), key=lambda a: a.rank, default=None)
        rank, alpha = (widest.rank, widest.alpha) if widest else (1, 1.0)
        return {
            "peft_type": "LORA",
            "task_type": None,
            "base_model_name_or_path": self.backbone.name,
            "r": rank,
            "lora_alpha": alpha,
            "rank_pattern": {tap: a.rank for tap, a in found.items() if a.rank != rank},
            "alpha_pattern": {tap: a.alpha for tap, a in found.items() if a.alpha != alpha},
            "lora_dropout": 0.0,
            "bias": "none",
            "fan_in_fan_out": False,
            "inference_mode": True,
            "target_modules": list(found),
            "edgelearn_rank_prefixes": self.rank_prefixes or [rank],
        }


def load(path: str | Path, backbone: Backbone) -> Adapted:
    """An adaptation from its file, on the backbone that it was made for; a LoRA that PEFT saved, with its
    adapter_config.json beside it, on any backbone with taps of its modules' names.

    Raises:
        ModelError: no such file, damaged, or of another backbone.
    """
    arrays, metadata = tensorfile.read(path)
    foreign = None if _ENTRY in metadata else peft.config_beside(path)
    if foreign is not None:
        return Adapted(backbone, {}, dict(peft.adapters_of(arrays, foreign, (tap.name for tap in backbone.taps))))
    try:
        about = json.loads(metadata[_ENTRY])
        digest, kinds = about["backbone_sha256"], dict(about["adapters"])
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"{path} is no adapter of edgelearn: write one with 'edgelearn adapt'") from error
    if digest != backbone.digest:
        raise ModelError(
            f"{path} was made for another backbone than {backbone.name} (digest {digest[:12]}, not "
            f"{backbone.digest[:12]}): adapt this one, or fetch the one that it belongs to"
        )
    made = {tap: _adapter(tap, dict(settings), arrays) for tap, settings in kinds.items()}
    weight, bias = arrays.get(f"{_OWN}head.weight"), arrays.get(f"{_OWN}head.bias")
    head = None if weight is None or bias is None else Head(weight, bias)
    return Adapted(
        backbone, _below(arrays, f"{_OWN}statistics."), made, head, about.get("classes"), about.get("about", {})
    )


def _adapter(tap: str, settings: dict[str, Any], arrays: Mapping[str, FloatArray]) -> Adapter:
    kind = settings.pop("kind")
    lora = _below(arrays, f"{peft.MODULE}{tap}.")
    weights = {name.removesuffix(".weight"): array for name, array in lora.items()}
    return adapters.restored(kind, weights or _below(arrays, f"{_OWN}adapter.{tap}."), settings)


def _below(arrays: Mapping[str, FloatArray], prefix: str) -> dict[str, FloatArray]:
    return {name.removeprefix(prefix): array for name, array in arrays.items() if name.startswith(prefix)}
