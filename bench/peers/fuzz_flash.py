# SPDX-License-Identifier: Apache-2.0
"""One target under atheris: fuzz_flash.py TARGET [options of libFuzzer]."""

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["edgelearn"]):
    from edgelearn.errors import EdgelearnError
    from edgelearn.flash import bundle, framing, manifest, smp
    from edgelearn.flash.board import Board, Identity, Policy
    from edgelearn.flash.endpoint import Endpoint

LIMIT = 4096


def codec(data: bytes) -> None:
    """Both framings in pieces, then the message."""
    for make in (framing.ConsoleDecoder, framing.CobsDecoder):
        decoder = make(LIMIT)
        for at in range(0, len(data), 100):
            for found in decoder.feed(data[at : at + 100]):
                assert isinstance(found, framing.Broken) or len(found) <= LIMIT
    try:
        message = smp.decode(data)
    except EdgelearnError:
        return
    assert smp.decode(smp.encode(message)) is not None


def manifests(data: bytes) -> None:
    """A manifest, and that what is accepted is written again as something that is accepted."""
    try:
        found = manifest.decode(data)
    except EdgelearnError:
        return
    assert manifest.decode(found.encode()) == found


def bundles(data: bytes) -> None:
    """A bundle, with and without its first bytes."""
    for whole in (data, bundle.MAGIC + len(data[:200]).to_bytes(4, "big") + data):
        with contextlib.suppress(EdgelearnError):
            bundle.parse(io.BytesIO(whole), len(whole))


_FOLDER = Path(os.environ.get("FUZZ_FOLDER") or tempfile.mkdtemp())
_ENDPOINT: list[Endpoint] = []


def board(data: bytes) -> None:
    """The bytes as a line brings them, and as one message: header and map."""
    if not _ENDPOINT:
        made = Board(_FOLDER / "board", Identity(buffer=LIMIT, capacity=1 << 16), Policy(unsigned=True))
        made.boot()
        _ENDPOINT.append(Endpoint(made))
    (endpoint,) = _ENDPOINT
    list(endpoint.feed(data))
    if len(data) > 4:
        group = (0, 1, 8, 64)[data[0] % 4]
        head = smp.HEADER.pack(8 | (data[1] & 2), 0, len(data) - 3, group, 0, data[2] % 13)
        list(endpoint.feed(framing.encode_console(head + data[3:])))


def main() -> None:
    """Run one of them."""
    targets = {"codec": codec, "manifest": manifests, "bundle": bundles, "board": board}
    target = targets[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
