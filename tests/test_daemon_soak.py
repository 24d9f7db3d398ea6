# SPDX-License-Identifier: Apache-2.0
"""What the daemon holds under load, for long: answers while it trains, a thousand swaps, a minute of samples."""

import os
import threading
import time

import numpy as np
import pytest
import reliability
from daemons import daemon

import edgelearn as el
from edgelearn.client import Client

pytestmark = pytest.mark.soak

CONFIG = '[train]\npolicy = "manual"\n[keep]\nsamples = "1GB"\n'
RATE, REQUEST, SIZE = 2000, 16, 784


@pytest.fixture(scope="module")
def images(real_data_path):
    data = np.load(real_data_path)
    return data["x_train"], data["y_train"]


@pytest.fixture(scope="module")
def real_data_path():
    from conftest import DATA

    path = DATA / "fashion_mnist.npz"
    if not path.is_file():
        pytest.skip("fashion_mnist.npz is not on this machine: set EDGELEARN_DATA")
    return path


@pytest.fixture(scope="module")
def small(tmp_path_factory, images):
    net = el.load("cnn-small").fit(images[0][:500], images[1][:500], epochs=1)
    path = tmp_path_factory.mktemp("model") / "cnn.safetensors"
    net.save(path)
    return path


def answers(running, x, seconds, stop=None):
    """Milliseconds of each prediction, one after the other."""
    found, end = [], time.perf_counter() + seconds
    with Client(f"unix:{running.folder}/api.sock") as client:
        while time.perf_counter() < end and not (stop and stop()):
            start = time.perf_counter()
            client.predict(x[len(found) % 1000])
            found.append(1e3 * (time.perf_counter() - start))
    return np.array(found)


def test_answers_do_not_wait_for_training(tmp_path, small, images):
    x, y = images
    seconds = float(os.environ.get("EDGELEARN_SOAK_SECONDS", "60"))
    with daemon(tmp_path, "--model", small, config=CONFIG, tcp=False) as running:
        for start in range(0, 20_000, 250):
            running.client.partial_fit(x[start : start + 250], y[start : start + 250])
        answers(running, x, 3)
        idle = answers(running, x, seconds)
        running.client.train()
        answers(running, x, 2)
        busy = answers(running, x, seconds, lambda: running.client.status()["state"] != "training")
        idle = np.concatenate([idle, answers(running, x, 0)])
    tails = [float(np.percentile(found, 99)) for found in (idle, busy)]
    rows = [
        ["idle", len(idle), float(np.median(idle)), tails[0]],
        ["training", len(busy), float(np.median(busy)), tails[1]],
    ]
    about = "Predictions of cnn-small, one after the other over the unix socket, in milliseconds, seen from the client."
    reliability.record("Answers while it trains", about, ["", "answers", "median", "p99"], rows)
    assert tails[1] <= 3 * tails[0]


def test_a_minute_of_samples_is_found_after_a_kill(tmp_path, small, images):
    """16 senders, requests of 16, 2,000 samples a second of 784 bytes each."""
    x, y = images
    seconds = int(os.environ.get("EDGELEARN_SOAK_SECONDS", "60"))
    acknowledged, late = [], []
    with daemon(tmp_path, "--model", small, config=CONFIG, tcp=False) as running:
        begin = time.monotonic() + 0.5
        count = RATE * seconds // REQUEST

        def send(number):
            with Client(f"unix:{running.folder}/api.sock") as client:
                for turn in range(number, count, 8):
                    due = begin + turn * REQUEST / RATE
                    time.sleep(max(0.0, due - time.monotonic()))
                    at = turn * REQUEST % 50_000
                    ids = client.partial_fit(x[at : at + REQUEST], y[at : at + REQUEST])
                    late.append(time.monotonic() - due)
                    acknowledged.extend(ids)

        threads = [threading.Thread(target=send, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took = time.monotonic() - begin
        running.kill()
    with daemon(tmp_path, config=CONFIG, tcp=False) as running:
        found = sum(running.client.samples()["counts"].values())
    rate = len(acknowledged) / took
    rows = [[seconds, len(acknowledged), rate, float(np.percentile(late, 99)), found, len(acknowledged) - found]]
    columns = ["seconds", "acknowledged", "samples/s", "p99 of seconds to acknowledge", "found after kill -9", "lost"]
    about = f"Requests of {REQUEST} samples of {SIZE} bytes at {RATE:,} a second over eight connections, then kill -9."
    reliability.record("A minute of samples", about, columns, rows)
    assert found == len(acknowledged) == len(set(acknowledged)) == count * REQUEST
    assert rate >= 0.97 * RATE
