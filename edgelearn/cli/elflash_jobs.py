# SPDX-License-Identifier: Apache-2.0
"""What `elflash write` has to send: images of bundles and bare files, each in the forms in which it may travel."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from edgelearn.cli.elflash_files import key_of, manifest_of, split
from edgelearn.errors import TrustError, UsageError
from edgelearn.flash import bundle as bundles
from edgelearn.flash.manifest import Manifest
from edgelearn.flash.packing import forms


@dataclass(frozen=True)
class Job:
    """One image to write: its manifest as it was signed, and the forms in which it may travel."""

    name: str
    raw: bytes
    signature: bytes
    content: Manifest
    index: int
    forms: list[tuple[str, bytes, bytes]]
    """Packing, bytes, hash of the old payload; the first one first."""


def check_files(arguments: argparse.Namespace) -> None:
    """Whether the files are there, before a board is looked for.

    Raises:
        UsageError: one cannot be read.
    """
    for text in arguments.file:
        path = split(text)[1]
        try:
            path.open("rb").close()
        except OSError as error:
            raise UsageError(f"cannot read {path} ({error.strerror}): give a bundle or a file") from error
    _before(arguments.diff_with)


def jobs(arguments: argparse.Namespace) -> list[Job]:
    """What the files are, packed: bundles first.

    Raises:
        UsageError, MismatchError: a file that cannot be read or is damaged.
        TrustError: a bundle that nobody signed, without --unsigned.
    """
    before = _before(arguments.diff_with)
    bundled = [text for text in arguments.file if _is_bundle(Path(text))]
    bare = [text for text in arguments.file if text not in bundled]
    found = [job for text in bundled for job in _of_bundle(arguments, Path(text), before)]
    return found + (list(_of_files(arguments, bare, before)) if bare else [])


def _before(old: str | None) -> bytes | None:
    """The file that the board is said to have."""
    try:
        return Path(old).read_bytes() if old else None
    except OSError as error:
        raise UsageError(
            f"cannot read {old} ({error.strerror}): --diff-with takes the file that the board has"
        ) from error


def _is_bundle(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(len(bundles.MAGIC)) == bundles.MAGIC
    except OSError:  # said where it is read as a bare file
        return False


def _of_bundle(arguments: argparse.Namespace, path: Path, before: bytes | None) -> Iterator[Job]:
    """The images of a bundle as they are in it, or one of them as what differs."""
    found = bundles.read(path)
    if not found.signature and not arguments.unsigned:
        raise TrustError(f"{path.name} is not signed: sign it with 'elflash sign', or give --unsigned here as well")
    bundles.check_payloads(path, found)  # a board would find a damaged one only when all of it has come
    for index, form in enumerate(found.forms):
        choices = [(form.packing, bundles.payload(path, form), b"")]
        if before is not None and found.manifest.items[index].image == (arguments.image or "model"):
            choices = forms(bundles.unpacked(path, found, index), arguments.compress, before)
        yield Job(path.name, found.raw, found.signature, found.manifest, index, choices)


def _of_files(arguments: argparse.Namespace, bare: list[str], before: bytes | None) -> Iterator[Job]:
    """Files without a bundle, under one manifest; the first may travel as what differs."""
    content, payloads = manifest_of(arguments, bare)
    raw, signature = bundles.signed(content, key_of(arguments))
    for index, data in enumerate(payloads):
        choices = forms(data, arguments.compress, before if index == 0 else None)
        yield Job(content.items[index].name, raw, signature, content, index, choices)
