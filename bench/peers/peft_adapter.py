# SPDX-License-Identifier: Apache-2.0
"""Hugging Face PEFT beside our adapters: it loads a file of ours, and saves one of its own.

Dense layers (tanh) are frozen; behind each stands a module that hands on what it gets and is named as our tap, so that
a LoRA has its place there.

Job (JSON) on stdin: layers (an .npz with TAP.weight (inputs, units), TAP.bias, x), taps in order, ours and theirs
(folders). Result: what came out of the last tap with our adapter, and with theirs (random A and B, scaled rank-stable).
"""

from __future__ import annotations

import json
import sys
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn


class Net(nn.Module):
    """The frozen layers and their taps."""

    def __init__(self, arrays: Any, taps: list[str]) -> None:
        super().__init__()
        self.taps = taps
        for tap in taps:
            weight, bias = (torch.from_numpy(arrays[f"{tap}.{part}"]) for part in ("weight", "bias"))
            layer, passing = nn.Linear(*weight.shape), nn.Linear(len(bias), len(bias), bias=False)
            layer.weight.data, layer.bias.data = weight.T.contiguous(), bias
            passing.weight.data = torch.eye(len(bias))
            self.add_module(f"frozen_{tap}", layer)
            self.add_module(tap, passing)

    def forward(self, x: Tensor) -> Tensor:
        """What the last tap hands on."""
        for tap in self.taps:
            x = self.get_submodule(tap)(torch.tanh(self.get_submodule(f"frozen_{tap}")(x)))
        return x


def main(job: dict[str, Any]) -> dict[str, Any]:
    """Load, compare, save."""
    torch.manual_seed(0)
    with np.load(job["layers"]) as file:
        arrays = {name: file[name] for name in file.files}
    x = torch.from_numpy(arrays["x"])
    with torch.no_grad():
        loaded = PeftModel.from_pretrained(Net(arrays, job["taps"]), job["ours"])(x)
        config = LoraConfig(
            r=4, lora_alpha=6, use_rslora=True, target_modules=job["taps"], init_lora_weights=False
        )  # fmt: skip
        fresh = get_peft_model(Net(arrays, job["taps"]), config)
        fresh.save_pretrained(job["theirs"])
        return {"ours": loaded.tolist(), "theirs": fresh(x).tolist()}


if __name__ == "__main__":
    print(json.dumps(main(json.load(sys.stdin))))
