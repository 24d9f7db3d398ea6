# SPDX-License-Identifier: Apache-2.0
"""LoRA files that PEFT wrote: adapter_model.safetensors beside adapter_config.json.

PEFT adds to what a module gives for an input x; at a tap the module hands on x itself, so only adapters with as many
outputs as inputs, of modules named like taps, have a place here.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgelearn.adapters import Lora
from edgelearn.errors import ModelError

FloatArray = NDArray[np.float32]

FILE, CONFIG = "adapter_model.safetensors", "adapter_config.json"
MODULE = "base_model.model."
"""What PEFT puts before the name of a module."""

_ENDS = (".lora_A.weight", ".lora_B.weight")
_CHANGES = ("use_dora", "lora_bias", "alora_invocation_tokens", "modules_to_save", "layer_replication")
"""Settings that make more of an adapter than B A."""


def config_beside(path: str | Path) -> dict[str, Any] | None:
    """What adapter_config.json beside a file says; None where there is none.

    Raises:
        ModelError: it is damaged.
    """
    try:
        found = json.loads(Path(path).with_name(CONFIG).read_text(encoding="utf-8"))
    except OSError:
        return None
    except ValueError as error:
        raise ModelError(f"{CONFIG} beside {path} is no JSON: save the adapter again with PEFT") from error
    return found if isinstance(found, dict) else None


def adapters_of(arrays: Mapping[str, FloatArray], config: Mapping[str, Any], taps: Iterable[str]) -> dict[str, Lora]:
    """LoRAs by tap from the arrays and the config of PEFT; 1x1 convolutions are products over channels.

    Raises:
        ModelError: another kind of adapter, settings that add more than B A, or a module without a tap.
    """
    more = [name for name in _CHANGES if config.get(name)]
    if config.get("peft_type") != "LORA" or more or config.get("bias", "none") != "none":
        said = ", ".join(more) or f"peft_type {config.get('peft_type')}, bias {config.get('bias')}"
        raise ModelError(f"only a plain LoRA of PEFT can be read, not one with {said}: train one without")
    modules = {name.removeprefix(MODULE).removesuffix(end) for name in arrays for end in _ENDS if name.endswith(end)}
    known = set(taps)
    if not modules or not modules <= known:
        strange = ", ".join(sorted(modules - known)) or "no module"
        raise ModelError(f"PEFT adapted {strange}, and taps are {', '.join(sorted(known))}: name modules like taps")
    return {module: _lora(module, arrays, config) for module in sorted(modules)}


def _lora(module: str, arrays: Mapping[str, FloatArray], config: Mapping[str, Any]) -> Lora:
    try:
        down, up = (_matrix(arrays[f"{MODULE}{module}{end}"]) for end in _ENDS)
        alpha = float(config.get("alpha_pattern", {}).get(module, config["lora_alpha"]))
        alpha *= math.sqrt(len(down)) if config.get("use_rslora") else 1.0
        return Lora({"lora_A": down, "lora_B": up}, alpha)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ModelError(
            f"the LoRA of {module} is no square one, or lora_alpha is missing: adapt a module with as many outputs as "
            "inputs"
        ) from error


def _matrix(array: FloatArray) -> FloatArray:
    """Of a linear layer, or of a 1x1 convolution."""
    if array.ndim == 4 and array.shape[2:] == (1, 1):
        array = array[:, :, 0, 0]
    if array.ndim != 2:
        raise ValueError("no matrix")
    return array
