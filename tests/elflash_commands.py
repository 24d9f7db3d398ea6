# SPDX-License-Identifier: Apache-2.0
"""`elflash` in processes of its own, for tests."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager

ELFLASH = [sys.executable, "-m", "edgelearn.cli.elflash"]
# Where the tests run in the background of a shell, an interrupt is ignored by all that they start, unless they say so.
ALERT = {"preexec_fn": lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)}
CLEAN = {key: value for key, value in os.environ.items() if not key.startswith("ELFLASH_")}


def call(*words, cwd, **env):
    command = [*ELFLASH, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd, env=CLEAN | env, timeout=120)


def ok(*words, cwd, **env):
    done = call(*words, cwd=cwd, **env)
    assert done.returncode == 0, done.stderr
    return done


@contextmanager
def serving(folder, *words):
    """A virtual board in a process of its own on the link `board`; the process."""
    command = [*ELFLASH, "serve-virtual", "--link", "board", "--unpaced", *map(str, words)]
    process = subprocess.Popen(command, cwd=folder, env=CLEAN, stdout=subprocess.PIPE, text=True, **ALERT)
    try:
        assert "virtual board is on" in process.stdout.readline()
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(120) == 0
        process.stdout.close()
