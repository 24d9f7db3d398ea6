# SPDX-License-Identifier: Apache-2.0
"""How much of a serial line a transfer uses, as a share of what the line could carry at most, and how long the command
takes to say what it can do.

A virtual board in a process of its own, paced to 921,600 baud, with 16 ms before each answer as USB adapters have.
`python -m bench.flash [--rounds N] [--bytes N] [--starts N]`
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

from bench import process, report
from edgelearn.flash.framing import LINE
from edgelearn.flash.host import Payload, Remote
from edgelearn.flash.link import open_link
from edgelearn.flash.manifest import Item, Manifest
from edgelearn.flash.session import Options

BAUD, LATENCY_MS = 921_600, 16
CEILING = {"console": BAUD / 10 * ((LINE - 3) // 4 * 3) / LINE, "cobs": BAUD / 10}
"""Bytes a second: base64 in lines of 127 bytes carries 93 of them; without framing a byte is ten bits."""
CASES = (
    ("console", "", 0.92),
    ("cobs", "", 0.92),
    ("console", "flip=2%", 0.7),
    ("cobs", "flip=2%", 0.7),
)
"""Framing, faults, and what is promised: of the ceiling, or, with faults, of the clean rate."""


@contextmanager
def board(folder: Path, faults: str, seed: int) -> Iterator[str]:
    """The name of its port."""
    words = ["--link", str(folder / "board"), "--data-dir", str(folder / "disk"), "--unsigned", "--seed", str(seed)]
    words += ["--baud", str(BAUD), "--baud-max", str(BAUD), "--latency", str(LATENCY_MS), "--faults", faults]
    command = [sys.executable, "-m", "edgelearn.cli.elflash", "serve-virtual", *words]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout is not None
        child.stdout.readline()
        yield str(folder / "board")
    finally:
        child.terminate()
        child.wait()


def ours(port: str, data: bytes, framing: str) -> tuple[float, int]:
    """Bytes a second from the first chunk to the verified slot, and what was sent again."""
    link = open_link(port, BAUD)
    try:
        remote = Remote(link, Options(framing=framing))
        remote.hello()
        remote.prepare_line(len(data))
        content = Manifest((Item("model", 1, "noise", len(data), hashlib.sha256(data).digest()),))
        start = time.perf_counter()
        remote.write(content.encode(), b"", content, Payload(0, "none", data), lambda done, total: None)
        return len(data) / (time.perf_counter() - start), remote.client.retries
    finally:
        link.close()


def smpclient(port: str, data: bytes) -> float:
    """The same by smpclient, which sends a chunk and waits."""
    from smpclient import SMPClient
    from smpclient.transport.serial import SMPSerialTransport

    async def upload() -> float:
        async with SMPClient(SMPSerialTransport(baudrate=BAUD), port) as client:
            start = time.perf_counter()
            async for _ in client.upload(data, first_timeout_s=30.0, subsequent_timeout_s=30.0):
                pass
            return len(data) / (time.perf_counter() - start)

    return asyncio.run(upload())


def measure(rounds: int, size: int) -> dict[tuple[str, str], list[tuple[float, int]]]:
    """Rate and retries of each case in each round, and of the peer."""
    found: dict[tuple[str, str], list[tuple[float, int]]] = {}
    for number in range(rounds):
        data = random.Random(number).randbytes(size)
        for framing, faults, _ in CASES:
            with tempfile.TemporaryDirectory() as folder, board(Path(folder), faults, number) as port:
                found.setdefault((framing, faults), []).append(ours(port, data, framing))
        if _installed("smpclient"):
            with tempfile.TemporaryDirectory() as folder, board(Path(folder), "", number) as port:
                found.setdefault(("smpclient", ""), []).append((smpclient(port, data), 0))
        print(f"round {number + 1} of {rounds}", file=sys.stderr, flush=True)
    return found


HELP_SECONDS = 0.15
"""What `elflash --help` may take."""
STARTS = {
    "python -c pass": ["-c", "pass"],
    "elflash --help": ["-m", "edgelearn.cli.elflash", "--help"],
    "smpmgr --help": ["-m", "smpmgr", "--help"],
}


def starts(rounds: int) -> list[list[str]]:
    """Seconds from the start of each command to its end, the same ones in each round."""
    names = [name for name in STARTS if _installed("smpmgr") or "smpmgr" not in name]
    found: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(rounds):
        for name in names:
            start = time.perf_counter()
            subprocess.run([sys.executable, *STARTS[name]], stdout=subprocess.DEVNULL, check=True)
            found[name].append(time.perf_counter() - start)
    ours = median(found["elflash --help"])
    verdicts = {"elflash --help": [f"{HELP_SECONDS:.2f}", "pass" if ours <= HELP_SECONDS else "FAIL"]}
    return [[name, report.spread(found[name], 3), *verdicts.get(name, ["", ""])] for name in names]


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def rows(found: dict[tuple[str, str], list[tuple[float, int]]]) -> list[list[str]]:
    """The table: share of the ceiling, and for lines with faults of the clean rate in the same round."""
    table = []
    for (framing, faults), runs in found.items():
        wire = "console" if framing == "smpclient" else framing
        of_ceiling = [rate / CEILING[wire] for rate, _ in runs]
        clean = [rate / base for (rate, _), (base, _) in zip(runs, found[wire, ""], strict=True)]
        promise = next((p for f, x, p in CASES if (f, x) == (framing, faults)), None)
        kept = clean if faults else of_ceiling
        verdict = "" if promise is None else "pass" if median(kept) >= promise else "FAIL"
        name = f"smpclient {_installed('smpclient')}, console" if framing == "smpclient" else f"elflash, {framing}"
        table.append(
            [
                f"{name}{', 2 % of frames flipped' if faults else ''}",
                report.spread([rate / 1024 for rate, _ in runs], 1),
                report.spread(of_ceiling, 3),
                report.spread(clean, 3) if faults or framing == "smpclient" else "",
                str(sum(retries for _, retries in runs)),
                "" if promise is None else f"{promise:.2f}",
                verdict,
            ]
        )
    return table


def main() -> int:
    """Measure, write the section; 1 if a promise is not kept."""
    parser = argparse.ArgumentParser(prog="python -m bench.flash", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--bytes", type=int, default=1_000_000)
    parser.add_argument("--starts", type=int, default=15, help="rounds of starting commands")
    arguments = parser.parse_args()
    load = os.getloadavg()[0]
    begun = starts(arguments.starts)
    table = rows(measure(arguments.rounds, arguments.bytes))
    head = ["transfer", "KiB/s", "of the ceiling", "of ours, clean", "sent again", "promised", "verdict"]
    most = {framing: f"{rate / 1024:.1f} KiB/s" for framing, rate in CEILING.items()}
    body = f"""## Flashing over a serial line: `python -m bench.flash`

{arguments.bytes:,} bytes that do not compress to a virtual board on a pseudo-terminal, paced to {BAUD:,} baud,
{LATENCY_MS} ms before each answer; reading them back from the board's disk is included. {report.cpu()}, Python
{sys.version.split()[0]}, load {load:.1f} before the run. The line is simulated, so these are shares of what it could
carry: {most["console"]} in base64 (93 bytes in lines of 127), {most["cobs"]} raw. Median of
{arguments.rounds} rounds (least to greatest).

{report.table(head, table)}
Starts of commands, {arguments.starts} rounds:

{report.table(["command", "seconds", "promised", "verdict"], begun)}"""
    report.write_section("bench.flash", body)
    print(body)
    return int(any(row[-1] == "FAIL" for row in [*table, *begun]))


if __name__ == "__main__":
    process.command(main)
