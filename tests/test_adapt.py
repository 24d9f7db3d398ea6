# SPDX-License-Identifier: Apache-2.0
"""Nets of our own under another domain: what adapting gains, what it leaves alone, files, merging, memory."""

import copy
import json
import tracemalloc

import numpy as np
import pytest
from safetensors.numpy import load_file
from sklearn.datasets import load_digits

import edgelearn as el
from edgelearn import adaptation
from edgelearn.adaptation import adapted, merging, readouts, ways
from edgelearn.adapters.local import Readout
from edgelearn.backbone.cache import FeatureCache
from edgelearn.backbone.own import OwnBackbone
from edgelearn.errors import ModelError, UsageError
from edgelearn.inputs import data


def layers(classes=10):
    return [
        *(el.Conv2D(16, padding="same", use_bias=False), el.BatchNormalization(), el.Activation("relu"), el.MaxPool()),
        *(el.Conv2D(24, padding="same", use_bias=False), el.BatchNormalization(), el.Activation("relu"), el.MaxPool()),
        *(el.Dense(20, "relu"), el.Dense(classes)),
    ]


@pytest.fixture(scope="module")
def digits():
    """Images (1797, 8, 8) of 0 to 16 and their labels."""
    x, y = load_digits(return_X_y=True)
    return x.reshape(-1, 8, 8).astype(np.float32), y.astype(np.int32)


@pytest.fixture(scope="module")
def net(digits):
    """Learned from the first thousand."""
    x, y = digits
    net = el.Net(layers(), input_shape=(8, 8), input=el.Input(shape=(8, 8), scale=16.0), seed=0)
    return net.fit(x[:1000], y[:1000], rule="readout", epochs=20, lr=5e-3, batch=50, seed=0)


@pytest.fixture
def backbone(net):
    return OwnBackbone(net, "digits")


@pytest.fixture(scope="module")
def source(net, digits):
    x, y = digits
    return readouts.fit(OwnBackbone(net, "digits"), x[:600], y[:600], 10)


@pytest.fixture
def user(digits):
    """60 samples of another domain, black on white, and 500 more to test on."""
    x, y = digits
    turned = 16 - x
    return turned[1000:1060], y[1000:1060], turned[1200:1700], y[1200:1700]


def test_adapting_beats_the_backbone_and_says_by_which_way(backbone, source, user):
    x, y, x_test, y_test = user
    before = adapted.Adapted(backbone).score(x_test, y_test)
    said = []
    found = adaptation.adapt(backbone, x, y, readouts=source, tick=said.append)
    assert found.score(x_test, y_test) > before + 0.15
    judged = found.about["judged"]
    assert len(said) == len(judged) == 10
    best = max(judged, key=lambda j: j["accuracy"])
    assert (found.about["way"], found.about["lr"]) == (best["way"], best["lr"])


def test_a_new_head_of_the_samples_where_the_old_one_is_no_help(digits):
    """Black on white for a net without normalisation: its own head starts so far off that training it on does not
    arrive."""
    x, y = digits
    dense = [el.Dense(128, "relu"), el.Dense(64, "relu"), el.Dense(10)]
    net = el.Net(dense, input_shape=(8, 8), input=el.Input(shape=(8, 8), scale=16.0), seed=0)
    net.fit(x[:1000], y[:1000], rule="tp-ce", epochs=20, batch=32, lr=5e-3, seed=0)
    turned = 16 - x
    heads = ("head", "ridge")
    found = {w: adaptation.adapt(OwnBackbone(net, "d"), turned[:60], y[:60], ways=(w,)) for w in heads}
    head, ridge = (found[w].score(turned[1000:], y[1000:]) for w in heads)
    assert head < 0.4
    assert ridge > head + 0.3
    several = adaptation.adapt(OwnBackbone(net, "d"), turned[:60], y[:60], ways=("none", *heads))
    assert several.about["way"] == "ridge"


