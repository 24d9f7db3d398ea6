# SPDX-License-Identifier: Apache-2.0
"""Virtual environments of the peers, made on demand. A new peer is one entry in REQUIREMENTS."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

NUMPY = ('numpy==2.4.6; python_version >= "3.11"', 'numpy==2.2.6; python_version < "3.11"')
"""NumPy 2.2 is the last that runs on Python 3.10."""

REQUIREMENTS: dict[str, tuple[str, ...]] = {
    "numpy": NUMPY,
    "torch": (*NUMPY, "torch==2.13.0"),
    "torch_onnx": (*NUMPY, "torch==2.13.0", "onnx==1.23.2", "onnxscript==0.7.2"),
    "peft": (*NUMPY, "torch==2.13.0", "peft==0.21.2", "transformers==5.24.0"),
    "tensorflow": ("tensorflow-cpu==2.21.0",),
    "mnn": (*NUMPY, "MNN==3.6.1"),
    "atheris": ("atheris==3.0.0", "cryptography==50.0.2", "zstandard==0.25.0"),
    "sklearn": (
        *NUMPY,
        'scikit-learn==1.9.1; python_version >= "3.11"',
        'scikit-learn==1.7.2; python_version < "3.11"',
    ),
}


class PeerUnavailableError(RuntimeError):
    """The environment of a peer cannot be made on this machine."""


def folder() -> Path:
    """Where the environments are: EDGELEARN_BENCH_VENVS, or bench/.venvs."""
    return Path(os.environ.get("EDGELEARN_BENCH_VENVS", Path(__file__).parent / ".venvs"))


def python_of(name: str) -> str:
    """The interpreter of a peer's environment, which is made first if it is missing or its pins have changed.

    Raises:
        PeerUnavailableError: pip found no matching packages here.
    """
    home = folder() / name
    made = home / "bench-requirements.txt"
    wanted = "\n".join((f"python {sys.version_info.major}.{sys.version_info.minor}", *REQUIREMENTS[name]))
    python = home / "bin" / "python"
    if not made.is_file() or made.read_text() != wanted:
        print(f"making the environment of {name} ...", file=sys.stderr, flush=True)
        _make(name, home, python)
        made.write_text(wanted)
    return str(python)


def missing(name: str) -> str | None:
    """Why a peer's environment cannot be made here; None when it is there."""
    try:
        python_of(name)
    except PeerUnavailableError as error:
        return str(error)
    return None


def _make(name: str, home: Path, python: Path) -> None:
    # Plain pip on purpose: other installers resolve torch to its CUDA build, which is gigabytes.
    commands = (
        [sys.executable, "-m", "venv", "--clear", str(home)],
        [str(python), "-m", "pip", "install", "--quiet", *REQUIREMENTS[name]],
    )
    for command in commands:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise PeerUnavailableError(f"{name} cannot be installed here: {reason}")


def installed(*names: str) -> str:
    """Pinned packages of peers as they are for the running Python, for the report."""
    current = sys.version_info >= (3, 11)
    pins = (r.partition(";") for name in names for r in REQUIREMENTS[name])
    chosen = (pin for pin, _, marker in pins if not marker or (">=" in marker) == current)
    return ", ".join(dict.fromkeys(pin.replace("==", " ") for pin in chosen))
