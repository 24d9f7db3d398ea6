# SPDX-License-Identifier: Apache-2.0
"""The command `submodel`: what it chooses, explains, draws, writes and refuses; `train` under a budget."""

from __future__ import annotations

import json
import subprocess
import sys
from itertools import pairwise

import mixes
import numpy as np
import pytest
from mixes import deep

import edgelearn as el
from edgelearn.cli import main


@pytest.fixture(scope="module")
def data():
    return mixes.data()


@pytest.fixture(scope="module")
def fitted():
    return mixes.fitted()


def test_the_command_chooses_explains_draws_and_writes(fitted, data, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    model = str(tmp_path / "model.safetensors")
    fitted.save(model)
    np.savez(tmp_path / "d.npz", x_train=data[0], y_train=data[1], x_test=data[0], y_test=data[1])
    line = ["submodel", model, "--budget", "macs=500", "--json", "-o", str(tmp_path / "small.safetensors")]
    assert main([*line, "--pareto", str(tmp_path / "front.png"), "--data", str(tmp_path / "d.npz")]) == 0
    said = capsys.readouterr().out.splitlines()
    found = json.loads(said[-1])
    assert found["considered"] == 256
    assert found["macs"] <= 500
    assert found["fits"] is True
    assert "score highest" in found["why"]
    assert any("leaves the others alone" in text for text in said)
    assert (tmp_path / "front.png").stat().st_size > 5000
    assert said[0].endswith("by their score on 600 held-out samples:")
    small = el.load(tmp_path / "small.safetensors")
    assert small.score(*data) == pytest.approx(found["accuracy"])
    assert small.graph.macs == found["macs"]
    assert main(["submodel", model, "--width", "0.25", "-o", str(tmp_path / "s.safetensors"), "--json"]) == 0
    said = capsys.readouterr().out.splitlines()
    found = json.loads(said[-1])
    assert found["widths"] == [0.25, 0.25, 0.25, 0.25, 1.0]
    assert f"scored {found['accuracy']:.4f} on 120 held-out samples" in said


def test_ticks_of_the_front_are_said_as_people_say_them_and_do_not_run_into_each_other(monkeypatch, tmp_path):
    pyplot, plots = pytest.importorskip("matplotlib.pyplot"), pytest.importorskip("edgelearn.training.plots")
    kept = []
    monkeypatch.setattr(pyplot, "close", kept.append)
    points = [(2e-6, 0.4), (1.7e-5, 0.65)]
    plots.pareto([plots.Trade("time", "s", points, points, None)] * 2, tmp_path / "front.svg", "9 training samples")
    monkeypatch.undo()
    axes = kept[0].axes[0]
    assert axes.get_ylabel() == "score on 9 training samples"
    labels = [label for label in axes.get_xticklabels(which="both") if label.get_text()]
    assert {"5 µs", "10 µs"} <= {label.get_text() for label in labels}
    spans = sorted((box.x0, box.x1) for box in (label.get_window_extent() for label in labels))
    assert all(before[1] < after[0] for before, after in pairwise(spans))
    pyplot.close(kept[0])


def test_the_command_wants_a_trained_model(capsys):
    assert main(["submodel", "cnn-small", "--width", "0.5"]) == 2
    assert "cnn-small only describes a net: train it first, with --nested" in capsys.readouterr().err


def test_the_command_says_a_warning_in_a_line(data, tmp_path):
    deep(1).fit(*data, epochs=1, rule="readout", batch=30, lr=0.01).save(tmp_path / "plain.safetensors")
    line = ["submodel", str(tmp_path / "plain.safetensors"), "--width", "0.5", "--truncate"]
    said = subprocess.run([sys.executable, "-m", "edgelearn.cli", *line], capture_output=True, text=True, check=True)
    assert said.stderr.startswith("edgelearn: warning: this net was not trained at other widths")
    assert len(said.stderr.splitlines()) == 1


def test_chances_of_a_net_that_is_not_nested_are_refused(data, tmp_path, capsys):
    np.savez(tmp_path / "d.npz", x_train=data[0], y_train=data[1], x_test=data[0], y_test=data[1])
    for option in (["--chances", "uniform"], ["--sampling", "same"]):
        assert main(["train", "mlp", str(tmp_path / "d.npz"), *option, "-o", str(tmp_path / "out")]) == 2
        assert "add --nested" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "code", "words"),
    [
        (["--budget", "macs=1"], 3, "no submodel fits"),
        (["--pareto", "front.txt"], 2, "no picture is written as 'front.txt': end its name in .png"),
        (["--pareto", "no/such/front.png"], 8, "no folder no/such): make the folder"),
        (["--width", "0.3"], 2, "not in the grid"),
        (["--width", "0.5", "--budget", "ram=1MB"], 2, "give one of --width and --budget"),
        ([], 2, "nothing to choose by"),
        (
            ["--width", "0.5", "-o", "x.txt"],
            2,
            "no submodel is written as 'x.txt': end its name in .safetensors, .onnx",
        ),
        (["--budget", "ram=1MB", "--board", "pdp-11"], 2, "no board 'pdp-11'"),
    ],
)
def test_the_command_refuses_what_cannot_be_meant(fitted, tmp_path, capsys, line, code, words):
    model = tmp_path / "model.safetensors"
    fitted.save(model)
    assert main(["submodel", str(model), *line]) == code
    assert words in capsys.readouterr().err


