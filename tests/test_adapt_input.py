# SPDX-License-Identifier: Apache-2.0
"""What `el.adapt` takes, as people hand it over, what it refuses, and the files that it gives."""

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

import edgelearn as el
from edgelearn.adaptation import composition, merging, readouts
from edgelearn.backbone.own import OwnBackbone
from edgelearn.errors import DataError, ModelError, UsageError
from edgelearn.export import runtimes


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A trained net, samples and labels of another domain, and the net as a file of each kind."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 4
    x = (rng.normal(0, 2, (4, 6))[y] + rng.normal(0, 0.5, (120, 6))).astype(np.float32)
    net = el.Net([el.Dense(12, "relu"), el.Dense(10, "relu"), el.Dense(4)], input_shape=(6,), seed=0)
    net.fit(x, y, epochs=10, batch=20, lr=0.01)
    folder = tmp_path_factory.mktemp("input")
    net.save(folder / "net.safetensors")
    for kind in ("onnx", "tflite"):
        net.export(folder / f"net.{kind}", samples=x[:20])
    return net, 0.5 * x[:60] + 1, y[:60], folder


HEAD = {"ways": "head"}


def test_nets_files_and_labels_of_any_whole_numbers_are_one(place):
    net, x, y, folder = place
    found = el.adapt(net, x, y, **HEAD)
    for backbone, labels in (
        (folder / "net.safetensors", y.astype(np.uint8)),
        (str(folder / "net.safetensors"), y.tolist()),
        (OwnBackbone(net, "own"), y.astype(np.int64)),
    ):
        assert np.array_equal(el.adapt(backbone, x, labels, **HEAD).forward(x), found.forward(x))
    assert str(found).startswith("<Adapted the net by head: 44 values")


def test_names_are_labels_too(place):
    net, x, y, _ = place
    names = np.array(["owl", "ant", "bee", "cat"])
    found = el.adapt(net, x, names[y], **HEAD)
    assert found.classes == sorted(names)
    assert found.score(x, names[y]) > 0.9
    assert found.predict(x[:1]).tolist()[0] in names
    given = el.adapt(net, x, names[y].tolist(), classes=names.tolist(), **HEAD)
    assert given.score(x, y) == given.score(x, names[y])
    numbered = el.adapt(net, x, y.astype(str), **HEAD)
    assert np.array_equal(numbered.forward(x), el.adapt(net, x, y, **HEAD).forward(x))
    with pytest.raises(DataError, match="labels owl are none of the classes ant, bee, cat"):
        el.adapt(net, x, names[y], classes=["ant", "bee", "cat"], **HEAD)


def test_other_classes_than_the_heads_own_get_a_new_head_however_many(place):
    net, x, y, _ = place
    named = el.Net(net.layers, input_shape=(6,), seed=0)
    named.fit(x, np.array(["ant", "bee", "cat", "owl"])[y], epochs=1, batch=20)
    said = []
    found = el.adapt(named, x, np.array(["zoo", "yak", "owl", "ant"])[y], ways=("none", "head"), tick=said.append)
    assert found.classes == ["ant", "owl", "yak", "zoo"]
    assert found.about["way"] == "head"
    assert not said  # the old head, whose outputs mean other classes, was not asked
    assert el.adapt(named, x, np.array(["ant", "bee", "cat", "owl"])[y], ways="none").about["way"] == "none"


def test_narrow_taps_get_what_rank_they_can_have_unless_one_is_given(place, tmp_path):
    _, x, y, _ = place
    narrow = el.Net([el.Dense(5, "relu"), el.Dense(12, "relu"), el.Dense(1, "tanh"), el.Dense(4)], seed=0)
    narrow.fit(x, y, epochs=1, batch=20)
    found = el.adapt(narrow, x, y, ways="adapters+head", steps=2, nested=True)
    assert [adapter.rank for adapter in found.adapters.values()] == [4, 8, 1]
    found.save(tmp_path / "adapter_model.safetensors")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"]) == (8, 8.0)
    assert config["rank_pattern"] == {"dense": 4, "dense_2": 1}
    assert config["alpha_pattern"] == {"dense": 4.0, "dense_2": 1.0}
    arrays = load_file(tmp_path / "adapter_model.safetensors")
    assert arrays["base_model.model.dense_2.lora_A.weight"].shape == (1, 1)
    with pytest.raises(UsageError, match="rank 8 does not fit the 5 channels"):
        el.adapt(narrow, x, y, ways="adapters+head", steps=2, rank=8)


@pytest.mark.parametrize("name", ["net.safetensors", "net.onnx", "net.tflite"])
def test_what_was_learned_leaves_in_the_backbones_kind_of_file(place, tmp_path, name):
    _, x, y, folder = place
    found = el.adapt(folder / name, x, y, ways="adapters+head", rank=2, steps=5)
    kinds = [".onnx", ".tflite"] if name == "net.safetensors" else [name[3:]]
    for kind in kinds:
        assert el.export_adapted(found, tmp_path / f"a{kind}", x) < 1e-4
        assert runtimes.load(tmp_path / f"a{kind}").run(x) == pytest.approx(found.forward(x), abs=1e-4)
    assert el.export_adapted(found, tmp_path / "a.safetensors", x) is None
    strange = {".onnx": ".tflite", ".tflite": ".onnx"}.get(name[3:], ".pt")
    with pytest.raises(UsageError, match="change the file's name|names no format"):
        el.export_adapted(found, tmp_path / f"b{strange}", x)


