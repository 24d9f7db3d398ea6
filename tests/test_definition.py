# SPDX-License-Identifier: Apache-2.0
"""A model's .toml: what it may say, how rules override it, and what is refused."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgelearn import definition, graph, records
from edgelearn.errors import ModelError
from edgelearn.inputs.frontend import Input
from edgelearn.layers import BatchNormalization, Dense
from edgelearn.rules import RULES

LAYER = '[[layer]]\ntype = "Dense"\nunits = 3\n'


def written(folder, text):
    path = folder / "net.toml"
    path.write_text(text, "utf-8")
    return path


def test_augmentation_validation_and_class_weights_are_read(tmp_path):
    text = "[train]\naugment = {flip = true, shift = 2}\nvalidation = 0.1\npatience = 3\nclass_weights = [1, 2.5, 1]\n"
    train = definition.read(written(tmp_path, LAYER + text + "[train.rule.tp-l2]\naugment = {}\n"))
    kept = {"validation": 0.1, "patience": 3, "class_weights": [1, 2.5, 1]}
    assert train.recipe() == {"augment": {"flip": True, "shift": 2}, **kept}
    assert train.recipe("tp-l2") == {"augment": {}, **kept, "rule": "tp-l2"}


def test_layers_input_and_training_are_read(tmp_path):
    text = '[input]\nshape = [4]\nscale = "gain"\n[train]\nlr = 0.5\n[[layer]]\ntype = "BatchNormalization"\n' + LAYER
    model = definition.read(written(tmp_path, text))
    assert model.layers == [BatchNormalization(), Dense(3)]
    assert model.input == {"shape": [4], "scale": "gain"}
    assert (model.name, model.recipe()) == ("net", {"lr": 0.5})


def test_a_model_of_layers_alone_leaves_the_rest_to_the_defaults(tmp_path):
    model = definition.read(written(tmp_path, LAYER))
    assert (model.input, model.train, model.recipe()) == ({}, {}, {})


def test_a_plain_rule_is_the_default_and_can_be_replaced(tmp_path):
    model = definition.read(written(tmp_path, LAYER + '[train]\nrule = "drtp"\nlr = 0.1\n'))
    assert model.recipe() == {"rule": "drtp", "lr": 0.1}
    assert model.recipe("readout") == {"rule": "readout", "lr": 0.1}


OVERRIDDEN = (
    LAYER
    + """