def test_adapters_alone_lower_the_error_of_what_the_head_reads(backbone, source, user):
    x, y, x_test, y_test = user
    found = adaptation.adapt(backbone, x, y, readouts=source, ways=("adapters+head",))
    assert set(found.adapters) == {"conv2d", "conv2d_1", "dense"}
    without = adapted.Adapted(backbone, found.statistics, {}, found.head)
    assert found.score(x_test, y_test) > without.score(x_test, y_test) + 0.05


def test_where_nothing_is_better_the_backbone_stays(backbone, source, digits):
    x, y = digits
    found = adaptation.adapt(backbone, x[1000:1060], y[1000:1060], readouts=source, margin=0.2)
    assert found.about["way"] == "none"
    assert found.tensors() == {}
    assert np.array_equal(found.features(x[:20]), adapted.Adapted(backbone).features(x[:20]))


def test_statistics_are_those_of_the_samples(backbone, net, user):
    x = user[0]
    found = backbone.statistics(backbone.prepare(x))
    assert set(found) == {f"batch_normalization{n}.{s}" for n in ("", "_1") for s in ("mean", "variance")}
    padded = np.pad(x / 16, ((0, 0), (1, 1), (1, 1)))
    patches = np.stack([padded[:, i : i + 8, j : j + 8] for i in range(3) for j in range(3)], axis=-1)
    maps = patches @ net.weights["conv2d.weight"].reshape(9, 16)
    assert found["batch_normalization.mean"] == pytest.approx(maps.mean(axis=(0, 1, 2)), abs=1e-4)
    assert found["batch_normalization.variance"] == pytest.approx(maps.var(axis=(0, 1, 2)), rel=1e-3)
    restated = backbone.restated(found)
    again = restated.statistics(backbone.prepare(x))
    assert again["batch_normalization_1.mean"] == pytest.approx(found["batch_normalization_1.mean"], abs=1e-4)
    with pytest.raises(ModelError, match="no statistics 'other.mean'"):
        backbone.restated({"other.mean": np.zeros(16, np.float32)})


@pytest.mark.parametrize("kind", ["lora", "householder", "bottleneck", "conv1x1", "partly"])
def test_an_adaptation_goes_through_its_file(backbone, source, user, tmp_path, kind):
    x, y, x_test, _ = user
    found = adaptation.adapt(backbone, x, y, readouts=source, kind=kind, ways=("statistics+adapters+head",), steps=20)
    size = found.save(tmp_path / "user.safetensors")
    assert size < 64 * 1024
    again = adapted.load(tmp_path / "user.safetensors", backbone)
    assert np.array_equal(again.forward(x_test[:50]), found.forward(x_test[:50]))
    assert again.about["way"] == "statistics+adapters+head"


def test_a_file_has_the_names_and_shapes_of_peft(backbone, source, user, tmp_path):
    x, y, *_ = user
    found = adaptation.adapt(backbone, x, y, readouts=source, rank=4, nested=True, ways=("adapters+head",), steps=5)
    found.save(tmp_path / "adapter_model.safetensors")
    arrays = load_file(tmp_path / "adapter_model.safetensors")
    assert arrays["base_model.model.conv2d_1.lora_A.weight"].shape == (4, 24)
    assert arrays["base_model.model.conv2d_1.lora_B.weight"].shape == (24, 4)
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["peft_type"], config["r"], config["lora_alpha"]) == ("LORA", 4, 4.0)
    assert config["target_modules"] == ["conv2d", "conv2d_1", "dense"]
    assert config["edgelearn_rank_prefixes"] == [1, 2, 4]


