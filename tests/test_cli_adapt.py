# SPDX-License-Identifier: Apache-2.0
"""`edgelearn adapt`, `apply` and `doctor MODEL.onnx` as people and programs call them."""

import json

import numpy as np
import pytest
from commands import call, last_json
from test_backbone_onnx import residual

import edgelearn as el
from edgelearn.export import runtimes


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A trained net, data of its domain and of another; an outside ONNX file with data."""
    folder = tmp_path_factory.mktemp("adapt")
    rng = np.random.default_rng(0)
    y = np.arange(400) % 4
    x = (rng.normal(0, 2, (4, 8))[y] + rng.normal(0, 0.7, (400, 8))).astype(np.float32)
    net = el.Net([el.Dense(16, "relu"), el.Dense(16, "relu"), el.Dense(4)], input_shape=(8,), seed=0)
    net.fit(x[:200], y[:200], epochs=10, batch=20, lr=0.01)
    net.save(folder / "net.safetensors")
    save(folder / "source.npz", x[:200], y[:200], x[200:], y[200:])
    moved = 0.5 * x[:, ::-1] + 1
    save(folder / "user.npz", moved[:60], y[:60], moved[200:], y[200:])
    (folder / "outside.onnx").write_bytes(residual())
    pictures = rng.normal(size=(80, 3, 8, 8)).astype(np.float32)
    colours = rng.normal(0, 3, (20, 3))
    pictures += colours[np.arange(80) % 4][:, :, None, None].astype(np.float32)
    save(folder / "pictures.npz", pictures[:40], np.arange(40) % 4, pictures[40:], np.arange(40) % 4)
    names = np.array(["ant", "bee", "cat", "dog", "elk"])
    save(folder / "named.npz", pictures[:40], names[np.arange(40) % 5], pictures[40:], names[np.arange(40) % 5])
    return folder


def save(path, x_train, y_train, x_test, y_test):
    np.savez(path, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)


def test_an_outside_onnx_file_is_adapted_and_answers_alike(place):
    done = call("adapt", "outside.onnx", "pictures.npz", "--rank", 2, "-o", "adapted.onnx", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    said = last_json(done)
    assert said["accuracy"] > said["accuracy_before"] + 0.2
    assert said["max_abs_diff"] < 1e-4
    assert said["bytes"] == (place / "adapted.onnx").stat().st_size
    assert done.stderr.count("of held-out samples right") == len(said["judged"])
    scored = last_json(call("eval", "adapted.onnx", "pictures.npz", "--json", cwd=place))
    assert scored["accuracy"] == pytest.approx(said["accuracy"])


def test_an_adapter_alone_is_applied_to_its_backbone(place):
    ways = ("--ways", "adapters+head", "--rank", 4)
    options = ("--source", "source.npz", "--readouts", "readouts.safetensors", *ways)
    done = call(
        "adapt", "net.safetensors", "user.npz", *options, "-o", "a/adapter_model.safetensors", "--json", cwd=place
    )
    assert done.returncode == 0, done.stderr
    said = last_json(done)
    assert said["accuracy"] > said["accuracy_before"] + 0.1
    assert json.loads((place / "a/adapter_config.json").read_text())["peft_type"] == "LORA"
    for name in ("applied.onnx", "applied.tflite", "applied.safetensors"):
        done = call("apply", "net.safetensors", "a/adapter_model.safetensors", "-o", name, "--json", cwd=place)
        assert done.returncode == 0, done.stderr
        scored = last_json(call("eval", name, "user.npz", "--json", cwd=place))
        assert scored["accuracy"] == pytest.approx(said["accuracy"], abs=0.011)
    cut = ("apply", "net.safetensors", "a/adapter_model.safetensors", "-o", "cut.onnx", "--rank", 2)
    refused = call(*cut, cwd=place)
    assert refused.returncode == 2
    assert "rank 2 was never trained to stand alone: choose from 4" in refused.stderr
    assert call(*cut, "--truncate", cwd=place).returncode == 0
    assert (place / "cut.onnx").read_bytes() != (place / "applied.onnx").read_bytes()  # of one size: ranks are merged
    assert last_json(call("eval", "cut.onnx", "user.npz", "--json", cwd=place))["n"] > 0
    again = call(
        *("adapt", "net.safetensors", "user.npz", "--source", "readouts.safetensors", *ways),
        *("-o", "direct.tflite", "--json"),
        cwd=place,
    )
    assert last_json(again)["accuracy"] == said["accuracy"]


def test_new_class_names_give_a_new_head(place):
    done = call("adapt", "outside.onnx", "named.npz", "--rank", 2, "-o", "named.onnx", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert last_json(done)["accuracy_before"] is None
    assert runtimes.load(place / "named.onnx").classes == ["ant", "bee", "cat", "dog", "elk"]
    assert call("eval", "named.onnx", "named.npz", cwd=place).returncode == 0


def test_few_samples_need_not_show_every_class_that_the_head_knows(place):
    with np.load(place / "pictures.npz") as file:
        seen = file["y_train"] != 3
        save(place / "few.npz", file["x_train"][seen], file["y_train"][seen], file["x_test"], file["y_test"])
    done = call("adapt", "outside.onnx", "few.npz", "--ways", "head", "-o", "few.onnx", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    said = last_json(done)
    assert said["accuracy_before"] is not None
    assert runtimes.load(place / "few.onnx").run(np.zeros((1, 3, 8, 8), np.float32)).shape == (1, 4)
    scored = last_json(call("eval", "few.onnx", "few.npz", "--json", cwd=place))
    assert scored["accuracy"] == pytest.approx(said["accuracy"])
    before = last_json(call("eval", "outside.onnx", "few.npz", "--json", cwd=place))
    assert before["accuracy"] == pytest.approx(said["accuracy_before"])


def test_a_class_that_no_sample_shows_keeps_its_output_in_a_file_of_another_tool(place):
    with np.load(place / "pictures.npz") as file:
        x, y = file["x_test"], file["y_test"]
    outside = runtimes.load(place / "outside.onnx")
    assert outside.outputs == 4
    save(place / "gap.npz", x[y != 1], y[y != 1], x[y != 1], y[y != 1])
    answers = outside.run(x[y != 1]).argmax(axis=1)
    scored = last_json(call("eval", "outside.onnx", "gap.npz", "--json", cwd=place))
    assert scored["accuracy"] == pytest.approx(np.mean(answers == y[y != 1]))


def test_doctor_lists_an_onnx_file(place):
    done = call("doctor", "outside.onnx", "--json", cwd=place)
    assert done.returncode == 0, done.stderr
    assert last_json(done)["default"] == ["r0", "sum", "p"]
    assert "other paths lead around it" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("adapt", "outside.onnx", "pictures.npz", "-o", "x.pt"), 2, "end it in .safetensors, .onnx or .tflite"),
        (("adapt", "outside.onnx", "pictures.npz", "-o", "x.tflite"), 2, "change the file's name"),
        (("adapt", "outside.onnx", "pictures.npz", "-o", "x.onnx", "--rank", "99"), 2, "rank 99 does not fit the 6"),
        (("adapt", "outside.onnx", "pictures.npz", "-o", "x.onnx", "--taps", "r1"), 5, "other paths lead around it"),
        (("adapt", "outside.onnx", "user.npz", "-o", "x.onnx"), 4, "give them in that order of axes"),
        (("adapt", "cnn-small", "user.npz", "-o", "x.onnx"), 2, "has trained weights: give a file that ends in"),
        (("adapt", "none.onnx", "user.npz", "-o", "x.onnx"), 5, "cannot be read"),
        (("adapt", "net.safetensors", "user.npz", "-o", "x.onnx", "--rule", "drtp"), 2, "do not learn by rule"),
        (("adapt", "net.safetensors", "user.npz", "-o", "x.onnx", "--readouts", "r.x"), 2, "what --source gives"),
        (("apply", "outside.onnx", "net.safetensors", "-o", "x.onnx"), 5, "no safetensors file of float32 arrays"),
        (("doctor", "net.safetensors"), 2, "doctor lists the nodes of .onnx and .tflite files"),
        (("doctor", "none.onnx"), 5, "check the path"),
    ],
)
def test_mistakes_are_one_sentence(place, arguments, code, message):
    done = call(*arguments, cwd=place)
    assert done.returncode == code, done.stderr
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert not (place / arguments[-1]).exists() or arguments[-1].startswith("net.")
