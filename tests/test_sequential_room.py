# SPDX-License-Identifier: Apache-2.0
"""Block by block: what lies on disk is right to half a step; stages take the memory and disk that the plan says."""

import os
import subprocess
import sys
import textwrap
import tracemalloc

import numpy as np
import pytest
from benches import BACKENDS
from sequential import BATCH, fit, net, pictures

import edgelearn as el
from edgelearn import engines
from edgelearn.engines import Config, Entry
from edgelearn.inputs.data import Dataset
from edgelearn.net import fitting
from edgelearn.training import cache


def written(folder, kind, gain=1.0, part=7):
    some, (x, _) = net(), pictures(50)
    kernel = some.weights["conv2d.weight"]
    kernel[..., 2:4] *= gain
    kernel[..., 5] = 0
    session = engines.load().open(some.graph.records, some.flat, Config(batch=16, targets=4, train=False))
    rows = x.reshape(len(x), -1)
    cached = cache.Cache(folder, kind, {1: 6}, part).write(session, rows, Entry(), 0)
    expected = session.outputs(rows, 0)
    session.close()
    return cached, expected


@pytest.mark.parametrize("kind", cache.KINDS)
@pytest.mark.parametrize("gain", [1.0, 1e-7, 1e12])
def test_what_is_stored_is_right_to_half_a_step_of_its_channel(tmp_path, kind, gain):
    cached, expected = written(tmp_path, kind, gain)
    scale, shift = (pair.astype(np.float64) for pair in (cached.entry.scale, cached.entry.shift))
    read = cached.open(tmp_path).reshape(-1, 6) * scale + shift
    expected = expected.reshape(-1, 6).astype(np.float64)
    most = np.abs(expected).max(axis=0)
    assert (most > 0).sum() == 5, "a channel that is always zero is among them"
    step = np.ptp(expected, axis=0) / 255 / 2 if kind == "uint8" else most * 2.0**-11
    assert (np.abs(read - expected) <= step * 1.001 + 1e-6 * most).all()
    assert (tmp_path / cached.name).stat().st_size == expected.size * np.dtype(kind).itemsize
    assert not cached.open(tmp_path).flags.writeable


def test_what_is_stored_does_not_depend_on_how_many_samples_go_at_once(tmp_path):
    assert written(tmp_path, "uint8", part=7)[0] == written(tmp_path, "uint8", part=50)[0]


def stages_of(some, folder, **settings):
    x, y = pictures()
    data = Dataset(x, y.astype(np.int32), x[:0], y[:0])
    run = some.recipe(schedule="sequential", batch=BATCH, rule="readout", cache_dir=folder, **settings)
    some.adopt(data)
    return fitting.fitting(some, run, data).stages(some)


class Watched(cache.Cache):
    """Writes down what lies on disk when a file is no longer needed."""

    def remove(self, cached):
        files = sorted(self.folder.glob("outputs-*"))
        SEEN.append((len(files), sum(path.stat().st_size for path in files)))
        super().remove(cached)


SEEN = []


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["none", *cache.KINDS])
@pytest.mark.parametrize("settings", [{}, {"block": 2}, {"optimizer": "sgd", "micro": 8}])
def test_the_plan_is_what_the_largest_stage_takes(backend, kind, settings, tmp_path, monkeypatch):
    some = net()
    said = {"backend": backend, "cache": kind, **settings}
    plan = some.plan(batch=BATCH, samples=300, rule="readout", schedule="sequential", **said)
    monkeypatch.setattr(fitting, "Cache", Watched)
    SEEN.clear()
    with stages_of(some, tmp_path, **said) as stages:
        arenas = [stages.open(index).session.sizes.arena for index in range(len(stages.groups))]
    assert plan.arena_bytes == max(arenas)
    assert len(set(arenas)) > 1
    left = sum(path.stat().st_size for path in tmp_path.glob("outputs-*"))
    most = max(SEEN, default=(1, left))
    assert most[0] <= 2
    assert plan.cache_bytes == most[1] == (0 if kind == "none" else most[1])
    assert plan.arena_bytes < some.plan(batch=BATCH, rule="readout", **said).arena_bytes, "interleaved"


