# SPDX-License-Identifier: Apache-2.0
"""TFLite files as backbones: features, heads and adapters behind them, grafts that LiteRT runs."""

import zipfile

import numpy as np
import pytest

import edgelearn as el
from edgelearn import adaptation, backbone
from edgelearn.adaptation import adapted, tflite_grafting
from edgelearn.backbone.inspecting import listing
from edgelearn.errors import DataError, ModelError
from edgelearn.export import runtimes


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A net with maps, and its .tflite in float32 and int8."""
    folder = tmp_path_factory.mktemp("tflite")
    rng = np.random.default_rng(0)
    y = np.arange(240) % 4
    x = (rng.normal(0, 1, (4, 8, 8))[y] + rng.normal(0, 0.5, (240, 8, 8))).astype(np.float32)
    net = el.Net([el.Conv2D(8, activation="relu"), el.MaxPool(), el.Dense(12, "relu"), el.Dense(4)], (8, 8), seed=0)
    net.fit(x[:160], y[:160], rule="readout", epochs=10, batch=20, lr=3e-3)
    net.export(folder / "net.tflite")
    net.export(folder / "int8.tflite", dtype="int8", calibration=x[:100])
    net.export(folder / "half.tflite", dtype="float16")
    return folder, net, x, y.astype(np.int32)


def test_features_and_head_are_those_of_the_file(place):
    folder, net, x, _ = place
    frozen = backbone.load(folder / "net.tflite")
    assert [str(tap) for tap in frozen.taps] == ["features (12)"]
    assert adapted.Adapted(frozen).forward(x) == pytest.approx(net.forward(x), abs=1e-5)


@pytest.mark.parametrize("name", ["net.tflite", "int8.tflite", "half.tflite"])
@pytest.mark.parametrize("kind", ["lora", "householder", "bottleneck", "conv1x1"])
def test_a_graft_answers_as_the_adaptation_does(place, tmp_path, name, kind):
    folder, _, x, y = place
    frozen = backbone.load(folder / name)
    moved = 0.5 * x[:, ::-1]
    found = adaptation.adapt(frozen, moved[:60], y[:60], kind=kind, rank=4, ways=("adapters+head",), steps=30)
    assert tflite_grafting.write(tmp_path / "g.tflite", found, moved[:40]) < 1e-4
    answers = runtimes.load(tmp_path / "g.tflite").run(frozen.prepare(moved))
    assert np.mean(answers.argmax(axis=1) == y) == pytest.approx(found.score(moved, y), abs=0.01)
    before = adapted.Adapted(frozen).score(moved, y)
    assert found.score(moved, y) > before
    if name == "int8.tflite":
        return
    old = frozen.head.weight.T.astype(np.float16 if name == "half.tflite" else np.float32).tobytes()
    assert old in (folder / name).read_bytes()
    assert old not in (tmp_path / "g.tflite").read_bytes()  # the new head stands in its place, not beside it


def test_new_classes_take_the_place_of_the_old_ones_in_the_file(place, tmp_path):
    _, net, x, y = place
    named = el.Net(net.layers, (8, 8), seed=0).fit(x, np.array(["ant", "bee", "cat", "owl"])[y], epochs=1, batch=40)
    named.export(tmp_path / "named.tflite", samples=x[:5])
    frozen = backbone.load(tmp_path / "named.tflite")
    assert frozen.classes == ["ant", "bee", "cat", "owl"]
    found = adaptation.adapt(frozen, x[:60], np.array(["yes", "no"])[y[:60] % 2], ways="head")
    tflite_grafting.write(tmp_path / "new.tflite", found, x[:20])
    assert runtimes.load(tmp_path / "new.tflite").classes == ["no", "yes"]
    with zipfile.ZipFile(tmp_path / "new.tflite") as archive:  # what phones read
        assert archive.read(archive.namelist()[0]).decode().split() == ["no", "yes"]
    counted = adaptation.adapt(frozen, x[:60], y[:60], classes=6, ways="head")
    tflite_grafting.write(tmp_path / "six.tflite", counted, x[:20])
    assert counted.classes is None
    assert runtimes.load(tmp_path / "six.tflite").classes is None


def test_an_adapter_goes_through_its_file(place, tmp_path):
    folder, _, x, y = place
    frozen = backbone.load(folder / "net.tflite")
    found = adaptation.adapt(frozen, x[:60], y[:60], rank=4, ways=("adapters+head",), steps=5)
    found.save(tmp_path / "a.safetensors")
    again = adapted.load(tmp_path / "a.safetensors", backbone.load(folder / "net.tflite"))
    assert np.array_equal(again.forward(x), found.forward(x))
    with pytest.raises(ModelError, match="made for another backbone"):
        adapted.load(tmp_path / "a.safetensors", backbone.load(folder / "int8.tflite"))


def test_the_listing_says_what_can_be_learned_where(place):
    folder, *_ = place
    found = listing(folder / "net.tflite")
    kinds = [row.operator for row in found.rows]
    assert {"CONV_2D", "MAX_POOL_2D", "FULLY_CONNECTED", "SOFTMAX"} <= set(kinds)
    features = kinds.index("FULLY_CONNECTED")
    assert [row.tap for row in found.rows] == [place == features for place in range(len(kinds))]
    assert found.rows[features].learns == "no: frozen; an adapter behind it stands in"
    assert found.rows[features].parameters == 12 * (8 * 9 + 1)
    assert [row.learns for row in found.rows].count("head") == 1
    assert found.rows[0].adapter == "LiteRT cannot be entered there"
    assert str(found).endswith("adapters    features")
    int8 = listing(folder / "int8.tflite")
    assert {row.operator: row.learns for row in int8.rows}["CONV_2D"] == "no: quantised weights stay as they are"
    assert "in floats from there on" in int8.head


def test_what_cannot_be_a_backbone_is_refused(place, tmp_path):
    folder, _, x, y = place
    (tmp_path / "cut.tflite").write_bytes((folder / "net.tflite").read_bytes()[:300])
    with pytest.raises(ModelError, match="damaged or no TFLite file"):
        backbone.load(tmp_path / "cut.tflite")
    with pytest.raises(ModelError, match="leave the taps out"):
        backbone.load(folder / "net.tflite", ("value_1",))
    el.Net([el.Conv2D(4), el.GlobalAvgPool()], (8, 8), loss="mse").export(tmp_path / "open.tflite", samples=x[:5])
    with pytest.raises(ModelError, match="does not end in a fully connected layer"):
        backbone.load(tmp_path / "open.tflite")
    el.Net([el.Dense(4)], (5,)).export(tmp_path / "head.tflite", samples=np.zeros((5, 5)))
    with pytest.raises(ModelError, match="head.tflite is a head alone"):
        backbone.load(tmp_path / "head.tflite")
    frozen = backbone.load(folder / "net.tflite")
    with pytest.raises(DataError, match="give them in that order of axes"):
        adaptation.adapt(frozen, x[:, :5], y)
    with pytest.raises(DataError, match="NaN or infinity"):
        adaptation.adapt(frozen, x * np.nan, y)
    with pytest.raises(ModelError, match="no statistics of its own"):
        frozen.restated({"a.mean": np.zeros(3, np.float32)})
