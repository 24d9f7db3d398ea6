# SPDX-License-Identifier: Apache-2.0
"""Fixtures: small separable data, real data sets where the machine has them, a folder to flash from."""

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("untimed", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("untimed")  # how long an example takes is the machine's affair

DATA = Path(os.environ.get("EDGELEARN_DATA", Path(__file__).parent.parent.parent / "shared" / "data"))

LONG = (
    "test_parity_maps.py",
    "test_install.py",
    "test_core.py",
    "test_older_runtimes.py",
    "test_elflash.py",
    "test_daemon_jobs.py",
)
"""Files that begin, so that in the end no worker waits long for another."""


def pytest_collection_modifyitems(items):
    """Long files first, everything else as it is."""
    items.sort(key=lambda item: LONG.index(item.path.name) if item.path.name in LONG else len(LONG))


@pytest.fixture
def blobs():
    """Four classes around four corners: x (200, 6) float32, y (200,) int."""
    rng = np.random.default_rng(0)
    y = np.arange(200) % 4
    centres = rng.normal(0, 2, (4, 6))
    return (centres[y] + rng.normal(0, 0.5, (200, 6))).astype(np.float32), y


@pytest.fixture
def backend(request, monkeypatch):
    """An engine by name, where a test asks for it indirectly; `native-scalar` is the core on that instruction set."""
    name, _, isa = request.param.partition("-")
    if isa:
        monkeypatch.setenv("EDGELEARN_ISA", isa)
    return name


@pytest.fixture
def real_data():
    """A function from a data set's file name to its path; the test is skipped where it is missing."""

    def find(name):
        if not (DATA / name).is_file():
            pytest.skip(f"{name} is not on this machine: set EDGELEARN_DATA to the folder that holds it")
        return DATA / name

    return find


@pytest.fixture
def quick_path(tmp_path):
    """A folder in memory where there is one: thousands of fsyncs take no time there."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def temporary(tmp_path, monkeypatch):
    """The folder where temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    return folder


@pytest.fixture
def bundled(tmp_path):
    """A folder with a key, a model and its bundle, all made by `elflash`."""
    from elflash_commands import ok
    from flashing import model

    ok("keygen", "-o", "key.pem", cwd=tmp_path)
    (tmp_path / "m.bin").write_bytes(model(5000, 1))
    ok("bundle", "m.bin", "--key", "key.pem", "--version", 3, "-o", "m.elb", cwd=tmp_path)
    return tmp_path
