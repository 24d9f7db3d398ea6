# SPDX-License-Identifier: Apache-2.0
"""`edgelearn doctor [MODEL]`."""

from __future__ import annotations

import argparse
import os
import platform
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgelearn.cli import options
from edgelearn.errors import EdgelearnError

EXAMPLE = """edgelearn doctor
  edgelearn doctor backbone.onnx
  edgelearn doctor backbone.tflite"""

EXTRAS = {
    "onnx": ("onnx", "onnxruntime"),
    "tflite": ("flatbuffers", "ai-edge-litert", "tflite-runtime"),
    "data": ("Pillow",),
    "plot": ("matplotlib",),
    "sklearn": ("scikit-learn",),
    "numba": ("numba",),
    "serial": ("pyserial", "cryptography", "zstandard"),
    "daemon": ("h11",),
}


def add(commands: options.Commands) -> None:
    """Declare the command."""
    parser = options.command(commands, "doctor", "say what this machine can do and what is missing", EXAMPLE)
    parser.add_argument(
        "model",
        metavar="MODEL",
        nargs="?",
        help="list the nodes of an .onnx or .tflite instead: what can be learned in each, where adapters can go, why "
        "not elsewhere",
    )
    parser.add_argument("--data-dir", default="/var/lib/edgelearn", metavar="DIR", help="of the daemon, for its disk")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print what is found; exit 1 when the core cannot be loaded."""
    if arguments.model is not None:
        return _listed(arguments)
    core, problem = _core()
    result = {
        "machine": platform.machine(),
        "model": _board(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "temperature_c": _temperature(),
        "python": platform.python_version(),
        "core": core,
        "board": [asdict(check) for check in _checks(arguments)],
        "packages": {name: _version(name) for names in EXTRAS.values() for name in names},
    }
    options.say(arguments, _text(result, problem), result)
    return 1 if problem else 0


def _listed(arguments: argparse.Namespace) -> int:
    from edgelearn.backbone.inspecting import listing

    found = listing(arguments.model)
    options.say(arguments, str(found), found.to_json())
    return 0


def _checks(arguments: argparse.Namespace) -> list[Any]:
    """What on this board will bite."""
    from edgelearn.daemon import checks

    return checks.board(
        Path(arguments.data_dir).expanduser().absolute(), Path(os.environ.get("EDGELEARN_SYSROOT", "/"))
    )


def _core() -> tuple[str | None, str]:
    from edgelearn import engines

    try:
        return engines.load("native").isa, ""
    except EdgelearnError as error:
        return None, str(error)


def _board() -> str:
    for place in ("/proc/device-tree/model", "/sys/class/dmi/id/product_name"):
        if Path(place).is_file() and os.access(place, os.R_OK):
            return Path(place).read_text(errors="replace").strip("\0\n ")
    return "unknown"


def _temperature() -> float | None:
    zones = sorted(Path("/sys/class/thermal").glob("thermal_zone*/temp"))
    readings = [int(zone.read_text()) / 1000 for zone in zones if os.access(zone, os.R_OK)]
    return max(readings, default=None)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _text(result: dict[str, Any], problem: str) -> str:
    packages, board = result["packages"], result["board"]
    lines = [
        f"machine   {result['machine']}, {result['model']}, {result['cores']} cores, "
        f"{int(str(result['memory_bytes'])) >> 20:,} MB, python {result['python']}",
        f"core      {result['core'] or 'not loaded: ' + problem}",
        f"heat      {result['temperature_c']} C" if result["temperature_c"] else "heat      no thermal zone readable",
    ]
    lines += [f"{check['name']:<9} {check['level']}: {check['message']}" for check in board if check["level"] != "fine"]
    for extra, names in EXTRAS.items():
        found = [f"{n} {packages[n]}" for n in names if packages[n]]
        missing = "" if found else f"not installed: pip install 'edgelearn[{extra}]'"
        lines.append(f"{extra:<9} {', '.join(found)}{missing}")
    return "\n".join(lines)
