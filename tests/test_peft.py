# SPDX-License-Identifier: Apache-2.0
"""LoRA files as PEFT writes them, on a net of ours: what they mean, and which are refused."""

import json

import numpy as np
import pytest
from safetensors.numpy import save_file

import edgelearn as el
from edgelearn.adaptation import adapted
from edgelearn.backbone.own import OwnBackbone
from edgelearn.errors import ModelError

RNG = np.random.default_rng(0)
NET = el.Net([el.Dense(6, "tanh"), el.Dense(6, "tanh"), el.Dense(3)], input_shape=(4,), seed=0)
X = RNG.normal(size=(5, 4)).astype(np.float32)
DOWN, UP = RNG.normal(size=(2, 6)).astype(np.float32), RNG.normal(size=(6, 2)).astype(np.float32)
PLAIN = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none"}


@pytest.fixture
def backbone():
    return OwnBackbone(NET, "net")


def saved(folder, arrays, config):
    save_file(arrays, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    (folder / "adapter_config.json").write_text(config if isinstance(config, str) else json.dumps(config))
    return folder / "adapter_model.safetensors"


def lora(module, down=DOWN, up=UP):
    names = (f"base_model.model.{module}.lora_{part}.weight" for part in "AB")
    return dict(zip(names, (down, up), strict=True))


def expected(scaling):
    """Behind the second layer h + scaling B A h."""
    weights = NET.weights
    h = np.tanh(np.tanh(X @ weights["dense.weight"] + weights["dense.bias"]) @ weights["dense_1.weight"])
    return h + scaling * h @ DOWN.T @ UP.T


@pytest.mark.parametrize(
    ("more", "scaling"),
    [({}, 2.0), ({"use_rslora": True}, 4 / np.sqrt(2)), ({"alpha_pattern": {"dense_1": 1}}, 0.5)],
)
def test_a_lora_of_peft_does_what_its_config_says(backbone, tmp_path, more, scaling):
    found = adapted.load(saved(tmp_path, lora("dense_1"), {**PLAIN, **more}), backbone)
    assert set(found.adapters) == {"dense_1"}
    assert found.features(X) == pytest.approx(expected(scaling), abs=1e-5)
    assert found.output is not None


def test_a_convolution_of_one_by_one_is_a_product(backbone, tmp_path):
    path = saved(tmp_path, lora("dense_1", DOWN[:, :, None, None], UP[:, :, None, None]), PLAIN)
    assert adapted.load(path, backbone).features(X) == pytest.approx(expected(2), abs=1e-5)


@pytest.mark.parametrize(
    ("arrays", "config", "message"),
    [
        (lora("dense_1"), {**PLAIN, "peft_type": "IA3"}, "not one with peft_type IA3, bias none: train one without"),
        (lora("dense_1"), {**PLAIN, "bias": "all"}, "bias all"),
        (lora("dense_1"), {**PLAIN, "use_dora": True}, "not one with use_dora"),
        (lora("fc1"), PLAIN, "PEFT adapted fc1, and taps are dense, dense_1: name modules like taps"),
        ({"base_model.model.dense.ia3_l": DOWN}, PLAIN, "PEFT adapted no module"),
        (lora("dense_1", DOWN[:, :4]), PLAIN, "the LoRA of dense_1 is no square one"),
        (lora("dense_1"), {"peft_type": "LORA"}, "lora_alpha is missing"),
        (lora("dense_1", DOWN[0]), PLAIN, "adapt a module with as many outputs as inputs"),
        (lora("dense_1", DOWN[:, :4], UP[:4]), PLAIN, "adapter of 4 channels does not fit tap dense_1"),
        (lora("dense_1"), "{", "is no JSON: save the adapter again with PEFT"),
        (lora("dense_1"), "[]", "is no adapter of edgelearn"),
    ],
)
def test_what_is_no_plain_lora_at_a_tap_is_refused(backbone, tmp_path, arrays, config, message):
    with pytest.raises(ModelError, match=message):
        adapted.load(saved(tmp_path, arrays, config), backbone)