def test_memory_is_that_of_a_stage_and_not_of_the_outputs(tmp_path):
    layers = [el.Dense(512, "relu"), el.Dense(512, "relu"), el.Dense(4)]
    y = np.arange(6000) % 4
    x = np.random.default_rng(0).normal(size=(6000, 16)).astype(np.float32) + y[:, None].astype(np.float32)
    settings = {"schedule": "sequential", "rule": "readout", "epochs": 1, "cache": "float16", "batch": 64}
    el.Net(layers, input_shape=(16,)).fit(x, y, **settings)  # whatever is made once, at first use
    some = el.Net(layers, input_shape=(16,))
    plan = some.plan(samples=len(x), **{k: v for k, v in settings.items() if k != "epochs"})
    tracemalloc.start()
    some.fit(x, y, **settings, cache_dir=tmp_path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert plan.cache_bytes == 2 * 2 * 6000 * 512
    answers = 6000 * (8 + 4)
    assert plan.arena_bytes < peak < plan.arena_bytes + plan.feed_bytes + some.flat.nbytes + answers + 300_000
    assert plan.arena_bytes < some.plan(batch=64, rule="readout", schedule="interleaved").arena_bytes


FULL = """
    import resource, sys
    import numpy as np
    import edgelearn as el
    import sequential as here

    some, start = here.net(), here.net().flat
    resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, resource.RLIM_INFINITY))
    try:
        some.fit(*here.pictures(), schedule="sequential", epochs=2, batch=32, cache="float16", cache_dir=sys.argv[1])
    except el.OutputError as error:
        moved = [p.name for p in some.graph.parameters if not np.array_equal(p.view(some.flat), p.view(start))]
        print(error, sorted({name.split(".")[0] for name in moved}), sep="\\n")
"""


def test_a_disk_that_is_full_ends_the_run_with_the_blocks_that_are_done(tmp_path):
    command = [sys.executable, "-c", textwrap.dedent(FULL), str(tmp_path)]
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    run = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": path}, check=True)
    error, moved = run.stdout.splitlines()
    assert "outputs-1.float16 (File too large): choose a writable folder with space left" in error
    assert moved == "['batch_normalization', 'conv2d']"
    assert not list(tmp_path.glob("outputs-*"))
    assert not list(tmp_path.glob(".edgelearn-*"))


def test_too_little_space_is_refused_before_the_run(tmp_path):
    with pytest.raises(el.OutputError, match=r"need [\d,]+ bytes in .* free: give another"):
        cache.Cache(tmp_path, "uint8", {}, 1).require_space(1 << 60)
    (tmp_path / "file").write_text("")
    with pytest.raises(el.OutputError, match="give another cache_dir"):
        fit(cache_dir=tmp_path / "file")


def test_a_budget_of_disk_is_held():
    some = net()
    said = {"schedule": "sequential", "samples": 300, "batch": BATCH, "cache": "uint8"}
    plan = some.plan(**said)
    assert plan.cache_bytes == 300 * (4 * 4 * 6 + 2 * 2 * 8)
    assert f"on disk {plan.cache_bytes:,} bytes for 300 samples" in str(plan)
    assert some.plan(el.Budget(disk=plan.cache_bytes), **said).fits
    with pytest.raises(el.BudgetError, match="do not fit on disk .* set cache to uint8 or none"):
        some.plan(el.Budget(disk=plan.cache_bytes - 1), **said)
    with pytest.raises(el.BudgetError, match="do not fit on disk"):
        fit(cache="uint8", budget=el.Budget(disk=plan.cache_bytes - 1))
    with pytest.raises(el.UsageError, match="1 sample or more"):
        some.plan(**{**said, "samples": 0})
    assert some.plan(el.Budget(disk=1), **{**said, "cache": "none"}).cache_bytes == 0
    assert some.plan(el.Budget(disk=1), batch=BATCH, samples=300).cache_bytes == 0