def test_an_adaptation_is_cut_to_the_ranks_that_were_trained_alone(backbone, source, user, tmp_path):
    x, y, x_test, _ = user
    found = adaptation.adapt(backbone, x, y, readouts=source, rank=8, nested=True, ways=("adapters+head",), steps=20)
    assert found.rank_prefixes == [2, 4, 8]
    small = found.submodel(4)
    for tap, adapter in small.adapters.items():
        assert adapter.weights["lora_A"].shape[0] == 4
        assert all(np.shares_memory(a, found.adapters[tap].weights[name]) for name, a in adapter.weights.items())
        by_hand = found.adapters[tap].weights["lora_B"][:, :4] @ found.adapters[tap].weights["lora_A"][:4]
        np.testing.assert_allclose(adapter.matrix() - np.eye(len(by_hand)), by_hand, rtol=0, atol=1e-6)
    assert np.array_equal(found.submodel(8).forward(x_test[:20]), found.forward(x_test[:20]))
    assert not np.array_equal(small.forward(x_test[:20]), found.forward(x_test[:20]))
    assert small.save(tmp_path / "adapter_model.safetensors") < found.save(tmp_path / "whole.safetensors")
    again = adapted.load(tmp_path / "adapter_model.safetensors", backbone)
    np.testing.assert_allclose(again.forward(x_test[:20]), small.forward(x_test[:20]), rtol=0, atol=1e-6)
    assert again.rank_prefixes == [2, 4]
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    assert (config["r"], config["lora_alpha"], config["edgelearn_rank_prefixes"]) == (4, 4.0, [2, 4])


def test_ranks_that_cannot_be_cut_are_refused(backbone, source, user):
    x, y, *_ = user
    settings = {"readouts": source, "ways": ("adapters+head",), "steps": 2}
    plain = adaptation.adapt(backbone, x, y, rank=4, **settings)
    with pytest.raises(UsageError, match="rank 2 was never trained to stand alone: choose from 4, adapt with nested=T"):
        plain.submodel(2)
    assert plain.submodel(2, truncate=True).rank_prefixes == [2]
    nested = adaptation.adapt(backbone, x, y, rank=4, nested=True, **settings)
    with pytest.raises(UsageError, match="rank 3 was never trained to stand alone: choose from 1, 2, 4"):
        nested.submodel(3)
    for rank in (0, 5, -1, 1.0, True):
        with pytest.raises(UsageError, match="is not one of an adapter of rank 4: choose from 1 to 4"):
            nested.submodel(rank)
    other = adaptation.adapt(backbone, x, y, kind="householder", **settings)
    with pytest.raises(UsageError, match="has no LoRA, whose ranks alone nest"):
        other.submodel(2)


def test_an_adapter_fits_only_its_backbone(backbone, digits, user, tmp_path):
    x, y, *_ = user
    adaptation.adapt(backbone, x, y, ways=("head",)).save(tmp_path / "a.safetensors")
    other = OwnBackbone(el.Net(layers(), input_shape=(8, 8), seed=1), "other")
    with pytest.raises(ModelError, match="was made for another backbone than other"):
        adapted.load(tmp_path / "a.safetensors", other)
    readouts.fit(backbone, digits[0][:50], digits[1][:50], 10).save(tmp_path / "r.safetensors")
    with pytest.raises(ModelError, match="is no adapter of edgelearn"):
        adapted.load(tmp_path / "r.safetensors", backbone)
    with pytest.raises(ModelError, match="was fitted on another backbone than other"):
        readouts.load(tmp_path / "r.safetensors", other)
    with pytest.raises(ModelError, match="holds no read-outs"):
        readouts.load(tmp_path / "a.safetensors", backbone)
    again = readouts.load(tmp_path / "r.safetensors", backbone)
    assert set(again.at) == {tap.name for tap in backbone.taps}


@pytest.mark.parametrize("kind", ["lora", "householder", "conv1x1", "partly"])
def test_merging_gives_the_same_answers_and_detaching_the_same_bits(net, source, user, kind):
    x, y, x_test, _ = user
    own = copy.deepcopy(net)
    found = adaptation.adapt(
        OwnBackbone(own, "own"), x, y, readouts=source, kind=kind, ways=("statistics+adapters+head",), steps=30
    )
    expected = found.forward(x_test)
    merged = merging.merge(own, found)
    assert own.forward(x_test) == pytest.approx(expected, abs=1e-4)
    assert not np.array_equal(own.flat, net.flat)
    assert np.array_equal(merged.detach().flat, net.flat)


