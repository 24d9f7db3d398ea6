# SPDX-License-Identifier: Apache-2.0
"""Folders of sounds and pictures from the command line: trained, exported, evaluated as model and as exported file."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
from exporting import small, write
from files import color_folder, tone_folder, write_picture, write_wav

from edgelearn import cli, modelfile
from edgelearn.export import runtimes
from edgelearn.graph import build
from edgelearn.layers import Dense

MODEL = """
[[layer]]
type = "Dense"
units = 16
activation = "relu"
[[layer]]
type = "Dense"
units = 3
[train]
rule = "readout"
lr = 0.003
epochs = 100
batch = 8
"""
PITCHES = {"low": 300, "middle": 900, "high": 2200}
COLORS = {"red": (200, 60, 60), "green": (60, 200, 60), "blue": (60, 60, 200)}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a model, sounds and pictures; the current one."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.toml").write_text(MODEL)
    tone_folder(tmp_path / "sounds", PITCHES, count=15)
    color_folder(tmp_path / "pictures", COLORS, count=15)
    return tmp_path


@pytest.fixture
def run(capsys):
    """A function from arguments to (exit code, JSON or None, stderr)."""

    def call(*arguments):
        code = cli.main([str(a) for a in arguments])
        said = capsys.readouterr()
        return code, json.loads(said.out.splitlines()[-1]) if code == 0 and "--json" in arguments else None, said.err

    return call


def declared(place, text):
    (place / "declared.toml").write_text(f"{text}\n{MODEL}")
    return "declared.toml"


SECTIONS = {
    "": "",
    "sounds": "[input.sound]\nrate = 4000\nseconds = 0.4\nbands = 24\nhigh_hz = 2000\nlow_hz = 100",
    "pictures": '[input]\nstandardise = true\n[input.image]\nsize = [8, 8]\nresize = "pad"\ncolor = "rgb"',
}


@pytest.mark.parametrize(
    ("data", "section"), [("sounds", ""), ("sounds", "sounds"), ("pictures", ""), ("pictures", "pictures")]
)
def test_a_folder_trains_and_exported_files_take_the_same_folder(place, run, data, section):
    model = declared(place, SECTIONS[section])
    code, trained, err = run("train", model, data, "-o", "out", "--json")
    assert code == 0, err
    assert trained["accuracy"] >= 0.85
    assert "36 to train on and 9 to test on" in err
    section = modelfile.read("out/model.safetensors").input
    assert set(section) > {"shape", "scale", {"sounds": "sound", "pictures": "image"}[data]}
    for file in ("out/model.safetensors", "out/m.onnx", "out/m.tflite"):
        if not file.endswith("safetensors"):
            assert run("export", "out/model.safetensors", "-o", file, "--calibration", data)[0] == 0
            assert runtimes.load(file).input.to_config() == section
        code, said, err = run("eval", file, data, "--json")
        assert (code, said["n"], said["accuracy"]) == (0, 9, trained["accuracy"]), err


def test_chance_is_what_shuffled_labels_give(place, run):
    """The control: the accuracy above comes from the files, not from the way they are read."""
    files = sorted((place / "sounds").rglob("*.wav"))
    contents = [file.read_bytes() for file in files]
    for file, content in zip(files, np.random.default_rng(0).permutation(np.array(contents, object)), strict=True):
        file.write_bytes(content)
    code, trained, _ = run("train", "m.toml", "sounds", "--json")
    assert code == 7 or trained["accuracy"] < 0.7


def test_sound_of_a_higher_rate_is_taken_in_evaluation(place, run):
    run("train", declared(place, SECTIONS["sounds"]), "sounds", "-o", "out")
    run("export", "out/model.safetensors", "-o", "out/m.onnx")
    tone_folder(place / "studio", PITCHES, count=15, rate=44100, seed=5)
    for file in ("out/model.safetensors", "out/m.onnx"):
        assert run("eval", file, "studio", "--json")[1]["accuracy"] >= 0.85


def test_labels_are_matched_by_name_not_by_their_order(place, run):
    run("train", "m.toml", "pictures", "-o", "out")
    run("export", "out/model.safetensors", "-o", "out/m.onnx")
    color_folder(place / "two", {"green": COLORS["green"], "red": COLORS["red"]}, count=15, seed=9)
    color_folder(place / "other", {"green": COLORS["green"], "pink": (250, 150, 150)}, count=15)
    for file in ("out/model.safetensors", "out/m.onnx"):
        assert run("eval", file, "two", "--json")[1]["accuracy"] == 1.0
        code, _, err = run("eval", file, "other")
        assert code == 4
        assert "the net knows no class 'pink': it was trained on blue, green, red" in err


def test_classes_without_names_are_matched_by_their_numbers(place, run):
    """Folders sort as text, 10 before 2; and a name that is no number says nothing about numbers."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 12
    x = (rng.normal(0, 4, (120, 3, 3)) + 20 * y[:, None, None]).clip(0, 255).astype(np.uint8)
    np.savez("numbers.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    (place / "twelve.toml").write_text(MODEL.replace("units = 3", "units = 12") + "[input]\nstandardise = true\n")
    for number in range(120):
        write_picture(place / "files" / str(y[number]) / f"{number:03}.png", x[number])
        write_picture(place / "named" / "abcdefghijkl"[y[number]] / f"{number:03}.png", x[number])
    _, trained, _ = run("train", "twelve.toml", "numbers.npz", "-o", "out", "--json")
    run("export", "out/model.safetensors", "-o", "out/m.onnx")
    for file in ("out/model.safetensors", "out/m.onnx"):
        assert run("eval", file, "files", "--json")[1]["accuracy"] >= trained["accuracy"] - 0.15 > 0.5
        code, _, err = run("eval", file, "named")
        assert code == 4
        assert "the net knows no class 'a': it was trained on 0, 1, 2" in err


def test_a_definition_that_was_never_trained_can_be_evaluated(place, run):
    assert run("eval", "m.toml", "pictures", "--json")[1]["n"] == 9


def test_broken_files_are_named_and_skipped_with_the_flag_only(place, run):
    run("train", "m.toml", "pictures", "-o", "out")
    for name in ("red/00.jpg", "red/04.jpg"):
        (place / "pictures" / name).write_bytes(b"no picture")
    for command in (("train", "m.toml", "pictures", "-o", "no"), ("eval", "out/model.safetensors", "pictures")):
        code, _, err = run(*command)
        assert code == 4
        assert "is not a .png or .jpg file" in err
        code, _, err = run(*command, "--skip-broken")
        assert code == 0
        assert "skipped because they cannot be read" in err
        assert "red/04.jpg is not a .png or .jpg file" in err


def test_a_long_list_of_skipped_files_is_cut_but_counted(place, run):
    for number in range(4, 15):
        (place / "pictures" / "red" / f"{number:02}.jpg").write_bytes(b"")
    _, _, err = run("train", "m.toml", "pictures", "--skip-broken")
    assert "cannot be read, 11 of the files:" in err
    assert err.count("is not a .png") == 10
    assert "and 1 more" in err


def spoil_size(folder):
    write_picture(folder / "red" / "00.jpg", np.zeros((9, 9), np.uint8))


def spoil_kind(folder):
    write_wav(folder / "red" / "00.wav", np.zeros(9))


def spoil_content(folder):
    (folder / "red" / "00.jpg").write_bytes(b"\xff\xd8\xff")


REFUSALS = [
    ("m.toml", spoil_size, "set size in [input.image]"),
    ("m.toml", spoil_kind, "of different kinds"),
    ("m.toml", spoil_content, "red/00.jpg"),
    ("mlp", lambda folder: None, "not 28 x 28"),
]


@pytest.mark.parametrize(("model", "spoil", "words"), REFUSALS)
def test_a_folder_that_cannot_be_meant_is_refused_before_training(place, run, model, spoil, words):
    shutil.copytree(place / "pictures", place / "data")
    spoil(place / "data")
    code, _, err = run("train", model, "data", "-o", "out")
    assert code == 4
    assert words in err
    assert "epoch" not in err
    assert not list(place.glob("out/*"))


def test_sound_of_the_wrong_rate_is_refused_before_training(place, run):
    write_wav(place / "sounds" / "low" / "07.wav", np.zeros(4000), 16000)
    for section, words in (
        ("", "low/07.wav has 16000 Hz"),
        ('[input.sound]\nrate = 8000\nresample = "never"', "low/07.wav has 16000 Hz, not 8000"),
        ("[input.sound]\nrate = 16000", "has 8000 Hz and the net takes 16000"),
    ):
        code, _, err = run("train", declared(place, section), "sounds")
        assert code == 4
        assert words in err
        assert "epoch" not in err


def test_a_file_of_another_tool_takes_a_folder_that_has_its_shape(place, run):
    net = build([Dense(3)], (12, 16, 3))
    weights = np.zeros(net.size, np.float32)
    weights[:-3].reshape(12 * 16, 3, 3)[:] = np.eye(3)[[2, 1, 0]]  # classes are blue, green, red
    write(place / "hand.onnx", net, weights / 1e4)
    assert run("eval", "hand.onnx", "pictures", "--json")[1]["accuracy"] == 1.0


def test_a_file_with_fewer_outputs_than_the_data_has_classes_is_refused(place, run):
    write(place / "two.onnx", *small(layers=[Dense(2)], input_shape=(12, 16, 3)))
    code, _, err = run("eval", "two.onnx", "pictures")
    assert code == 4
    assert "the data has 3 classes, the file answers 2" in err
    np.savez("r.npz", x_train=np.ones((9, 4)), y_train=np.ones((9, 3)), x_test=np.ones((9, 4)), y_test=np.ones((9, 3)))
    write(place / "four.onnx", *small(layers=[Dense(2)]))
    code, _, err = run("eval", "four.onnx", "r.npz")
    assert code == 4
    assert "3 values to predict, the file gives 2" in err


def test_a_declared_front_end_can_be_planned_without_data(place, run):
    assert run("plan", declared(place, SECTIONS["sounds"]), "--json")[1]["fits"]
    assert run("plan", declared(place, SECTIONS["pictures"]), "--json")[1]["fits"]