def test_a_net_of_ours_leaves_with_a_head_of_another_width(place, tmp_path):
    net, x, y, _ = place
    names = np.array(["ant", "bee", "cat"])[y % 3]
    found = el.adapt(net, x, names, ways="adapters+head", rank=2, steps=5)
    for kind in (".onnx", ".tflite"):
        assert el.export_adapted(found, tmp_path / f"a{kind}", x) < 1e-4
        assert runtimes.load(tmp_path / f"a{kind}").run(x) == pytest.approx(found.forward(x), abs=1e-4)
    made = merging.merged(found)
    made.save(tmp_path / "a.safetensors")
    again = el.load(tmp_path / "a.safetensors")
    assert again.forward(x) == pytest.approx(found.forward(x), abs=1e-5)
    assert again.predict(x).tolist() == found.predict(x).tolist()
    with pytest.raises(ModelError, match="the new head has 3 classes, this net 4"):
        merging.merge(net, found)


def test_read_outs_belong_to_a_backbone_its_taps_and_its_classes(place, tmp_path):
    net, x, y, folder = place
    backbone = OwnBackbone(net, "own")
    known = readouts.fit(backbone, x, y, 4)
    how = {"ways": "adapters+head", "rank": 2, "steps": 2}
    said = []
    el.adapt(backbone, x, y, classes=5, readouts=known, tick=said.append, **how)
    assert "read-outs of 4 classes say nothing of 5" in said[0]
    with pytest.raises(ModelError, match="fitted on another backbone than net.onnx"):
        el.adapt(folder / "net.onnx", x, y, readouts=known, **how)
    first, second = (tap.name for tap in backbone.taps)
    known.at.pop(second)
    with pytest.raises(ModelError, match=f"no read-out of tap {second}: fit them with the taps"):
        el.adapt(backbone, x, y, readouts=known, **how)
    el.adapt(backbone, x, y, readouts=known, taps=first, **how)
    known.at[first] = type(known.at[first])(np.zeros((3, 4), np.float32), np.zeros(4, np.float32))
    known.save(tmp_path / "r.safetensors")
    with pytest.raises(ModelError, match=f"the read-out of {first} in .* does not fit its tap"):
        readouts.load(tmp_path / "r.safetensors", backbone)
    with pytest.raises(DataError, match="60 labels for 60 samples and 3 classes"):
        readouts.fit(backbone, x, y, 3)


def test_labels_of_a_composition_are_those_of_the_net(place):
    net, x, y, _ = place
    vector = composition.task_vector(net, el.adapt(net, x, y, **HEAD))
    with pytest.raises(DataError, match="class indices of 0 to 3"):
        composition.Composition(net, [vector]).learn(x, y + 1, steps=1)


def test_adaptations_say_when_a_net_is_not_theirs(place):
    net, x, y, folder = place
    found = el.adapt(el.load(folder / "net.safetensors"), x, y, **HEAD)
    merged = merging.merge(net, found)
    with pytest.raises(ModelError, match="made for other weights"):
        merging.merge(net, found)
    merged.detach()


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"rank": 13}, UsageError, "rank 13 does not fit the 12 channels of tap dense"),
        ({"taps": ("conv8", "conv9")}, UsageError, "no tap 'conv8', 'conv9': choose from dense, dense_1"),
        ({"rule": "drtp"}, UsageError, "do not learn by rule 'drtp'"),
        ({"ways": ("tail",)}, UsageError, "unknown way tail: choose from none, statistics, head"),
        ({"kind": "ia3"}, UsageError, "unknown adapter"),
        ({"kind": "conv1x1", "nested": True}, UsageError, "kind conv1x1 do not nest"),
        ({"folds": 1}, UsageError, "folds are 2 or more"),
        ({"rnak": 4}, UsageError, "adapting has no setting rnak: choose from kind, rank, rule"),
        ({"y": lambda y: np.where(y == 0, 9, y)}, DataError, "label 9 is none of the 4 classes of the net"),
        ({"y": lambda y: np.arange(60) * 3}, DataError, "go up to 177, but only 60 of them occur: say how many"),
        ({"y": lambda y: y, "classes": 3}, DataError, "labels from 0 to 3 for 60 samples and 3 classes"),
        ({"y": lambda y: y - 1}, DataError, "labels from -1 to 2"),
        ({"y": lambda y: y * 0}, DataError, "two or more classes"),
        ({"y": lambda y: y.astype(float)}, DataError, "class indices or names"),
        ({"y": lambda y: y[:6], "x": lambda x: x[:6]}, DataError, "6 samples are too few"),
        ({"x": lambda x: x[:, :5]}, DataError, "expected samples of shape"),
    ],
)
def test_bad_samples_and_settings_are_refused(place, changes, error, message):
    net, x, y, _ = place
    given = dict(changes)
    x, y = given.pop("x", lambda x: x)(x), given.pop("y", lambda y: y)(y)
    with pytest.raises(error, match=message):
        el.adapt(net, x, y, **given)


def test_nets_without_features_or_a_plain_head_are_refused():
    with pytest.raises(ModelError, match="one layer has no features"):
        OwnBackbone(el.Net([el.Dense(3)], input_shape=(4,)), "flat")
    with pytest.raises(ModelError, match="more than a Dense layer"):
        OwnBackbone(el.Net([el.Dense(4), el.Dense(3), el.BatchNormalization()], input_shape=(4,)), "odd")
