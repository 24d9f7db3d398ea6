# SPDX-License-Identifier: Apache-2.0
"""Block by block: what earlier blocks hand on lies on disk, a stage takes what the plan says, a killed run goes on."""

import json
import os
import subprocess
import sys
import textwrap
import tracemalloc

import numpy as np
import pytest
from nets import BACKENDS

import edgelearn as el
from edgelearn import engines
from edgelearn.cli import main
from edgelearn.engines import Config, Entry, Run, Stats
from edgelearn.inputs.data import Dataset
from edgelearn.net import fitting
from edgelearn.training import cache

EPOCHS, BATCH = 3, 32


def net():
    layers = [
        *(el.Conv2D(6, 3, padding="same"), el.BatchNormalization(), el.Activation("relu"), el.MaxPool(2)),
        *(el.Conv2D(8, 3, activation="tanh"), el.Dropout(0.2)),
        *(el.Dense(12, "relu"), el.Dense(4)),
    ]
    return el.Net(layers, input_shape=(8, 8, 2))


def pictures(n=300):
    rng, y = np.random.default_rng(0), np.arange(n) % 4
    patterns = rng.normal(0, 1, (4, 8, 8, 2))
    return (patterns[y] + rng.normal(0, 1, (n, 8, 8, 2))).astype(np.float32), y


def fit(backend="native", **settings):
    said = {"schedule": "sequential", "epochs": EPOCHS, "batch": BATCH, "rule": "readout", "lr": 0.01, **settings}
    return net().fit(*pictures(), backend=backend, **said)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.mark.parametrize("backend", BACKENDS)
def test_without_a_cache_it_is_one_session_that_trains_group_after_group(backend):
    some, (x, y) = net(), pictures()
    recipe = some.recipe(rule="readout", lr=0.01)
    config = Config(rule=recipe.local_rule(), optimizer=recipe.optimizer_record(), batch=BATCH, targets=4)
    session = engines.load(backend).open(some.graph.records, some.flat, config)
    steps = EPOCHS * -(-len(x) // BATCH)
    schedule = recipe.rate_schedule().spanning(steps)
    for group in range(4):
        run = Run(schedule, BATCH, steps, 0, 0, True, group, group)
        session.fit(x.reshape(len(x), -1), y.astype(np.int32), run, Stats())
    session.close()
    assert np.array_equal(some.flat, fit(backend, cache="none").flat)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", cache.KINDS)
@pytest.mark.parametrize("settings", [{}, {"rule": "tp-ce", "validation": 0.2, "patience": 2}, {"rule": "untrained"}])
def test_outputs_on_disk_train_almost_the_same_net(backend, kind, settings, temporary):
    x, y = pictures()
    exact, stored = (fit(backend, cache=name, **settings) for name in ("none", kind))
    assert not np.array_equal(exact.flat, stored.flat), "nothing was read from disk"
    first = exact.graph.parameters[0].view
    assert np.array_equal(first(exact.flat), first(stored.flat)), "the first block reads the samples themselves"
    assert np.abs(exact.predict_proba(x) - stored.predict_proba(x)).mean() < (0.03 if kind == "uint8" else 0.003)
    assert abs(exact.score(x, y) - stored.score(x, y)) < 0.03
    assert [m.stage for m in stored.history.epochs] == [m.stage for m in exact.history.epochs]
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("kind", cache.KINDS)
def test_both_engines_keep_the_same(kind):
    pytest.importorskip("numba")
    native, numba = (fit(backend, cache=kind).predict_proba(pictures()[0]) for backend in ("native", "numba"))
    assert np.abs(native - numba).mean() < 0.003


@pytest.mark.parametrize("kind", cache.KINDS)
def test_real_pictures_are_learned_as_well(real_data, kind):
    data = np.load(real_data("fashion_mnist.npz"))
    x, y, xt, yt = data["x_train"][:4000], data["y_train"][:4000], data["x_test"], data["y_test"]
    settings = {"schedule": "sequential", "rule": "tp-ce", "epochs": 4}
    scores = {name: el.load("mlp").fit(x, y, cache=name, **settings).score(xt, yt) for name in ("none", kind)}
    scores["untrained"] = el.load("mlp").fit(x, y, **{**settings, "rule": "untrained"}).score(xt, yt)
    assert scores[kind] > scores["none"] - 0.01
    assert scores[kind] > scores["untrained"] + 0.01


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


SCRIPT = """
    import sys
    import test_sequential as here

    def tell(moment):
        print(moment.stage, moment.epoch, flush=True)

    settings = {"cache": sys.argv[2], "backend": sys.argv[3], "cache_dir": sys.argv[1]}
    here.fit(epochs=int(sys.argv[4]), callbacks=[tell], **settings)
"""


def killed(folder, kind, backend, stage, epochs):
    """Stages and epochs that a process reported which was killed in a stage."""
    command = [sys.executable, "-c", textwrap.dedent(SCRIPT), str(folder), kind, backend, str(epochs)]
    path = os.pathsep.join([os.path.dirname(__file__), *sys.path])
    seen = []
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": path}
    ) as process:
        for line in process.stdout:
            seen.append(tuple(map(int, line.split())))
            if seen[-1] >= (stage, 1):
                process.kill()
                break
    assert process.returncode == -9
    return seen


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("kind", "stage"), [("uint8", 1), ("float16", 2), ("none", 1)])
def test_a_killed_run_goes_on_to_the_same_bits(backend, kind, stage, tmp_path):
    epochs, seen = 60, []
    assert killed(tmp_path, kind, backend, stage, epochs)[-1][0] == stage
    assert json.loads((tmp_path / "run.json").read_bytes())["finished"] == stage
    resumed = fit(backend, cache=kind, cache_dir=tmp_path, epochs=epochs, callbacks=[seen.append])
    assert {moment.stage for moment in seen} == set(range(stage, 4)), "a finished stage was trained again"
    whole = fit(backend, cache=kind, epochs=epochs)
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


