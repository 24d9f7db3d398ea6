# SPDX-License-Identifier: Apache-2.0
"""Submodels: views that share weights and copy none, plain nets and exports that equal them, and what is refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from clouds import clouds

import edgelearn as el
from edgelearn import nested
from edgelearn.cli import main
from edgelearn.export.runtimes import load as runtime
from edgelearn.net import slices

MIXES = [0.125, 0.25, 0.5, 1.0, [0.125, 0.5, 1.0], [1.0, 0.25, 0.125]]


def convolutional(**settings):
    layers = [
        el.Conv2D(16, 3, padding="same", use_bias=False),
        el.BatchNormalization(),
        el.Activation("relu"),
        el.MaxPool(),
        el.DepthwiseConv2D(3, padding="same", activation="relu"),
        el.Conv2D(24, 3, padding="same", activation="relu"),
        el.LayerNormalization(),
        el.Dense(16, "relu"),
        el.Dense(4),
    ]
    return el.Net(layers, input_shape=(8, 8, 3), **settings)


@pytest.fixture(scope="module")
def pictures():
    return clouds(240, 4, (8, 8, 3), 0.7)


@pytest.fixture(scope="module")
def trained(pictures):
    net = convolutional(nested=True, seed=1)
    return net.fit(*pictures, rule="readout", epochs=40, batch=24, lr=0.004, seed=0)


def mixed(net, width):
    """The mix with the depthwise block following the one before it."""
    return net.submodel([width[0], width[0], *width[1:]] if isinstance(width, list) else width)


@pytest.mark.parametrize("width", MIXES)
def test_a_plain_net_of_a_submodel_answers_as_the_view_does(trained, pictures, width):
    small = mixed(trained, width)
    plain = small.compact()
    assert plain.slice is None
    assert plain.nested is None
    assert plain.flat.size * 4 == small.weight_bytes
    np.testing.assert_allclose(plain.forward(pictures[0]), small.forward(pictures[0]), rtol=0, atol=1e-6)
    assert plain.graph.macs == small.graph.macs


def test_the_full_width_is_the_net_itself(trained, pictures):
    assert np.array_equal(trained.submodel(1.0).forward(pictures[0]), trained.forward(pictures[0]))


def test_every_submodel_of_a_nested_net_has_learned(trained, pictures):
    for width in (0.25, 0.5, 1.0):
        assert trained.submodel(width).score(*pictures) > 0.8
    assert trained.submodel(0.125).score(*pictures) > 0.6


def test_cutting_copies_no_weight(trained):
    small = trained.submodel(0.25)
    assert small.flat is trained.flat
    assert all(np.shares_memory(view, trained.flat) for view in small.weights.values())
    small.weights["conv2d.weight"][...] *= 1  # writable


def test_learning_in_a_submodel_changes_the_shared_prefix_and_nothing_else(pictures):
    net = convolutional(nested=True, seed=1).fit(*pictures, rule="readout", epochs=2, batch=24)
    small, before, was = net.submodel(0.5), net.flat.copy(), net.submodel(0.5).score(*pictures)
    assert small.sharing.endswith("weights, which the whole net shares, and leaves the others alone")
    assert small.sharing in repr(small)
    small.fit(*pictures, rule="readout", epochs=20, batch=24, lr=0.01)
    shared = slices.used(small.graph)
    assert not (net.flat != before)[~shared].any()
    assert (net.flat != before)[shared].mean() > 0.9
    assert small.score(*pictures) > was
    assert net.submodel(0.5).score(*pictures) == small.score(*pictures)


def test_partial_fit_learns_in_a_submodel_too(pictures):
    net = convolutional(nested=True, seed=1)
    with pytest.raises(el.UsageError, match="a submodel has the input of its net: fit the whole net first"):
        net.submodel(0.25).partial_fit(*pictures)
    net.partial_fit(*pictures, rule="tp-l2", lr=0.01)
    small, before = net.submodel(0.25), net.flat.copy()
    small.partial_fit(*pictures, rule="tp-l2", lr=0.01)
    changed = net.flat != before
    assert changed.any()
    assert not changed[~slices.used(small.graph)].any()


@pytest.mark.parametrize("suffix", ["onnx", "tflite"])
@pytest.mark.parametrize("width", [0.125, [0.25, 1.0, 0.5], None])
def test_exported_slices_and_the_whole_net_run_and_match(trained, pictures, tmp_path, suffix, width):
    pytest.importorskip({"onnx": "onnxruntime", "tflite": "ai_edge_litert"}[suffix])
    small = mixed(trained, width) if width else trained
    report = small.export(tmp_path / f"small.{suffix}", samples=pictures[0][:32])
    assert report.max_abs_diff < 1e-5
    answers = runtime(tmp_path / f"small.{suffix}").run(pictures[0].reshape(240, -1))
    np.testing.assert_allclose(answers, small.forward(pictures[0]), rtol=0, atol=1e-5)


def test_a_saved_submodel_is_a_small_plain_model_and_a_saved_nested_net_keeps_its_widths(trained, pictures, tmp_path):
    trained.save(tmp_path / "whole.safetensors")
    again = el.load(tmp_path / "whole.safetensors")
    assert again.nested == trained.nested
    small = again.submodel(0.25)
    assert np.array_equal(small.forward(pictures[0]), trained.submodel(0.25).forward(pictures[0]))
    small.save(tmp_path / "small.safetensors")
    plain = el.load(tmp_path / "small.safetensors")
    np.testing.assert_allclose(plain.forward(pictures[0]), small.forward(pictures[0]), rtol=0, atol=1e-6)
    assert plain.provenance["widths"] == [0.25, 0.25, 0.25, 0.25, 1.0]
    sizes = [(tmp_path / name).stat().st_size for name in ("small.safetensors", "whole.safetensors")]
    assert sizes[0] < sizes[1] / 3


def test_a_plain_model_becomes_a_nested_one_with_the_same_answers(pictures, tmp_path):
    net = convolutional(seed=3).fit(*pictures, epochs=1, rule="tp-ce", batch=24)
    net.save(tmp_path / "plain.safetensors")
    again = el.load(tmp_path / "plain.safetensors", nested=True)
    np.testing.assert_allclose(again.forward(pictures[0]), net.forward(pictures[0]), rtol=0, atol=1e-6)
    assert again.submodel(0.5).score(*pictures) >= 0


def test_plans_of_submodels_count_what_they_take_alone(trained):
    plans = [trained.submodel(width).plan(purpose="infer") for width in (0.125, 0.25, 0.5, 1.0)]
    for field in ("peak_bytes", "weight_bytes", "macs"):
        figures = [getattr(plan, field) for plan in plans]
        assert figures == sorted(figures)
        assert len(set(figures)) == 4
    assert plans[1].widths == [0.25, 0.25, 0.25, 0.25, 1.0]


@pytest.mark.parametrize(
    ("width", "words"),
    [
        (0.3, "width 0.3 is not in the grid of this net: choose one of 0.125, 0.25, 0.5, 1"),
        ([0.5, 0.5], "2 widths for 4 hidden blocks"),
        (0, "width 0 is not a share of the units"),
        (2.0, "width 2.0 is not a share of the units"),
        ("half", "width half is not a share of the units"),
        (True, "width True is not a share of the units"),
        ([0.5, "a", 0.5, 0.5], "width a is not a share of the units"),
        (float("nan"), "width nan is not a share of the units"),
        ([0.5] * 5, "the output block is whole: give 4 widths, or 1 as the last, not 0.5"),
    ],
)
def test_widths_that_are_not_there_are_refused(trained, width, words):
    with pytest.raises(el.UsageError, match=words):
        trained.submodel(width)


def test_budgets_that_are_none_and_boards_without_one_are_refused(trained, pictures):
    for call in (trained.plan, lambda b: trained.submodel(budget=b), lambda b: trained.fit(*pictures, budget=b)):
        with pytest.raises(el.UsageError, match="a budget is an el.Budget, not 'ram=1MB': write el.Budget"):
            call("ram=1MB")
    with pytest.raises(el.UsageError, match="the same on every board: leave out board, or give a budget"):
        trained.submodel(0.5, board="jetson-nano")


@pytest.mark.parametrize("chances", [5, ("a",) * 4, (1, 2), (float("nan"),) * 4, (0,) * 4])
def test_chances_that_do_not_fit_the_widths_are_refused(chances):
    with pytest.raises(el.UsageError, match="4 widths need 4 chances of 0 or more"):
        el.Nested(chances=chances)


def test_a_net_that_is_not_nested_is_cut_on_request_only_and_with_a_warning(pictures):
    net = convolutional(seed=2)
    with pytest.raises(el.UsageError, match="not nested, so its prefixes were never trained: make it with nested=True"):
        net.submodel(0.5)
    with pytest.warns(UserWarning, match="was not trained at other widths"):
        small = net.submodel(0.3, truncate=True)
    assert small.compact().layers[0].filters == 5
    np.testing.assert_allclose(small.compact().forward(pictures[0]), small.forward(pictures[0]), rtol=0, atol=1e-6)


def test_a_submodel_is_not_cut_again_nor_given_another_input(trained, pictures):
    small = trained.submodel(0.5)
    with pytest.raises(el.UsageError, match="this is a submodel: cut the whole net instead"):
        small.submodel(0.5)
    with pytest.raises(el.EdgelearnError):
        small.fit(np.zeros((20, 4, 4, 3), np.float32), np.arange(20) % 4)


def test_sequential_training_of_a_nested_net_runs_earlier_blocks_at_the_widths_drawn(pictures):
    net = convolutional(nested=nested.Nested((0.5, 1.0)), seed=1)
    net.fit(*pictures, rule="readout", epochs=15, batch=24, lr=0.01, schedule="sequential")
    assert min(net.submodel(0.5).score(*pictures), net.score(*pictures)) > 0.6
    with pytest.raises(el.UsageError, match="nested training draws widths anew in every step"):
        net.fit(*pictures, epochs=1, schedule="sequential", cache="uint8")


def test_the_command_line_trains_a_nested_net_scores_and_exports_its_widths(tmp_path, capsys):
    rng = np.random.default_rng(0)
    y = np.arange(400) % 10
    x = (rng.integers(0, 60, (10, 28, 28))[y] + rng.integers(0, 90, (400, 28, 28))).astype(np.uint8)
    np.savez(tmp_path / "d.npz", x_train=x[:300], y_train=y[:300], x_test=x[300:], y_test=y[300:])
    line = ["train", "mlp", str(tmp_path / "d.npz"), "--nested", "--widths", "0.25,1", "-o", str(tmp_path)]
    assert main([*line, "--epochs", "25", "--batch", "20", "--lr", "0.003"]) == 0
    model = str(tmp_path / "model.safetensors")
    accuracies = []
    for width in ("0.25", "1", "0.25,1"):
        capsys.readouterr()
        assert main(["eval", model, str(tmp_path / "d.npz"), "--width", width, "--json"]) == 0
        accuracies.append(json.loads(capsys.readouterr().out.splitlines()[-1])["accuracy"])
    assert min(accuracies) > 0.5
    assert main(["export", model, "-o", str(tmp_path / "m.onnx"), "--width", "0.25"]) == 0
    assert main(["eval", str(tmp_path / "m.onnx"), str(tmp_path / "d.npz"), "--json"]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["accuracy"] == pytest.approx(accuracies[0])
    assert main(["eval", str(tmp_path / "m.onnx"), str(tmp_path / "d.npz"), "--width", "1"]) == 2
    assert main(["eval", model, str(tmp_path / "d.npz"), "--width", "0.3"]) == 2
    assert main(["eval", model, str(tmp_path / "d.npz"), "--width", "half"]) == 2
    assert "leave out --width" in (errors := capsys.readouterr().err)
    assert "not in the grid" in errors
    assert "numbers joined by commas" in errors
