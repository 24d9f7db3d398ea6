# SPDX-License-Identifier: Apache-2.0
"""Command lines of `edgelearn`, run in this process, which is quick, or in one of their own."""

import contextlib
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

from edgelearn.cli import main


@contextlib.contextmanager
def inside(folder):
    """As contextlib.chdir, which Python 3.10 has not."""
    before = Path.cwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def call(*arguments, cwd="."):
    """What a process would return and say, without the start of one."""
    out, err = io.StringIO(), io.StringIO()
    with inside(cwd), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main([str(argument) for argument in arguments])
        except SystemExit as end:  # help and version
            code = end.code
    return SimpleNamespace(returncode=code, stdout=out.getvalue(), stderr=err.getvalue())


def call_alone(*arguments, **options):
    """The same in a process."""
    command = [sys.executable, "-m", "edgelearn.cli", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def last_json(done):
    return json.loads(done.stdout.splitlines()[-1])
