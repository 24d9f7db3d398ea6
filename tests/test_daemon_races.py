# SPDX-License-Identifier: Apache-2.0
"""What two do at once in a daemon, at the very moment at which it would hurt: changes of its configuration, a job that
is cancelled while its version becomes live, what is known of versions, a file that takes another's place."""

import asyncio
import json
import os
import sys
import threading
from contextlib import asynccontextmanager, suppress
from dataclasses import replace

import numpy as np
import pytest
from daemons import model, pictures

from edgelearn import __version__
from edgelearn.daemon import app, config, job, trialfile
from edgelearn.daemon.board import Board
from edgelearn.daemon.drop import Drop
from edgelearn.daemon.http import Body, Peer, Request

X, _ = pictures(6, seed=61)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return [model(folder / f"m{seed}.safetensors", seed=seed) for seed in (1, 2)]


@asynccontextmanager
async def started(folder, monkeypatch):
    """A daemon in the loop of the test, which listens nowhere."""
    monkeypatch.setattr(app, "_SWITCH_SECONDS", sys.getswitchinterval())
    found = app.Daemon(folder, config.read(folder), Board(folder))
    try:
        await found.start([])
        yield found
    finally:
        await found.stop()


async def proved(daemon, file):
    """A version that needs no canary any more."""
    version = await asyncio.to_thread(daemon.versions.store.commit, file)
    daemon.versions.trials.proved[version.id] = __version__
    return version


def patch(table):
    async def parts():
        yield json.dumps(table).encode()

    return Request("PATCH", "/v1/config", {}, Peer(os.getpid(), os.getuid(), (os.getgid(),)), Body(parts()))


def test_of_two_changes_of_the_configuration_neither_is_lost(tmp_path, monkeypatch):
    async def both():
        async with started(tmp_path, monkeypatch) as daemon:
            tables = {"train": {"every": 77}}, {"govern": {"temperature": 66}}
            await asyncio.gather(*(daemon.handle(patch(table)) for table in tables))
            return daemon.config

    kept = asyncio.run(both())
    assert (kept.train.every, kept.govern.temperature) == (77, 66)
    assert config.read(tmp_path) == kept


def test_a_promotion_that_is_cancelled_leaves_live_what_answers(tmp_path, files, monkeypatch):
    turns, goes_on = threading.Event(), threading.Event()

    async def cancelled():
        async with started(tmp_path, monkeypatch) as daemon:
            await daemon.versions.promote((await proved(daemon, files[0])).id)
            second, store = await proved(daemon, files[1]), daemon.versions.store
            turn = store.activate
            monkeypatch.setattr(store, "activate", lambda name: (turns.set(), goes_on.wait(), turn(name)))
            promotion = asyncio.ensure_future(daemon.versions.promote(second.id))
            await asyncio.to_thread(turns.wait)
            promotion.cancel()
            asyncio.get_running_loop().call_soon(goes_on.set)
            with suppress(asyncio.CancelledError):
                await promotion
            return daemon.serving.live.version.id, second.id

    live, second = asyncio.run(cancelled())
    assert live == second
    assert app.Store(tmp_path / "models").current().id == live


@pytest.mark.parametrize("state", ["validating", "shadow"])
def test_a_job_whose_version_is_live_already_is_done(tmp_path, files, monkeypatch, state):
    async def first():
        async with started(tmp_path, monkeypatch) as daemon:
            version = await proved(daemon, files[0])
            await daemon.versions.promote(version.id)
            return version.id

    async def again():
        async with started(tmp_path, monkeypatch) as daemon:
            await daemon.jobs._run
            return daemon.jobs.current

    cut = job.Job(1, state, policy="auto", version=asyncio.run(first()))
    job.write(tmp_path / "jobs", job.encoded([cut]))
    assert asyncio.run(again()) == replace(cut, state="live")
    assert job.read(tmp_path / "jobs")[0].state == "live"


def test_what_is_known_of_versions_is_on_the_disk_as_it_was_last(tmp_path, monkeypatch):
    writes, goes_on, write = threading.Event(), threading.Event(), trialfile.write_through

    def slowly(path, content):
        monkeypatch.setattr(trialfile, "write_through", write)
        writes.set()
        goes_on.wait()
        write(path, content)

    monkeypatch.setattr(trialfile, "write_through", slowly)
    trials = trialfile.Trials(tmp_path / "trials")
    trials.trial = {"version": "a", "starts": 0}
    savers = [threading.Thread(target=trials.save) for _ in range(2)]
    savers[0].start()
    writes.wait()
    trials.trial = {}
    savers[1].start()
    savers[1].join(0.2)  # as long as it takes, if nothing held it back
    goes_on.set()
    for saver in savers:
        saver.join()
    assert trialfile.Trials(tmp_path / "trials").trial == {}


def test_a_file_that_took_the_place_of_a_dropped_one_is_a_sample_too(tmp_path, files, monkeypatch):
    async def dropped():
        async with started(tmp_path, monkeypatch) as daemon:
            await daemon.versions.promote((await proved(daemon, files[0])).id)
            drop = Drop(daemon, tmp_path / "camera")
            drop.folder.mkdir()
            np.save(drop.folder / "latest.npy", X[0])
            np.save(tmp_path / "next.npy", X[1])
            store = daemon.store

            async def overtaken(samples):
                ids = await store(samples)
                with suppress(FileNotFoundError):
                    os.replace(tmp_path / "next.npy", drop.folder / "latest.npy")
                return ids

            monkeypatch.setattr(daemon, "store", overtaken)
            taken = [await drop.look() for _ in range(4)]
            return taken, [sample.x for sample in daemon.samples.latest(9)], list(drop.folder.iterdir())

    taken, kept, left = asyncio.run(dropped())
    assert kept == [X[1].tobytes(), X[0].tobytes()]
    assert (sum(taken), left) == (2, [])