def test_the_command_cuts_a_model_that_is_not_nested_on_request_only(data, tmp_path, capsys):
    deep(1).fit(*data, epochs=2, rule="readout", batch=30, lr=0.01).save(tmp_path / "plain.safetensors")
    line = ["submodel", str(tmp_path / "plain.safetensors"), "--width", "0.5"]
    assert main(line) == 2
    assert "not nested, so its prefixes were never trained" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="answer poorly"):
        assert main([*line, "--truncate"]) == 0


def test_the_command_trains_what_fits_a_budget_and_later_the_rest(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("edgelearn.cli.train._plot", lambda net, path: None)  # slow, and looked at elsewhere
    np.savez(
        tmp_path / "d.npz", x_train=data[0][:300], y_train=data[1][:300], x_test=data[0][300:], y_test=data[1][300:]
    )
    deep(2, nested=True, seed=1).save(tmp_path / "start.safetensors")

    def run(*line):
        code = main([*line, "--json"])
        said = capsys.readouterr()
        return code, said.out, said.err, json.loads(said.out.splitlines()[-1])

    settings = ["--rule", "readout", "--batch", "30", "--lr", "0.01"]
    half, whole = str(tmp_path / "half" / "model.safetensors"), str(tmp_path / "whole" / "model.safetensors")
    line = ["train", str(tmp_path / "start.safetensors"), str(tmp_path / "d.npz"), "--budget", "macs=250", *settings]
    code, text, _, found = run(*line, "--epochs", "15", "-o", str(tmp_path / "half"))
    assert (code, found["trained_width"]) == (0, 0.5)
    assert "the whole width does not fit the budget, so widths up to 0.5 were trained; at 0.5 accuracy" in text
    _, _, err, garbage = run("eval", half, str(tmp_path / "d.npz"))
    assert "only widths up to 0.5 were trained, under a budget: give --width 0.5" in err
    assert run("eval", half, str(tmp_path / "d.npz"), "--width", "0.5")[3]["accuracy"] == found["accuracy"]
    assert found["accuracy"] > garbage["accuracy"]
    _, _, _, found = run(
        "train", half, str(tmp_path / "d.npz"), *settings, "--epochs", "2", "-o", str(tmp_path / "whole")
    )
    assert "trained_width" not in found
    assert el.load(whole).scored_on == "300 held-out samples"
    assert main([*line, "--budget", "macs=1"]) == 3
    assert "no width fits (macs 40 over 1): the smallest, 0.125, needs" in capsys.readouterr().err
