# SPDX-License-Identifier: Apache-2.0
"""Nets as C headers: the same bits, compiled with the core alone, on this machine and on aarch64 under qemu."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from exporting import EXPORTED, core, samples_of, small, write

import edgelearn as el
from edgelearn.errors import ModelError, UsageError, VerificationError
from edgelearn.export import Calibration, Precision, header, runtimes
from edgelearn.layers import BatchNormalization, Conv2D, Dense, MaxPool

ROOT = Path(__file__).parent.parent
EMULATOR = ["qemu-aarch64-static", "-L", "/usr/aarch64-linux-gnu", "-cpu", "cortex-a53"]
MACHINES = {"host": ("cc", []), "aarch64": ("aarch64-linux-gnu-gcc", EMULATOR)}
NATIVE = ROOT / "native"
KERNELS = NATIVE / "src" / "kernels"
CORE = [*sorted((NATIVE / "src").glob("*.c")), KERNELS / "scalar.c", KERNELS / "select.c"]
STRICT = ["-std=c11", "-O1", "-ffp-contract=off", "-D_POSIX_C_SOURCE=200809L", "-Wall", "-Wextra", "-Werror"]


@pytest.mark.parametrize("name", EXPORTED)
def test_a_header_holds_the_very_net(tmp_path, name):
    layers, shape = EXPORTED[name]
    net, flat = small(layers=layers, input_shape=shape, rescale=1)
    x = samples_of(net, 5)
    report = write(tmp_path / "net.h", net, flat, samples=x, forward=lambda rows: core(net, flat, rows))
    assert (report.runtime, report.max_abs_diff) == ("core", 0.0)
    records, params, metadata = header.read((tmp_path / "net.h").read_text())
    assert records.tobytes() == net.records.tobytes()
    assert params.tobytes() == flat.tobytes()
    assert json.loads(metadata["shape"]) == list(shape)


def test_numbers_of_every_size_keep_their_bits(tmp_path):
    net, flat = small(layers=[Dense(6)], input_shape=(4,), softmax=False)
    odd = [0.0, -0.0, 1.0, -1.5, 1e-45, 3.4028235e38, -1.1754944e-38, 1 / 3, 255, 0.1]
    flat[: len(odd)] = odd
    write(tmp_path / "net.h", net, flat, verify=False)
    _, params, metadata = header.read((tmp_path / "net.h").read_text())
    assert params.tobytes() == flat.tobytes()
    assert metadata["unverified"] == "true"


def test_a_header_answers_samples_as_the_data_holds_them(tmp_path):
    net = el.Net([Conv2D(4, 2), Dense(3)], input=el.Input(shape=(2, 5, 4), scale=2.0, layout="channels_first"))
    net.classes = ["a", "*/ b", "ä"]
    x = np.random.default_rng(0).normal(0, 1, (6, 2, 5, 4)).astype(np.float32)
    assert net.export(tmp_path / "net.h", samples=x).max_abs_diff == 0
    runtime = runtimes.load(tmp_path / "net.h")
    assert (runtime.input_shape, runtime.classes) == ((2, 5, 4), ["a", "*/ b", "ä"])
    np.testing.assert_array_equal(runtime.run(x), net.forward(x))


@pytest.mark.parametrize("machine", MACHINES)
def test_the_example_of_a_header_runs_with_the_core_alone(tmp_path, machine):
    compiler, emulator = MACHINES[machine]
    missing = [tool for tool in (compiler, *emulator[:1]) if not shutil.which(tool)]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed: the example cannot be built for {machine}")
    layers = [Conv2D(8, 3, padding="same"), BatchNormalization(), MaxPool(), Dense(5, "gelu"), Dense(3)]
    net, flat = small(layers=layers, input_shape=(7, 6, 2), rescale=2)
    x = samples_of(net, 4)
    write(tmp_path / "my-net.h", net, flat, samples=x)
    includes = [f"-I{folder}" for folder in (NATIVE / "include", NATIVE / "src", KERNELS)]
    command = [compiler, *STRICT, *includes, "-Dmy_net_EXAMPLE", "-x", "c", tmp_path / "my-net.h", *CORE]
    command += ["-o", tmp_path / "program", "-lm", "-lpthread"]
    built = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    numbers = "\n".join(f"{v:.9g}" for v in x.ravel())
    said = subprocess.run(
        [*emulator, str(tmp_path / "program")], input=numbers, capture_output=True, text=True, check=True
    )
    answers = np.array([line.split() for line in said.stdout.splitlines()], np.float32)
    np.testing.assert_allclose(answers, core(net, flat, x), atol=1e-5)


def test_the_example_is_about_twenty_lines(tmp_path):
    net, flat = small()
    write(tmp_path / "net.h", net, flat)
    text = (tmp_path / "net.h").read_text()
    body = text[text.index("int main(void)") : text.rindex("}\n#endif")].splitlines()
    assert len(body) <= 20


def test_what_a_header_cannot_hold_is_refused(tmp_path):
    net, flat = small()
    with pytest.raises(UsageError, match=r"\.h files hold float32, not int8: choose another"):
        write(tmp_path / "net.h", net, flat, precision=Precision("int8", Calibration(samples_of(net))))
    with pytest.raises(ModelError, match="not finite"):
        write(tmp_path / "net.h", net, flat * np.nan, verify=False)
    with pytest.raises(VerificationError):
        write(tmp_path / "net.h", net, flat, forward=lambda x: core(net, flat * np.float32(1.01), x))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", [lambda t: t[:200], lambda t: t.replace("/* metadata", "/*"), lambda t: "int x;"])
def test_a_damaged_header_is_one_clear_sentence(tmp_path, damage):
    net, flat = small()
    write(tmp_path / "net.h", net, flat)
    (tmp_path / "net.h").write_text(damage((tmp_path / "net.h").read_text()))
    with pytest.raises(ModelError, match="net.h is damaged or of an unknown version"):
        runtimes.load(tmp_path / "net.h")