[train]
lr = 0.1
epochs = 3
[train.rule]
default = "tp-ce"
[train.rule.tp-ce]
temperature = 2
[train.rule.tp-l2]
lr = 0.2
optimizer = "sgd"
codes = "sign"
scale = 0.5
"""
)


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        (None, {"rule": "tp-ce", "lr": 0.1, "epochs": 3, "temperature": 2}),
        (
            "tp-l2",
            {"rule": "tp-l2", "lr": 0.2, "epochs": 3, "optimizer": "sgd", "codes": "sign", "scale": 0.5},
        ),
        ("readout", {"rule": "readout", "lr": 0.1, "epochs": 3}),
    ],
)
def test_overrides_apply_only_when_their_rule_is_chosen(tmp_path, rule, expected):
    assert definition.read(written(tmp_path, OVERRIDDEN)).recipe(rule) == expected


def test_overrides_work_without_a_default_rule(tmp_path):
    model = definition.read(written(tmp_path, LAYER + "[train.rule.tp-l1]\nhuber = 2.0\n"))
    assert model.recipe() == {}
    assert model.recipe("tp-l1") == {"rule": "tp-l1", "huber": 2.0}


@pytest.mark.parametrize("rule", ["tp-l3", ""])
def test_an_unknown_chosen_rule_is_refused_with_the_known_ones(tmp_path, rule):
    with pytest.raises(ModelError, match=r"unknown rule .* choose one of tp-l2, tp-l1"):
        definition.read(written(tmp_path, LAYER)).recipe(rule)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "has no layers"),
        ("layer = []", "has no layers"),
        ("layer = [1]", "has no layers"),
        ('[layer]\ntype = "Dense"', "has no layers"),
        ("[[layer]]\nunits = 3", "layer 1: unknown layer 'None'"),
        (LAYER + '[[layer]]\ntype = "Conv9"', "layer 2: unknown layer 'Conv9'"),
        (LAYER + "width = 3", "layer 1: layer Dense has no argument 'width'"),
        ('[[layer]]\ntype = "Dense"', "layer 1: layer Dense"),
        ('[[layer]]\ntype = "Dense"\nunits = 0', "at least 1 unit"),
        ("title = 1\n" + LAYER, "no key 'title': it takes layer, input, train"),
        ("input = 3\n" + LAYER, "'input' must be a table"),
        ("train = 3\n" + LAYER, "'train' must be a table"),
        (LAYER + "[input]\nsize = 3", r"\[input\] has no key 'size': it takes shape, layout"),
        (LAYER + "[train]\nspeed = 3", r"\[train\] has no key 'speed': it takes rule, optimizer, lr"),
        (LAYER + "[train]\ntemperature = 3.0", r"\[train\] has no key 'temperature'"),
        (LAYER + "[train]\nlr = 0", "lr must be a positive number, not 0"),
        (LAYER + "[train]\nlr = true", "lr must be a positive number"),
        (LAYER + "[train]\nlr = inf", "lr must be a positive number"),
        (LAYER + "[train]\nlr = nan", "lr must be a positive number"),
        (LAYER + '[train]\nlr = "1"', "lr must be a positive number"),
        (LAYER + "[train]\nepochs = 0", "epochs must be a whole number from 1 up"),
        (LAYER + "[train]\nbatch = 2.0", "batch must be a whole number"),
        (LAYER + "[train]\nseed = -1", "seed must be a whole number from 0 up"),
        (LAYER + "[train]\nwarmup = true", "warmup must be a whole number"),
        (LAYER + "[train]\naugment = 3", r"\[train\]: augment must be a table of crop .*, not 3"),
        (LAYER + "[train]\naugment = {turn = 3}", r"augment must be a table of crop .*flip \(true or false\)"),
        (LAYER + "[train]\naugment = {shift = 0}", r"shift \(a whole number from 1 up\).*not {'shift': 0}"),
        (LAYER + "[train]\nvalidation = 1.0", "validation must be a share from 0 to below 1"),
        (LAYER + "[train]\npatience = 1.5", "patience must be a whole number from 0 up"),
        (LAYER + '[train]\nclass_weights = "even"', "class_weights must be none or balanced, or a list of positive"),
        (LAYER + "[train]\nclass_weights = [1, -1]", "class_weights must be"),
        (LAYER + '[train]\noptimizer = "adamw"', "optimizer must be one of sgd, momentum, adam"),
        (LAYER + "[train]\noptimizer = []", "optimizer must be one of"),
        (LAYER + '[train]\nlr_schedule = "linear"', "one of constant, cosine, step"),
        (LAYER + '[train]\nschedule = "cosine"', "one of interleaved, sequential"),
        (LAYER + '[train]\nloss = "l2"', "one of cross_entropy, mse, huber"),
        (LAYER + "[train]\nrule = 3", "rule must be a name or a table"),
        (LAYER + '[train]\nrule = "bp"', "unknown rule 'bp'"),
        (LAYER + '[train.rule]\ndefault = "bp"', "unknown rule 'bp'"),
        (LAYER + "[train.rule]\ndefault = []", "unknown rule"),
        (LAYER + "[train.rule]\nlr = 1", "unknown rule 'lr'"),
        (LAYER + "[train.rule.bp]\nlr = 1", "unknown rule 'bp'"),
        (LAYER + "[train.rule]\ndrtp = 1", "'drtp' must be a table"),
        (LAYER + '[train.rule.drtp]\nrule = "drtp"', "has no key 'rule'"),
        (LAYER + "[train.rule.drtp]\nscale = 0", r"\[train.rule.drtp\]: scale must be a positive number"),
        (LAYER + '[train.rule.drtp]\ncodes = "odd"', "codes must be one of gaussian, uniform, sign"),
        ("[[layer", "is not TOML"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_file_and_place(tmp_path, text, words):
    with pytest.raises(ModelError, match=words) as caught:
        definition.read(written(tmp_path, text))
    assert "net.toml" in str(caught.value)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode("utf-8")))
def test_arbitrary_files_are_refused(tmp_path, content):
    path = tmp_path / "noise.toml"
    path.write_bytes(content)
    with pytest.raises(ModelError):
        definition.read(path)


def test_an_existing_path_comes_before_a_shipped_name(tmp_path, monkeypatch):
    (tmp_path / "mlp").write_text(LAYER)
    monkeypatch.chdir(tmp_path)
    assert definition.read("mlp").layers == [Dense(3)]


def test_the_installed_folder_comes_before_the_source_tree(tmp_path, monkeypatch):
    installed, source = tmp_path / "installed", tmp_path / "source"
    for folder in (installed, source):
        folder.mkdir()
        (folder / "one.toml").write_text(LAYER)
    (source / "two.toml").write_text(LAYER)
    monkeypatch.setattr(definition, "FOLDERS", (installed, source))
    assert definition.find("one") == installed / "one.toml"
    assert definition.find("two") == source / "two.toml"


@pytest.mark.parametrize("name", ["resnet", "no/such.toml", "../models/mlp", ""])
def test_an_unknown_name_is_refused_with_the_shipped_ones(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ModelError, match=r"one of the names .*digits.*mlp"):
        definition.read(name)


@pytest.mark.parametrize(("name", "units"), [("mlp", [784, 256, 256, 10]), ("digits", [64, 128, 64, 10])])
def test_shipped_models_can_be_built_and_trained_by_every_rule(name, units):
    model = definition.read(name)
    net = graph.build(model.layers, Input.from_config(model.input).net_shape)
    dense = net.records[net.records["op"] == records.Op.DENSE]
    assert [int(dense["fan_in"][0]), *dense["units"].tolist()] == units
    assert model.recipe()["rule"] == "tp-ce"
    assert [model.recipe(rule)["rule"] for rule in RULES] == list(RULES)
