# SPDX-License-Identifier: Apache-2.0
"""Bytes of chance, led by what they reach, into the codec, the manifest, bundles and a whole board.

`python -m bench.fuzz_flash [--seconds N]`: atheris in an environment of its own; crashes end it with exit code 1.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
import time

from bench import process, report, venvs

TARGETS = ("codec", "manifest", "bundle", "board")


def run(target: str, seconds: int, python: str) -> tuple[int, int, str]:
    """Inputs tried, points of the code reached, and the last words if it ended badly."""
    script = process.PEERS / "fuzz_flash.py"
    with tempfile.TemporaryDirectory() as folder:
        # Without our own installation on the path: the environment has no numpy, and needs none.
        environment = {**os.environ, "PYTHONPATH": str(process.ROOT), "FUZZ_FOLDER": folder}
        command = [
            python,
            str(script),
            target,
            f"-max_total_time={seconds}",
            "-max_len=4096",
            f"-artifact_prefix={folder}/",
        ]
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=process.ROOT)
    said = done.stderr + done.stdout
    tried = [int(n) for n in re.findall(r"^#(\d+)", said, re.M)]
    reached = [int(n) for n in re.findall(r"cov: (\d+)", said)]
    return max(tried, default=0), max(reached, default=0), said[-3000:] if done.returncode else ""


def main() -> int:
    """Fuzz each target for its share of the time; write the section."""
    parser = argparse.ArgumentParser(prog="python -m bench.fuzz_flash", description=__doc__)
    parser.add_argument("--seconds", type=int, default=600)
    arguments = parser.parse_args()
    python = venvs.python_of("atheris")
    table, failed = [], False
    for target in TARGETS:
        start = time.monotonic()
        tried, reached, words = run(target, arguments.seconds // len(TARGETS), python)
        spent = time.monotonic() - start
        failed = failed or bool(words) or not tried
        print(words or f"{target}: {tried:,} inputs", file=sys.stderr, flush=True)
        table.append([target, f"{tried:,}", f"{spent:.0f}", f"{reached:,}", "crash" if words else "none"])
    head = ["target", "inputs", "seconds", "edges reached", "crashes"]
    body = f"""## Fuzzing of what a line brings: `python -m bench.fuzz_flash`

Bytes of chance led by coverage ({venvs.installed("atheris")}), up to 4,096 at a time:
into both frame decoders and the SMP decoder, into manifests, into bundles, and as frames and as messages into a whole
board. A crash is any exception that is not one of ours and, for the codec, a message above the announced buffer.

{report.table(head, table)}"""
    report.write_section("bench.fuzz_flash", body)
    print(body)
    return int(failed)


if __name__ == "__main__":
    process.command(main)
