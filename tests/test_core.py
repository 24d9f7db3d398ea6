# SPDX-License-Identifier: Apache-2.0
"""The C core on its own: its tests in every preset that this machine can build, and what the library may call."""

import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

NEEDS = {"aarch64": ("aarch64-linux-gnu-gcc", "qemu-aarch64-static")}

FORBIDDEN = {
    *("malloc", "calloc", "realloc", "free", "aligned_alloc", "posix_memalign"),
    *("printf", "fprintf", "puts", "fopen", "fwrite", "getenv"),
    *("exit", "abort", "_exit", "__assert_fail"),
}


def run(*command):
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("preset", ["dev", "asan", "scalar", "aarch64"])
def test_the_core_passes_its_own_tests(preset):
    missing = [tool for tool in NEEDS.get(preset, ()) if not shutil.which(tool)]
    if missing:
        pytest.skip(f"{' and '.join(missing)} not installed: the {preset} preset cannot run here")
    run("cmake", "--preset", preset, "-G", "Ninja")
    run("cmake", "--build", "--preset", preset)
    said = run("ctest", "--preset", preset, "--verbose")
    assert "100% tests passed" in said
    assert said.count(" 0 failed") == len(list((ROOT / "tests" / "native").glob("test_*.c")))
    if preset == "dev" and shutil.which("nm"):
        check_calls(preset)


def check_calls(preset):
    """The library calls nothing that allocates, prints or exits."""
    said = run("nm", "--undefined-only", "--format=posix", f"build/{preset}/native/libedgelearn_core.a")
    called = {line.split()[0] for line in said.splitlines() if line and not line.endswith(":")}
    assert "memcpy" in called, "the list of symbols was not read"
    assert not called & FORBIDDEN
