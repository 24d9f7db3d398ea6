# SPDX-License-Identifier: Apache-2.0
"""One measurement is one process: a job goes in as JSON on stdin, the last line it prints comes back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from bench import venvs

ROOT = Path(__file__).resolve().parents[1]
PEERS = ROOT / "bench" / "peers"
_children: set[subprocess.Popen[str]] = set()
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class MeasurementError(RuntimeError):
    """A contender ended without a result; the message holds its last words."""


def run(script: str, job: dict[str, Any], venv: str | None = None, threads: int = 1) -> dict[str, Any]:
    """Run bench/peers/<script>.py in a peer's environment, or in this one, where we are installed.

    Raises:
        MeasurementError: it failed or printed no JSON.
        venvs.PeerUnavailableError: the environment cannot be made.
    """
    python = venvs.python_of(venv) if venv else sys.executable
    child = subprocess.Popen(
        [python, str(PEERS / f"{script}.py")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=_environment(threads, keep_path=venv is None),
        cwd=ROOT,
    )
    _children.add(child)
    said, complaint = child.communicate(json.dumps(job))
    _children.discard(child)
    if child.returncode:
        last = (complaint.strip().splitlines() or ["no message"])[-1]
        raise MeasurementError(f"{script} {_short(job)} ended with {child.returncode}: {last}")
    return json.loads(said.strip().splitlines()[-1])


def command(main: Callable[[], int]) -> NoReturn:
    """End with main's exit code, or with one sentence when something could not be measured; with it end its runs."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except (MeasurementError, venvs.PeerUnavailableError) as error:
        sys.exit(f"bench: {error}")
    except KeyboardInterrupt:
        sys.exit("bench: interrupted; what was finished is kept, the same command goes on from there")
    finally:
        stop_all()


def stop_all() -> None:
    """End every measurement that is under way."""
    for child in tuple(_children):
        child.kill()


def _environment(threads: int, keep_path: bool) -> dict[str, str]:
    """Our environment with the number of threads set; a peer does not see our PYTHONPATH."""
    kept = {k: v for k, v in os.environ.items() if keep_path or k != "PYTHONPATH"}
    return kept | dict.fromkeys(THREAD_VARIABLES, str(threads))


def _short(job: dict[str, Any]) -> str:
    return " ".join(str(job[k]) for k in ("module", "rule", "seed", "batch") if k in job)