FULL = """
    import resource, sys
    import numpy as np
    import edgelearn as el
    import test_sequential as here

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


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cache": "float32"}, "unknown cache 'float32': choose one of"),
        ({"cache": "uint8", "augment": {"shift": 1}}, "augment changes them every epoch: leave out one"),
        ({"schedule": "interleaved", "cache_dir": "here"}, "set schedule to sequential"),
    ],
)
def test_caches_that_cannot_be_meant_are_refused(settings, words):
    with pytest.raises(el.UsageError, match=words):
        fit(**settings)


def test_augmented_samples_go_through_all_blocks_every_time(temporary):
    said = {"augment": {"shift": 1}}
    seen = []
    auto = fit(**said, callbacks=[lambda moment: seen.extend(temporary.iterdir())])
    assert np.array_equal(auto.flat, fit(**said, cache="none").flat)
    assert not seen
    assert (auto.recipe().cached, fit().recipe().cached) == ("none", "uint8")


def test_the_command_goes_on_and_says_why_it_does_not_cache(tmp_path, capsys):
    x, y = pictures()
    np.savez(tmp_path / "data.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    run = ["train", "cnn-small", str(tmp_path / "data.npz"), "--schedule", "sequential", "--epochs", "1", "--rule"]
    run += ["readout", "-o", str(tmp_path / "out"), "--json"]
    assert main(run) == 0
    assert "cache none: augment changes samples" in capsys.readouterr().err
    run += ["--augment", "none", "--cache", "uint8", "--cache-dir", str(tmp_path / "cache")]
    results = []
    for _ in range(2):
        assert main(run) == 0
        results.append(json.loads(capsys.readouterr().out.splitlines()[-1]))
    assert results[0]["accuracy"] == results[1]["accuracy"]
    assert results[0]["cache_bytes"] == 300 * (4 * 4 * 32 + 2 * 2 * 64)
    assert main([*run, "--seed", "3"]) == 2
    assert "seed 0 (now 3)" in capsys.readouterr().err
