# SPDX-License-Identifier: Apache-2.0
"""Block by block: one session that trains group after group, with and without outputs on disk."""

import json

import numpy as np
import pytest
from benches import BACKENDS
from sequential import BATCH, EPOCHS, fit, net, pictures

import edgelearn as el
from edgelearn import engines
from edgelearn.cli import main
from edgelearn.engines import Config, Run, Stats
from edgelearn.training import cache


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
