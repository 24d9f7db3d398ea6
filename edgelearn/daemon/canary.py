# SPDX-License-Identifier: Apache-2.0
"""`python -m edgelearn.daemon.canary FILE`: load a model and have it answer, in a process that may die of it."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from contextlib import suppress
from pathlib import Path

from edgelearn.errors import EdgelearnError, VerificationError

SECONDS = 30.0
"""That a model may take from the start of a process to its answers, on a board that is busy."""


async def prove(path: Path) -> float:
    """Let a process try a model; the seconds that its answers took.

    Raises:
        VerificationError: it died, was too slow, or gave no finite answers; the sentence says which.
    """
    arguments = (sys.executable, "-m", "edgelearn.daemon.canary", str(path))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *arguments, stdin=asyncio.subprocess.DEVNULL, stdout=pipe, stderr=pipe
    )
    try:
        said, _ = await asyncio.wait_for(process.communicate(), SECONDS)
    except (TimeoutError, asyncio.TimeoutError):
        raise VerificationError(f"the model did not answer within {SECONDS:g} s: give a smaller one") from None
    finally:
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()
    return _judged(said, process.returncode or 0)


def _judged(said: bytes, status: int) -> float:
    try:
        result = json.loads(said)
    except ValueError:
        result = {}
    if "reason" in result:
        raise VerificationError(str(result["reason"]))
    if status or "seconds" not in result:
        how = f"signal {-status}" if status < 0 else f"status {status}"
        raise VerificationError(f"the model crashed its trial process with {how}: train or convert it again")
    return float(result["seconds"])


def main(path: Path) -> int:
    """Try a model; print what came of it as JSON."""
    from edgelearn.daemon.serving import Model
    from edgelearn.store.versions import Version

    try:
        model = Model(Version(id=path.stem), path)
        start = time.perf_counter()
        model.warm()
    except EdgelearnError as error:
        print(json.dumps({"reason": str(error)}))
        return 1
    print(json.dumps({"seconds": time.perf_counter() - start}))
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