def test_what_cannot_merge_is_refused_and_changes_nothing(net, source, user):
    x, y, *_ = user
    own = copy.deepcopy(net)
    found = adaptation.adapt(
        OwnBackbone(own, "own"), x, y, readouts=source, kind="bottleneck", ways=("adapters+head",), steps=2
    )
    with pytest.raises(ModelError, match="kind bottleneck is no product"):
        merging.merge(own, found)
    more = adaptation.adapt(OwnBackbone(own, "own"), x, y, classes=12, ways=("head",))
    with pytest.raises(ModelError, match="the new head has 12 classes"):
        merging.merge(own, more)
    assert np.array_equal(own.flat, net.flat)
    own.flat[0] += 1
    with pytest.raises(ModelError, match="made for other weights"):
        merging.merge(own, found)


def test_other_classes_get_a_head_of_their_own(backbone, digits):
    x, y = digits
    chosen = np.flatnonzero(y < 3)[:200]
    names = ["round", "straight", "curved"]
    found = adaptation.adapt(backbone, x[chosen[:40]], y[chosen[:40]], classes=names)
    assert found.output.bias.size == 3
    assert {judged["way"] for judged in found.about["judged"]} >= {"head", "statistics+head"}
    assert "none" not in {judged["way"] for judged in found.about["judged"]}
    assert np.mean(found.predict(x[chosen[40:]]) == np.array(names)[y[chosen[40:]]]) > 0.9


def test_adapters_of_rank_8_train_in_the_memory_of_inference_and_a_tenth():
    net = el.load("cnn-small", seed=0)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (50, 28, 28), np.uint8), (np.arange(50) % 10).astype(np.int32)
    net.adopt(data.Dataset(x, y, x, y))
    backbone = OwnBackbone(net, "warm")
    at = {}
    for tap in backbone.taps:
        weight = rng.normal(size=(min(9, tap.positions) * tap.channels, 10)).astype(np.float32)
        at[tap.name] = Readout(weight, np.zeros(10, np.float32))
    settings = {"ways": ("adapters+head",), "rank": 8, "steps": 10}
    settings["readouts"] = readouts.Readouts(backbone.digest, 10, at)
    adaptation.adapt(backbone, x, y, **settings)  # what Python loads once
    backbone = OwnBackbone(net, "measured")
    plan = ways.plan(backbone, len(y), 10, ways.Settings(rank=8))
    tracemalloc.start()
    adaptation.adapt(backbone, x, y, **settings)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert plan["inference_arena_bytes"] == backbone.arena_bytes
    assert plan["adapter_training_bytes"] <= 0.1 * backbone.arena_bytes
    assert backbone.arena_bytes < peak <= 1.1 * backbone.arena_bytes
    assert plan["optimizer_bytes"] == 2 * 4 * 2 * 8 * 128


def test_features_stay_on_disk_for_the_same_backbone_and_samples(backbone, user, tmp_path):
    rows = backbone.prepare(user[0])
    with FeatureCache(tmp_path) as cache:
        first = np.array(cache.first(backbone, rows, {}))
        assert np.array_equal(first, backbone.stage(0, rows))
        (file,) = tmp_path.glob("*.npy")
        written = file.stat().st_mtime_ns
        cache.first(backbone, rows, {})
        assert file.stat().st_mtime_ns == written
        statistics = backbone.statistics(rows)
        cache.first(backbone.restated(statistics), rows, statistics)
        cache.first(backbone, rows + 1, {})
        assert len(list(tmp_path.glob("*.npy"))) == 3
    with FeatureCache() as cache:
        folder = cache.folder
        cache.first(backbone, rows, {})
    assert not folder.exists()


@pytest.mark.parametrize("rule", ["tp-ce", "tp-l2"])
@pytest.mark.parametrize("optimizer", ["apollo-mini", "adam-8bit"])
def test_other_rules_and_optimizers_adapt_as_well(backbone, user, rule, optimizer):
    """With nothing of the source domain, and low contrast."""
    x, y, x_test, y_test = user
    before = adapted.Adapted(backbone).score(12 - 0.4 * x_test, y_test)
    found = adaptation.adapt(backbone, 12 - 0.4 * x, y, rule=rule, optimizer=optimizer)
    assert found.score(12 - 0.4 * x_test, y_test) > before + 0.1
