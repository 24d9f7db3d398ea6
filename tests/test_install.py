# SPDX-License-Identifier: Apache-2.0
"""The wheel in environments of its own: bare, and with each extra alone. What an extra is for works with it and
says what to install without it."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import numpy as np
import pytest
from files import color_folder, tone_folder

ROOT = Path(__file__).parent.parent

HEAVY = {
    "numba",
    "onnx",
    "onnxruntime",
    "matplotlib",
    "sklearn",
    "flatbuffers",
    "ai_edge_litert",
    "torch",
    "tensorflow",
    "PIL",
}

BRINGS = {
    "": set(),
    "onnx": {"onnx", "onnxruntime"},
    "tflite": {"flatbuffers", "ai_edge_litert"},
    "data": {"PIL"},
}


def run(*command, cwd=None):
    return subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp("wheel")
    built = run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT)
    assert built.returncode == 0, built.stderr
    (path,) = folder.glob("*.whl")
    return path


def install(place, *wanted):
    """Into an environment without a pip of its own."""
    done = run(sys.executable, "-m", "pip", "--python", place / "python", "install", "-q", "--no-compile", *wanted)
    if done.returncode and "Could not find a version" in done.stderr:
        pytest.skip("no package index can be reached from here: environments cannot be made")
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="session")
def bare(wheel, tmp_path_factory):
    """The bin folder of a fresh environment that has the wheel and what it cannot do without."""
    folder = tmp_path_factory.mktemp("bare") / "env"
    venv.create(folder)
    return install(folder / "bin", wheel)


@pytest.fixture
def environment(wheel, bare, tmp_path):
    """A function from an extra to the bin folder of an environment that has the wheel with it. What is in the bare one
    is seen from there, so that it is not installed again for each."""

    def make(extra):
        if not extra:
            return bare
        venv.create(tmp_path / "env")
        (site,) = (tmp_path / "env").glob("lib/python*/site-packages")
        (below,) = bare.parent.glob("lib/python*/site-packages")
        (site / "bare.pth").write_text(f"{below}\n")
        install(tmp_path / "env" / "bin", wheel, "--no-deps", "--ignore-installed")
        return install(tmp_path / "env" / "bin", f"{wheel}[{extra}]")

    return make


def test_models_and_their_cards_are_in_the_wheel(wheel):
    with zipfile.ZipFile(wheel) as archive:
        packed = {Path(name).name for name in archive.namelist() if name.startswith("edgelearn/models/")}
    assert packed == {path.name for path in (ROOT / "models").iterdir()}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("extra", BRINGS)
def test_the_wheel_trains_everywhere_and_exports_what_its_extra_brings(environment, tmp_path, blobs, extra):
    x, y = blobs
    np.savez(
        tmp_path / "d.npz", x_train=x[:150].repeat(4, 0), y_train=y[:150].repeat(4), x_test=x[150:], y_test=y[150:]
    )
    (tmp_path / "m.toml").write_text(
        '[[layer]]\ntype = "Dense"\nunits = 8\nactivation = "relu"\n[[layer]]\ntype = "Dense"\nunits = 4\n'
    )
    color_folder(tmp_path / "pictures", {"dark": 30, "light": 220}, count=5)
    tone_folder(tmp_path / "sounds", {"low": 300, "high": 1500}, count=5)
    place = environment(extra)
    code = f"import importlib.util as u; print(*(n for n in {sorted(HEAVY)} if u.find_spec(n)))"
    listed = run(place / "python", "-c", code)
    assert BRINGS[extra] <= set(listed.stdout.split())
    if not extra:
        assert listed.stdout.split() == []
    trained = run(place / "edgelearn", "train", "m.toml", "d.npz", "-o", "out", cwd=tmp_path)
    assert trained.returncode == 0, trained.stderr
    assert run(place / "edgelearn", "plan", "mlp", cwd=tmp_path).returncode == 0, "models/ is not in the wheel"
    heard = run(place / "edgelearn", "train", "m.toml", "sounds", "-o", "heard", cwd=tmp_path)
    assert heard.returncode in (0, 7), heard.stderr  # eight samples: that it reads them counts, not what it learns
    seen = run(place / "edgelearn", "train", "m.toml", "pictures", "-o", "seen", cwd=tmp_path)
    if extra == "data":
        assert seen.returncode in (0, 7), seen.stderr
    else:
        assert seen.returncode == 4
        assert "edgelearn[data]" in seen.stderr
    for suffix, needed in ((".onnx", "onnx"), (".tflite", "tflite")):
        done = run(place / "edgelearn", "export", "out/model.safetensors", "-o", f"m{suffix}", cwd=tmp_path)
        if extra == needed:
            assert done.returncode == 0, done.stderr
        else:
            assert done.returncode == 5
            assert f"edgelearn[{needed}]" in done.stderr
            assert not (tmp_path / f"m{suffix}").exists()


def test_one_wheel_serves_every_python_from_310(wheel):
    assert "-cp310-abi3-" in wheel.name


@pytest.mark.timeout(600)
def test_the_serial_extra_is_all_that_elflash_needs(environment, tmp_path):
    place = environment("serial")
    (tmp_path / "m.bin").write_bytes(b"a model")
    for words in (
        ["--help"],
        ["keygen"],
        ["bundle", "m.bin", "--key", "key.pem", "-o", "m.elb"],
        ["image-info", "m.elb"],
    ):
        done = run(place / "python", "-X", "importtime", "-m", "edgelearn.cli.elflash", *words, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        assert "edgelearn.cli.elflash" in done.stderr  # that it says what is imported
        assert "numpy" not in done.stderr
    assert run(place / "elflash", "ports", cwd=tmp_path).returncode in (0, 3)
