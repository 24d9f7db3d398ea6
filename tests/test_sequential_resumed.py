# SPDX-License-Identifier: Apache-2.0
"""Block by block: a run that was killed or interrupted goes on to the same bits, or is refused by name."""

import json
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from benches import BACKENDS
from sequential import BATCH, EPOCHS, fit, net, pictures

import edgelearn as el

SCRIPT = """
    import os, signal, sys
    import sequential as here

    def end(moment):
        if (moment.stage, moment.epoch) == (int(sys.argv[4]), 1):
            os.kill(os.getpid(), signal.SIGKILL)

    here.fit(cache=sys.argv[2], backend=sys.argv[3], cache_dir=sys.argv[1], callbacks=[end])
"""


def killed(folder, kind, backend, stage):
    """A process that is killed within a stage."""
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder), kind, backend, str(stage)]
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    return subprocess.run(command, env={**os.environ, "PYTHONPATH": path}, check=False)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("kind", "stage"), [("uint8", 1), ("float16", 2), ("none", 1)])
def test_a_killed_run_goes_on_to_the_same_bits(backend, kind, stage, tmp_path):
    seen = []
    assert killed(tmp_path, kind, backend, stage).returncode == -signal.SIGKILL
    assert json.loads((tmp_path / "run.json").read_bytes())["finished"] == stage
    resumed = fit(backend, cache=kind, cache_dir=tmp_path, callbacks=[seen.append])
    assert {moment.stage for moment in seen} == set(range(stage, 4)), "a finished stage was trained again"
    whole = fit(backend, cache=kind)
    assert np.array_equal(resumed.flat, whole.flat)
    assert [m.loss for m in resumed.history.epochs] == [m.loss for m in whole.history.epochs]
    assert resumed.history.samples == whole.history.samples
    assert resumed.history.kept == whole.history.kept


def interrupted(folder, **settings):
    """A run that Ctrl-C ended in its third block."""

    def stop(moment):
        if moment.stage == 2 and moment.epoch == 1:
            raise KeyboardInterrupt

    return fit(cache_dir=folder, callbacks=[stop], **settings)


def test_ctrl_c_keeps_the_last_finished_epoch_and_the_same_call_goes_on(tmp_path):
    stopped = interrupted(tmp_path / "run", cache="uint8")
    assert stopped.history.interrupted
    assert len(stopped.history.epochs) == stopped.history.kept == 2 * EPOCHS + 1
    (tmp_path / "run" / ".edgelearn-0123456789abcdef.uint8").write_bytes(b"left behind")
    (tmp_path / "run" / "outputs-1.uint8").write_bytes(b"left behind")
    assert np.array_equal(fit(cache="uint8", cache_dir=tmp_path / "run").flat, fit(cache="uint8").flat)
    names = sorted(path.name for path in (tmp_path / "run").iterdir())
    assert names == ["outputs-3.uint8", "run.json", "weights-3.npz"]


@pytest.mark.parametrize("fail", [KeyboardInterrupt, RuntimeError])
def test_the_temporary_folder_goes_however_a_run_ends(temporary, fail):
    there = []

    def stop(moment):
        there.append(len(list(temporary.rglob("outputs-*"))))
        if moment.stage == 2:
            raise fail

    if fail is RuntimeError:
        with pytest.raises(RuntimeError):
            fit(cache="float16", callbacks=[stop])
    else:
        fit(cache="float16", callbacks=[stop])
    assert set(there) == {0, 1}
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"lr": 0.02}, r"lr 0.01 \(now 0.02\)"),
        ({"seed": 1}, r"seed 0 \(now 1\)"),
        ({"cache": "uint8"}, r"cache 'float16' \(now 'uint8'\)"),
        ({"temperature": 2.0}, r"temperature None \(now 2.0\)"),
    ],
)
def test_a_folder_of_another_recipe_is_refused_by_name(tmp_path, settings, words):
    interrupted(tmp_path, cache="float16")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(el.UsageError, match=f"other settings: {words}; give another folder"):
        fit(**{"cache": "float16", "cache_dir": tmp_path, **settings})
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_folder_of_other_data_or_another_net_is_refused_by_name(tmp_path):
    interrupted(tmp_path, cache="float16")
    x, y = pictures()
    said = {
        "schedule": "sequential",
        "epochs": EPOCHS,
        "batch": BATCH,
        "rule": "readout",
        "lr": 0.01,
        "cache": "float16",
    }
    other = el.Net([el.Dense(4)], input_shape=(8, 8, 2))
    for some, samples, labels, words in (
        (net(), x + 1, y, "samples"),
        (net(), x, (y + 1) % 4, "answers"),
        (other, x, y, "net, initial weights"),
    ):
        before = some.flat.copy()
        with pytest.raises(el.UsageError, match=f"other settings: {words};"):
            some.fit(samples, labels, cache_dir=tmp_path, **said)
        assert np.array_equal(some.flat, before)


@pytest.mark.parametrize("name", ["run.json", "outputs-2.float16", "weights-2.npz"])
@pytest.mark.parametrize("damage", ["changed", "short", "gone"])
def test_damaged_files_are_refused(tmp_path, name, damage):
    interrupted(tmp_path, cache="float16")
    path = tmp_path / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x55
    path.write_bytes(content if damage == "changed" else content[: len(content) // 3])
    if damage == "gone":
        path.unlink()
    if (name, damage) == ("run.json", "gone"):  # the run begins again
        assert np.array_equal(fit(cache="float16", cache_dir=tmp_path).flat, fit(cache="float16").flat)
        return
    with pytest.raises(el.EdgelearnError, match="begin again|empty the folder") as refusal:
        fit(cache="float16", cache_dir=tmp_path)
    assert isinstance(refusal.value, (el.DataError, el.UsageError))
