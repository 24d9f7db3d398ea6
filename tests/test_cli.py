# SPDX-License-Identifier: Apache-2.0
"""The command line as people and programs call it: output, exit codes, one sentence on errors, nothing half-written."""

import json
import os
import signal
import subprocess
import sys

import numpy as np
import pytest
from commands import call, call_alone, last_json

from edgelearn.cli import COMMANDS

MODEL = """
[input]
scale = 2.0
[[layer]]
type = "Dense"
units = 16
activation = "relu"
[[layer]]
type = "Dense"
units = 4
[train]
rule = "tp-ce"
lr = 0.01
epochs = 10
batch = 20
"""


@pytest.fixture
def place(tmp_path, blobs):
    """A folder with a model, data, and a few spoiled copies."""
    x, y = blobs
    (tmp_path / "m.toml").write_text(MODEL)
    arrays = {"x_train": x[:150], "y_train": y[:150], "x_test": x[150:], "y_test": y[150:]}
    np.savez(tmp_path / "d.npz", **arrays)
    np.savez(tmp_path / "nan.npz", **{**arrays, "x_train": np.where(x[:150] > 3, np.nan, x[:150])})
    np.savez(tmp_path / "one.npz", **{**arrays, "y_train": y[:150] * 0, "y_test": y[150:] * 0})
    np.savez(tmp_path / "many.npz", **{**arrays, "y_train": np.arange(150) % 9, "y_test": np.arange(50) % 9})
    (tmp_path / "cut.npz").write_bytes((tmp_path / "d.npz").read_bytes()[:500])
    (tmp_path / "layer.toml").write_text(MODEL.replace('"Dense"', '"Sparse"', 1))
    return tmp_path


def test_train_eval_plan_and_export_say_what_programs_expect(place):
    done = call("train", "m.toml", "d.npz", "-o", "out", "--seed", 1, "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    trained = last_json(done)
    assert set(trained) == {"accuracy", "rule", "seconds", "peak_training_bytes", "samples_per_s", "model"}
    assert trained["accuracy"] >= 0.9
    assert trained["model"] == "out/model.safetensors"
    assert done.stderr.count("epoch ") == 10
    planned = last_json(call("plan", "out/model.safetensors", "--json", cwd=place))
    assert {
        "fits",
        "peak_bytes",
        "weight_bytes",
        "arena_bytes",
        "macs",
        "predicted_ms",
        "widths",
        "batch",
    } <= set(planned)
    assert planned["peak_bytes"] == trained["peak_training_bytes"]
    for name in ("out/m.onnx", "out/m.tflite"):
        done = call("export", "out/model.safetensors", "-o", name, "--calibration", "d.npz", cwd=place)
        assert done.returncode == 0, done.stderr
    for name in ("out/model.safetensors", "out/m.onnx", "out/m.tflite"):
        said = last_json(call("eval", name, "d.npz", "--json", cwd=place))
        assert said["accuracy"] == trained["accuracy"]
        assert said["n"] == 50
        assert said["ms_per_sample"] > 0


def test_int8_files_are_calibrated_on_data_or_on_what_the_model_keeps(place):
    call("train", "m.toml", "d.npz", "-o", "out", "--seed", 1, cwd=place)
    trained = last_json(call("eval", "out/model.safetensors", "d.npz", "--json", cwd=place))
    for name, given in (("m.onnx", ["--calibration", "d.npz", "--method", "percentile"]), ("m.tflite", [])):
        done = call("export", "out/model.safetensors", "-o", name, "--dtype", "int8", *given, "--json", cwd=place)
        assert done.returncode == 0, done.stderr
        said = last_json(done)
        assert (said["dtype"], said["verified"], said["samples"]) == ("int8", True, 50 if given else 16)
        assert said["worst_layer"] in ("input", "dense", "dense_1")
        assert (said["accuracy_core"] == trained["accuracy"]) if given else (said["accuracy"] is None)
        assert "worst layer: " in done.stdout
        assert last_json(call("eval", name, "d.npz", "--json", cwd=place))["accuracy"] >= trained["accuracy"] - 0.02
    done = call("export", "out/model.safetensors", "-o", "u.tflite", "--dtype", "int8", "--unverified", cwd=place)
    assert "not run in any runtime, and the file says so" in done.stdout
    floats = ["export", "out/model.safetensors", "-o", "f.onnx", "--dtype", "int8", "--io", "float32"]
    assert call(*floats, cwd=place).returncode == 0
    refused = call(*floats, "--max-disagreement", 2, cwd=place)
    assert (refused.returncode, "give 0 to 1" in refused.stderr) == (2, True)


def test_training_goes_on_from_exported_files_and_from_those_of_other_tools(place):
    import onnx

    call("train", "m.toml", "d.npz", "-o", "out", "--seed", 1, cwd=place)
    for name in ("m.onnx", "m.tflite"):
        assert call("export", "out/model.safetensors", "-o", name, cwd=place).returncode == 0
        done = call("train", name, "d.npz", "-o", "more", "--epochs", 2, "--json", cwd=place)
        assert done.returncode == 0, done.stderr
        assert last_json(done)["accuracy"] >= 0.9
    model = onnx.load(place / "m.onnx")
    del model.metadata_props[:], model.graph.node[-1]  # the softmax
    model.graph.node[-1].output[0] = "output"
    del model.graph.node[0]  # the scaling of samples
    model.graph.node[0].input[0] = "input"
    onnx.save(model, place / "other.onnx")
    done = call("train", "other.onnx", "d.npz", "-o", "other", "--epochs", 2, "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert last_json(done)["accuracy"] >= 0.8  # of samples that are not scaled any more


def test_augmentation_validation_and_patience_are_said_on_the_command_line(place):
    said = ["--augment", "noise=0.3,mix=0.2", "--validation", "0.2", "--patience", 3, "--class-weights", "balanced"]
    done = call("train", "m.toml", "d.npz", "--epochs", 500, "--lr", 0.02, *said, "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    trained, epochs = last_json(done), done.stderr.count("epoch ")
    assert 3 < epochs < 500
    assert trained["best_epoch"] == epochs - 3
    assert f"weights of epoch {epochs - 3} of {epochs}" in done.stdout
    assert f"validation loss {trained['validation_loss']:.4f}" in done.stderr.splitlines()[epochs - 4]
    assert 0.9 <= trained["validation_accuracy"] <= 1
    assert trained["accuracy"] >= 0.9
    assert (place / "out" / "training.png").stat().st_size > 1000
    from edgelearn.modelfile import read

    train = read(place / "out" / "model.safetensors").train
    assert train["augment"] == {"noise": 0.3, "mix": 0.2}
    assert (train["validation"], train["patience"], train["class_weights"]) == (0.2, 3, "balanced")
    planned = last_json(call("plan", "out/model.safetensors", "--json", cwd=place))
    assert planned["feed_bytes"] > 0


def test_the_help_of_train_names_every_augmentation():
    from edgelearn.augment import AUGMENTATIONS, FILLS

    said = call("train", "--help").stdout
    assert all(name in said for name in (*AUGMENTATIONS, *FILLS))


def test_the_same_seed_writes_the_same_model(place):
    for threads in (1, 2):
        for n, run in ((1, call), (2, call_alone)):
            line = ["train", "m.toml", "d.npz", "-o", f"o{threads}{n}", "--seed", 1, "--threads", threads]
            done = run(*line, cwd=place)
            assert done.returncode == 0, done.stderr
    from edgelearn.modelfile import read

    flats = [read(place / f"o{t}{n}" / "model.safetensors").params for t in (1, 2) for n in (1, 2)]
    assert all(np.array_equal(flats[0], flat) for flat in flats[1:])


REFUSALS = [
    (["train", "m.toml", "nan.npz"], 4, "NaN"),
    (["train", "m.toml", "one.npz"], 4, "two classes"),
    (["train", "m.toml", "many.npz"], 4, "9 classes"),
    (["train", "m.toml", "cut.npz"], 4, "cut.npz"),
    (["train", "m.toml", "nowhere.npz"], 4, "nowhere.npz"),
    (["train", "layer.toml", "d.npz"], 5, "Sparse"),
    (["train", "nowhere.toml", "d.npz"], 5, "nowhere.toml"),
    (["train", "m.toml", "d.npz", "--rule", "hebb"], 5, "hebb"),
    (["train", "m.toml", "d.npz", "--budget", "ram=1KB"], 3, "batch 1 needs"),
    (["train", "m.toml", "d.npz", "--budget", "ram=lots"], 2, "ram=lots"),
    (["train", "m.toml", "d.npz", "--lr", "1e30", "--optimizer", "sgd"], 7, "learning rate"),
    (["train", "m.toml", "d.npz", "--epochs", "none"], 2, "--epochs"),
    (["train", "m.toml", "d.npz", "--augment", "flip"], 2, "flip is for images"),
    (["train", "m.toml", "d.npz", "--augment", "spin=3"], 2, "spin"),
    (["train", "m.toml", "d.npz", "--augment", "noise"], 2, "noise must be a positive number"),
    (["train", "m.toml", "d.npz", "--validation", "2"], 2, "validation"),
    (["train", "m.toml", "d.npz", "--patience", "2"], 2, "set validation"),
    (["train", "m.toml", "d.npz", "--class-weights", "1,2"], 4, "4 outputs"),
    (["train", "m.toml", "d.npz", "--class-weights", "1,x"], 2, "1,x"),
    (["train", "m.toml"], 2, "DATA"),
    (["plan", "m.toml"], 5, "input shape"),
    (["eval", "d.npz", "d.npz"], 5, "d.npz"),
    (["export", "d.npz", "-o", "x.onnx"], 5, "d.npz"),
    (["dance"], 2, "dance"),
    (["bench", "step", "--layers", "ten"], 2, "ten"),
]


@pytest.mark.parametrize(("arguments", "code", "word"), REFUSALS)
def test_refusals_have_their_exit_code_and_one_sentence(place, arguments, code, word):
    before = sorted(p.name for p in place.iterdir())
    done = call(*arguments, cwd=place)
    assert done.returncode == code, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("edgelearn: ")]
    assert len(said) == 1
    assert word in said[0]
    assert "Traceback" not in done.stderr
    assert [n for n in sorted(p.name for p in place.iterdir()) if n not in (*before, "out")] == []
    assert not list(place.glob("out/*"))


@pytest.mark.parametrize("line", [["--version"], ["train", "m.toml", "nan.npz"], ["dance"]])
def test_a_process_returns_and_says_what_the_function_does(place, line):
    alone, here = call_alone(*line, cwd=place), call(*line, cwd=place)
    assert (alone.returncode, alone.stdout, alone.stderr) == (here.returncode, here.stdout, here.stderr)


def test_a_folder_that_cannot_be_written_is_refused_before_training(place):
    (place / "file").write_text("in the way")
    done = call("train", "m.toml", "d.npz", "-o", "file", cwd=place)
    assert done.returncode == 8
    assert "epoch" not in done.stderr


def test_ctrl_c_keeps_what_was_finished(place):
    command = [
        sys.executable,
        "-m",
        "edgelearn.cli",
        "train",
        "m.toml",
        "d.npz",
        "--epochs",
        "1000000",
        "-o",
        "out",
    ]
    pipes = {"stderr": subprocess.PIPE, "stdout": subprocess.PIPE}
    # a shell that starts tests in the background has them ignore SIGINT, and children inherit that
    running = subprocess.Popen(
        command, cwd=place, text=True, preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL), **pipes
    )
    for epoch in range(20):
        assert f"epoch {epoch + 1}/" in running.stderr.readline()
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "interrupted after" in out
    assert last_json(call("eval", "out/model.safetensors", "d.npz", "--json", cwd=place))["accuracy"] > 0.5


def test_a_budget_shrinks_the_batch(place):
    full = last_json(call("train", "m.toml", "d.npz", "--json", cwd=place))["peak_training_bytes"]
    done = call("train", "m.toml", "d.npz", "--json", "--budget", f"ram={full - 1}", cwd=place)
    assert done.returncode == 0, done.stderr
    assert last_json(done)["peak_training_bytes"] < full


def test_every_command_has_help_with_an_example():
    for name in COMMANDS:
        arguments = [name, "step"] if name == "bench" else [name]
        said = call(*arguments, "--help").stdout
        assert f"edgelearn {name}" in said.split("example")[1]


def test_bench_step_prints_both_sides():
    said = last_json(call_alone("bench", "step", "--layers", "20,8,3", "--batch", 4, "--json"))
    assert {
        "us_per_step",
        "samples_per_s",
        "arena_bytes",
        "peak_rss_bytes",
        "isa",
        "gflops",
        "fraction_of_peak",
    } <= set(said)
    assert said["us_per_step"] > 0
    assert said["numpy_us_per_step"] > 0
    assert 0 < said["fraction_of_peak"] < 1


def test_doctor_names_the_core():
    said = last_json(call("doctor", "--json"))
    assert said["core"] in ("scalar", "avx2", "avx512", "neon")


def test_the_demo_writes_its_report(tmp_path):
    done = call_alone("demo", "-o", tmp_path, env={**os.environ, "MPLBACKEND": "Agg"})
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["accuracy"] >= 0.95
    assert report["accuracy"] >= report["accuracy_untrained"] + 0.03
    for kind in ("onnx", "tflite"):
        assert report[f"accuracy_{kind}"] == report["accuracy"]
        assert report[f"max_abs_diff_{kind}"] < 1e-4
    assert {"peak_training_bytes", "seconds", "rule", "backend"} <= set(report)
    names = {p.name for p in tmp_path.iterdir()}
    assert names == {"model.safetensors", "model.onnx", "model.tflite", "report.json", "report.png"}
